"""The scaling model: its sizes are those of the code, and its document shows what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks import scaling, scaling_model
from cluster.checkpoints import store
from gencomp import recipes
from gencomp.draws import Draws
from gencomp.system import Batch, Progress, System
from gencomp.systems import build_system
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "scaling.md"
NARROW = {"networks.width": 8, "data.batch_size": 4}
STAGES = {
    "wae": ("dplc_wae_celeba", None),
    "wgan_gp": ("dplc_wgan_gp_celeba", None),
    "wasserstein_pp": ("dplc_wasserstein_pp_celeba", None),
    "codec": ("dplc_codec_celeba", "dplc_wasserstein_pp_celeba"),
}


@pytest.mark.parametrize("title", scaling.TABLES)
def test_the_document_shows_what_is_computed(title: str) -> None:
    assert scaling.TABLES[title]() in DOCUMENT.read_text()


def test_a_checkpoint_has_the_size_that_is_computed(tmp_path: Path) -> None:
    name, overrides = "dplc_wasserstein_pp_lsun", scaling_model.WIDE | {"networks.width": 16}
    recipe = recipes.load(name, overrides)
    system = build_system(recipe, {})
    optimizers = {name: system.optimizer(name) for name in system.phases}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    state = system.networks.state_dict()
    content = store.Content(
        networks=state,
        averages=state,
        optimizers={name: one.state_dict() for name, one in optimizers.items()},
        progress={"step": 1, "samples": 1, "world": 1},
    )
    found = store.write(tmp_path, content)
    size = sum(path.stat().st_size for path in found.path.iterdir())
    case = scaling_model.case(
        "", "dplc_wasserstein_pp_lsun", scaling_model.WIDE | {"networks.width": 16}
    )
    assert size == pytest.approx(case.checkpoint, rel=0.01)


@pytest.mark.parametrize("stage", STAGES)
def test_an_update_exchanges_what_is_computed(stage: str) -> None:
    """Counted on rank 0 of two whose messages go nowhere; gradients travel by other means."""
    name, parent = STAGES[stage]
    case = scaling_model.case("", name, NARROW, parent)
    recipe = recipes.load(name, NARROW)
    parents = {"generator": recipes.load(parent)} if parent else {}
    system = build_system(recipe, parents)
    assert set(system.phases) == {update.phase for update in case.updates}
    repeats = [update.phase for update in case.updates for _ in range(update.repeats)]
    progress = Progress(0, 0, 100)
    assert repeats == [update.phase for update in system.updates(progress)]
    with two_ranks() as sent:
        for update in case.updates:
            sent.clear()
            make(system, update.phase, progress)
            expected = scaling_model.traffic(case, update, world=2)
            gathers = [size for kind, size in sent if kind == "all_gather"]
            reduces = [size for kind, size in sent if kind == "all_reduce"]
            assert (len(gathers), sum(gathers)) == (expected.gathers, expected.gathered)
            assert (len(reduces), sum(reduces)) == (expected.reduces, expected.reduced)


def make(system: System, name: str, progress: Progress) -> None:
    """Forward and backward of an update, on two images of four."""
    phase = system.phases[name]
    phase.take_over()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    rows = torch.tensor([0, 2])
    draws = Draws(1, ("train", 0), 4, 0, 2, torch.device("cpu"))
    phase(Batch(images, rows, rows, rows), draws, progress).loss.backward()


@contextmanager
def two_ranks() -> Iterator[list[tuple[str, int]]]:
    """A process group without a second process; yields kind and bytes of what this rank sends."""
    sent: list[tuple[str, int]] = []
    gather, reduce = dist.all_gather, dist.all_reduce

    def all_gather(table: list[torch.Tensor], x: torch.Tensor, *more: Any) -> Any:
        sent.append(("all_gather", x.nbytes))
        return gather(table, x, *more)

    def all_reduce(x: torch.Tensor, *more: Any) -> Any:
        sent.append(("all_reduce", x.nbytes))
        return reduce(x, *more)

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        with (
            mock.patch.object(dist, "all_gather", all_gather),
            mock.patch.object(dist, "all_reduce", all_reduce),
        ):
            yield sent
    finally:
        dist.destroy_process_group()


def test_a_ring_and_the_best_interval_in_closed_form() -> None:
    assert scaling_model.ring(1e9, 2, 1e9) == pytest.approx(1.0)
    (wae, *_) = scaling_model.cases()
    machine = scaling_model.Machine(nodes=1)
    seen = scaling_model.outlook(wae, machine, node_days=1.0)
    pause = wae.checkpoint / machine.copy
    assert seen.failures == pytest.approx(1.0)
    assert seen.interval == pytest.approx((2 * pause * scaling_model.DAY) ** 0.5)
