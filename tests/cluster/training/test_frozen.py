"""Frozen networks: never trained, never saved, and part of what identifies a system.

The system here is a codec that sees the encoder of its parent run beside its own networks: its loss
adds the distance of images and reconstructions under that encoder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from cluster import runs
from cluster.checkpoints import store
from cluster.runs import Run
from cluster.training import state as state_of_training
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host, train
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Phase, PhaseLoss, Progress, System
from gencomp.systems.common import pixels
from gencomp.systems.common.objectives import Objective
from gencomp.systems.dplc import recipe as recipes_of_dplc
from gencomp.systems.dplc.coders import RateConstrainedCodec
from gencomp.systems.dplc.generators import AutoencodingGenerator
from tests import tiny


class Perceptual(Phase):
    """Another objective of the codec plus the squared distance under a frozen encoder."""

    evaluated: tuple[str, ...] = ("generator", "judge")

    def __init__(self, codec: Phase, judge: nn.Module) -> None:
        nets = {**codec.networks, "judge": judge}
        super().__init__(nets, codec.trains, self.evaluated)
        self.codec = [codec]  # in a list: its parameters are there already

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        loss, terms = self.codec[0](batch, draws, progress)
        judge, x_BCHW = self.networks["judge"], pixels.to_signed(batch.images_BCHW)
        assert not judge.training and not any(p.requires_grad for p in judge.parameters())
        z_BM11 = self.codec[0].encode(self.networks, x_BCHW, draws)
        distance = judge(self.networks["generator"](z_BM11)) - judge(x_BCHW)
        term = distance.square().mean()
        return PhaseLoss(loss + term, {**terms, "perceptual": term.detach()})


class Judged(RateConstrainedCodec):
    """The codec with the encoder of its generator's run as a judge."""

    def __init__(
        self, recipe: recipes_of_dplc.CodecRecipe, generator: recipes_of_dplc.WaeRecipe
    ) -> None:
        super().__init__(recipe, generator)
        judge = AutoencodingGenerator(generator).networks["encoder"]
        self.frozen = nn.ModuleDict({"judge": judge})
        phase = Perceptual(self.phases["codec"], judge)
        self.phases["codec"] = phase
        self._objectives = {"codec": Objective(phase, recipe.optimizer)}

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        prefix = "encoder."
        state = parents["generator"].items()
        found = {name.removeprefix(prefix): t for name, t in state if name.startswith(prefix)}
        self.frozen["judge"].load_state_dict(found)


@pytest.fixture(scope="module", autouse=True)
def _judged() -> Iterator[None]:
    """Recipes of dplc/codec make a judged codec."""
    build = state_of_training.build_system

    def chosen(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> System:
        if isinstance(recipe, recipes_of_dplc.CodecRecipe):
            parent = parents["generator"]
            assert isinstance(parent, recipes_of_dplc.WaeRecipe)
            return Judged(recipe, parent)
        return build(recipe, parents)

    with (
        mock.patch.object(state_of_training, "build_system", chosen),
        mock.patch.object(runs, "build_system", chosen),
    ):
        yield


@pytest.fixture(scope="module")
def run(photos: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of a judged codec that no test changes."""
    path = tmp_path_factory.mktemp("runs") / "codec"
    found, outcome = tiny.trained(path, tiny.codec(photos, generator_run))
    assert outcome.finished
    return found


def encoder(parent: Path) -> dict[str, Tensor]:
    state = Run(parent).final_checkpoint().networks()
    return {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}


def exchange_encoder(parent: Path) -> None:
    """Other weights of the encoder in the parent's last checkpoint, with a manifest that fits."""
    last = Run(parent).final_checkpoint()
    state = last.networks()
    name = next(n for n in state if n.startswith("encoder.") and n.endswith("weight"))
    content = store.Content(state | {name: state[name] + 1}, last.optimizers(), last.progress())
    store.write(Run(parent).checkpoints, content)


def test_they_judge_and_are_neither_trained_nor_saved(run: Run, generator_run: Path) -> None:
    judged = [row["codec/perceptual"] for row in tiny.rows(run) if "codec/loss" in row]
    assert len(judged) == 12 and min(judged) > 0
    saved = run.final_checkpoint().networks()
    assert saved and not any("judge" in name for name in saved)
    judge = run.system().frozen["judge"]
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())
    tiny.assert_identical(dict(judge.state_dict()), encoder(generator_run))


def test_they_move_with_the_other_networks(run: Run) -> None:
    system = run.system()
    system.to(torch.device("meta"))
    for networks in (system.networks, system.frozen):
        assert {tensor.device.type for tensor in networks.state_dict().values()} == {"meta"}


def test_a_resumed_run_has_them_again(
    run: Run, photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    raw = tiny.codec(photos, generator_run)
    with pytest.raises(tiny.Crash):
        tiny.trained(tmp_path / "run", raw, tiny.crash_after(6))
    resumed, _ = tiny.trained(tmp_path / "run", raw)
    tiny.assert_identical(tiny.state(resumed), tiny.state(run))
    assert resumed.final_checkpoint().networks_hash() == run.final_checkpoint().networks_hash()


def test_they_are_part_of_what_identifies_the_system(run: Run, tmp_path: Path) -> None:
    last = store.Checkpoint(
        Path(shutil.copytree(run.final_checkpoint().path, tmp_path / "step-000000012"))
    )
    whole, frozen = last.networks_hash(), last.frozen_hash()
    weights = json.loads((last.path / store.MANIFEST).read_text())[store.NETWORKS]["xxh3_128"]
    assert frozen is not None and whole not in (weights, frozen)
    (last.path / store.FROZEN).write_text(json.dumps({"xxh3_128": frozen[::-1]}))
    assert last.networks_hash() != whole
    with pytest.raises(store.CorruptCheckpoint, match=r"frozen\.json does not match the hash"):
        store.verify(last.path)


def test_others_than_those_of_the_training_are_refused(
    photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    """Whoever reads the run refuses them, and so does training that would go on."""
    parent = Path(shutil.copytree(generator_run, tmp_path / "generator"))
    raw = tiny.codec(photos, parent)
    run, _ = tiny.trained(tmp_path / "run", raw, tiny.stop_after(4))
    assert run.system().frozen
    exchange_encoder(parent)
    said = r"trained beside \w+: a parent run or a file of weights has changed since"
    with pytest.raises(InputError, match=said):
        run.system()
    with pytest.raises(InputError, match=said):
        train(run, WorkerInfo(), Host())


def test_a_phase_that_would_let_them_learn_is_an_error(
    photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    with (
        mock.patch.object(Perceptual, "evaluated", ("generator",)),
        pytest.raises(TypeError, match="phase codec runs the frozen network judge: name it"),
    ):
        tiny.trained(tmp_path / "codec", tiny.codec(photos, generator_run))


def test_a_system_without_any_leaves_no_mark(generator_run: Path) -> None:
    run = Run(generator_run)
    last = run.final_checkpoint()
    assert last.frozen_hash() is None and not (last.path / store.FROZEN).exists()
    assert not run.system().frozen
