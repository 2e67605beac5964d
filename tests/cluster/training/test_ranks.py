"""The loop on several ranks: gloo processes without an engine, one start per world size.

Each start trains the same tiny generator (batches of 8, so unequal shares for three) straight
through, stopped and resumed, crashed and resumed, and in float64. Before that, it makes some steps
of other methods and keeps each rank's own state. This file is also the program that they run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cluster import data, worker
from cluster.runs import Run
from cluster.training import steps
from cluster.training.ema import Averages
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Progress, System
from gencomp.systems.common import calibration
from tests import tiny
from tests.conftest import ROOT
from tests.gencomp import gan_cases, urdp_cases
from tests.waiting import PATIENCE

STEPS = 12
WORLDS = (2, 3)
# Name -> steps after which the loop is stopped, or after which every rank dies.
STOPS = {"straight": [], "stopped": [3, 2], "crashed": [], "double": []}
CRASHES = {"straight": [], "stopped": [], "crashed": [6], "double": []}


def launch(world: int, folder: Path) -> None:
    """Run this file as `world` ranks and wait."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world), str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)


@pytest.fixture(scope="module")
def runs(
    photos: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, dict[str, Run]]:
    """World size -> name -> finished run; the one of world size 1 was trained in this process."""
    folder = tmp_path_factory.mktemp("world1")
    with tiny.double_precision():
        double, _ = tiny.trained(folder / "double", tiny.generator(photos))
    found = {1: {"straight": Run(generator_run), "double": double}}
    for world in WORLDS:
        folder = tmp_path_factory.mktemp(f"world{world}")
        for name in STOPS:
            tiny.started(folder / name, tiny.generator(photos))
        launch(world, folder)
        found[world] = {name: Run(folder / name) for name in STOPS}
    return found


def batches(run: Run, world: int) -> list[list[dict[str, list[int]]]]:
    """[rank][batch] -> rows and positions that the loop took."""
    return [json.loads((run.path / f"order.{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("name", ["stopped", "crashed"])
@pytest.mark.parametrize("world", WORLDS)
def test_an_interrupted_run_ends_with_the_same_bits(
    runs: dict[int, dict[str, Run]], world: int, name: str
) -> None:
    """For three ranks the order of summation matters: new processes must sum as old ones did."""
    interrupted, straight = runs[world][name], runs[world]["straight"]
    tiny.assert_identical(tiny.state(interrupted), tiny.state(straight))
    assert tiny.rows(interrupted) == tiny.rows(straight)
    assert tiny.result(interrupted) == tiny.result(straight)


@pytest.mark.parametrize("world", WORLDS)
def test_losses_are_those_of_one_rank(runs: dict[int, dict[str, Run]], world: int) -> None:
    """Batch norms of eight samples and Adam magnify rounding in float32: early steps tell."""
    one, many = tiny.losses(runs[1]["straight"]), tiny.losses(runs[world]["straight"])
    np.testing.assert_allclose(many[:6], one[:6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("world", WORLDS)
def test_everything_is_that_of_one_rank(runs: dict[int, dict[str, Run]], world: int) -> None:
    """Losses, metrics and weights agree in float64, where no error can hide behind rounding."""
    one, many = runs[1]["double"], runs[world]["double"]
    for row, expected in zip(tiny.rows(many), tiny.rows(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-8)
    assert numbers(many) == pytest.approx(numbers(one), rel=1e-8)
    expected_state = tiny.state(one)
    for name, value in tiny.state(many).items():
        assert torch.allclose(value, expected_state[name], rtol=1e-7, atol=1e-9), name


def numbers(run: Run) -> dict[str, float]:
    """The metrics in a result (its protocol names the weights, which differ in their last bits)."""
    return {k: v for k, v in tiny.result(run).items() if isinstance(v, int | float)}


@pytest.mark.parametrize("world", WORLDS)
def test_the_ranks_share_the_batches_of_one(runs: dict[int, dict[str, Run]], world: int) -> None:
    """Batch k is the same set of samples for every world size; an epoch takes each once."""
    ranks = batches(runs[world]["straight"], world)
    stream = []
    for k in range(STEPS):
        positions = [p for rank in ranks for p in rank[k]["positions"]]
        assert sorted(positions) == list(range(8 * k, 8 * k + 8))
        stream += sorted(
            zip(positions, [r for rank in ranks for r in rank[k]["rows"]], strict=True)
        )
    rows = [row for _, row in stream]
    assert sorted(rows[:43]) == sorted(rows[43:86]) == list(range(43))
    assert rows == expected_rows(runs[world]["straight"])


def expected_rows(run: Run) -> list[int]:
    """The order as the data floor defines it."""
    import shards
    from shards.reading.order import EpochOrder

    recipe = run.recipe()
    split = shards.open_set(recipe.data.shards).split(recipe.data.split)
    order = EpochOrder(split.key_hash, recipe.training.seed, len(split))
    return order.rows(np.arange(8 * STEPS)).tolist()


@pytest.mark.parametrize("world", WORLDS)
def test_a_resumed_run_takes_the_batches_that_were_left(
    runs: dict[int, dict[str, Run]], world: int
) -> None:
    straight, stopped, crashed = (
        batches(runs[world][name], world) for name in ("straight", "stopped", "crashed")
    )
    assert stopped == straight
    for rank in range(world):
        # The crash came after six steps, two after the checkpoint of step 4: those are taken again.
        assert crashed[rank] == straight[rank][:6] + straight[rank][4:]


class Stepped(NamedTuple):
    """What some steps end with: the losses of all updates, and every tensor of a rank's state."""

    losses: list[float]
    networks: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    optimizers: dict[str, torch.Tensor]


def states(runs: dict[int, dict[str, Run]], world: int) -> list[dict[str, Stepped]]:
    """[rank][name] -> what the steps of a method ended with."""
    folder = runs[world]["straight"].path.parent
    found = [torch.load(folder / f"states.{rank}.pt") for rank in range(world)]
    return [{name: Stepped(*parts) for name, parts in one.items()} for one in found]


@pytest.mark.parametrize("world", WORLDS)
def test_every_rank_has_the_state_of_the_first(runs: dict[int, dict[str, Run]], world: int) -> None:
    """Weights, buffers, moving averages and optimizers in every bit, as no rank sends them."""
    first, *others = states(runs, world)
    assert first.keys() == METHODS.keys()
    for name, expected in first.items():
        assert expected.networks and expected.optimizers
        assert bool(expected.averages) == name.startswith("gan")
        for found in (other[name] for other in others):
            assert found.losses == expected.losses
            for part in ("networks", "averages", "optimizers"):
                tiny.assert_identical(getattr(found, part), getattr(expected, part))


@pytest.mark.parametrize("world", WORLDS)
def test_five_cycles_of_critic_and_codec_are_those_of_one_rank(
    runs: dict[int, dict[str, Run]], world: int
) -> None:
    """At a global batch of 64, in float64."""
    expected = METHODS["urdp"](WorkerInfo())
    found = states(runs, world)[0]["urdp"]
    assert len(expected.losses) == 10
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    start = urdp_cases.made().networks.double().state_dict()
    weights = [name for name in start if name.endswith("weight")]
    assert not any(torch.equal(expected.networks[name], start[name]) for name in weights)
    for name, value in expected.networks.items():
        assert torch.allclose(found.networks[name], value, rtol=0, atol=1e-5), name


# What each rank runs.


def gan_steps(worker: WorkerInfo, case: str, **more: Any) -> Stepped:
    """Three steps with four images."""
    more = {"data.batch_size": 4, **more}
    system = gan_cases.made(case, **more)
    return _stepped(
        system,
        gan_cases.recipe(case, **more),
        worker,
        3,
        lambda step: gan_cases.batch(4, seed=step),
    )


def urdp_steps(worker: WorkerInfo) -> Stepped:
    """Five batches for the critic and five for the codec, in float64."""
    system = urdp_cases.made()
    system.networks.double()

    def batch(step: int) -> Batch:
        found = urdp_cases.batch(system, 64, seed=step)
        return found._replace(images_BCHW=found.images_BCHW.double() / 255)

    return _stepped(system, system.recipe, worker, 10, batch)


METHODS: dict[str, Callable[[WorkerInfo], Stepped]] = {
    "gan, spectral": lambda worker: gan_steps(
        worker, "global", **{"discriminator.norm": "none", "discriminator.spectral_norm": True}
    ),
    "urdp": urdp_steps,
}


def _stepped(
    system: System,
    recipe: BaseRecipe,
    worker: WorkerInfo,
    count: int,
    batch: Callable[[int], Batch],
) -> Stepped:
    """Steps as the loop makes them, with this rank's rows of batches."""
    optimizers = {name: system.optimizer(name) for name in system.phases}
    training, averages = recipe.training, None
    if training.ema_decay is not None:
        averages = Averages(system.networks, training.ema_decay, training.ema_warm_up)
    loop = steps.Steps(recipe, system, optimizers, worker)
    progress, losses = Progress(0, 0, 640), []
    for step in range(count):
        share = _share(batch(step), worker)
        losses += [float(one.loss) for one in loop.step(progress, lambda share=share: share)]
        if averages is not None:
            averages.update()
        progress = Progress(step + 1, progress.samples + loop.samples(progress), 640)
    states = {
        f"{name} {number} {key}": value
        for name, optimizer in optimizers.items()
        for number, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    own = averages.state() if averages is not None else {}
    return Stepped(losses, system.networks.state_dict(), own, states)


def _share(batch: Batch, worker: WorkerInfo) -> Batch:
    images_BCHW, rows_B, positions_B, labels_B, maps = batch
    own = slice(worker.rank, None, worker.world)
    maps = {name: ids_BHW[own] for name, ids_BHW in maps.items()}
    return Batch(images_BCHW[own], rows_B[own], positions_B[own], labels_B[own], maps)


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = {name: tuple(made(WorkerInfo(rank, world))) for name, made in METHODS.items()}
    torch.save(found, folder / f"states.{rank}.pt")
    if os.environ.get("REBUILT_BUCKETS"):
        _let_buckets_be_rebuilt()
    for name in STOPS:
        run, info = Run(folder / name), WorkerInfo(rank, world)
        precision = tiny.double_precision() if name == "double" else contextlib.nullcontext()
        order: list[dict[str, list[int]]] = []
        for count in CRASHES[name]:
            with contextlib.suppress(tiny.Crash):
                _train(run, info, Host(), order, crash_after=count)
        with precision:
            for host in [*map(tiny.stop_after, STOPS[name]), Host()]:
                _train(run, info, host, order)
        (run.path / f"order.{rank}.json").write_text(json.dumps(order))
    dist.barrier()
    dist.destroy_process_group()


def _train(
    run: Run,
    info: WorkerInfo,
    host: Host,
    order: list[dict[str, list[int]]],
    crash_after: int = 1000,
) -> None:
    """Train, and record the batches of the steps (not those of the statistics at the end)."""
    to_batch = data.to_batch
    left = iter(range(crash_after))

    def recording(batch: Any, device: torch.device) -> Any:
        if next(left, None) is None:
            raise tiny.Crash
        order.append({"rows": batch.rows.tolist(), "positions": batch.positions.tolist()})
        return to_batch(batch, device)

    with (
        mock.patch.object(data, "to_batch", recording),
        mock.patch.object(calibration, "CALIBRATION_SAMPLES", 64),
    ):
        if worker.train(run, info, host).finished:
            del order[-64 // 8 :]


def _let_buckets_be_rebuilt() -> None:
    """Undo what keeps the order of summation: the tests of three ranks must then fail."""
    wrapped = steps.DistributedDataParallel

    def without(*arguments: Any, find_unused_parameters: bool, **options: Any) -> Any:
        return wrapped(*arguments, **options)

    steps.DistributedDataParallel = without  # type: ignore[assignment,misc]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
