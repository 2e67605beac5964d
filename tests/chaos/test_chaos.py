"""Whatever happens to a run, and however often: its bits, its metrics, its samples.

The demo's generator, narrower, under `gencomp train`. Between the faults the run recovers by itself
or by the same command; all of it is one run. What the faults cost is printed and, where
GENCOMP_CHAOS_REPORT names a file, written there as JSON.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import Run
from gencomp import recipes
from tests import tiny
from tests.chaos import faults, recovery
from tests.chaos.disk import mounted
from tests.chaos.faults import Fault
from tests.chaos.recording import assert_exact
from tests.chaos.recovery import MOST_STEPS, Recovery
from tests.chaos.scene import Scene
from tests.cluster.ray_clusters import RayCluster
from tests.cluster.ray_train.test_train import straight

EVERY = 4  # steps between checkpoints
STALL_SECONDS = 20
ON_A_CLUSTER: tuple[Fault, ...] = (
    faults.kill_worker,
    faults.remove_node,
    faults.damage_checkpoint,
    faults.fill_disk,
    faults.terminate,
)
ALONE: tuple[Fault, ...] = (
    faults.kill_worker,
    faults.kill_driver,
    faults.damage_checkpoint,
    faults.kill_worker_twice,
    faults.fill_disk,
    faults.terminate,
    faults.stop_worker,
)


def recipe(photos: Path, rounds: int) -> dict[str, Any]:
    """The demo's generator, narrower; with so many steps that it outlasts the faults.

    Beside the steps that they let pass, a fault takes up to two that go on while it strikes.
    """
    raw = {
        "data.shards": str(photos),
        "data.batch_size": 12,
        "networks.width": 4,
        "networks.latent_dim": 8,
        "training.epochs": None,
        "training.steps": rounds * (MOST_STEPS + 4) + 12,
        "training.log_every": 1,
        "training.checkpoint_every": EVERY,
        "training.sample_every": 10**6,
        "evaluation.every": 25,
        "evaluation.limit": 12,
    }
    return recipes.load("dplc_wae_photos", raw).model_dump(mode="json")


@contextmanager
def scene(folder: Path, raw: dict[str, Any], worlds: Iterator[str], seed: int) -> Iterator[Scene]:
    """A run that has not begun, on a small disk."""
    options = ("--max-failures", "1000", "--stall-seconds", str(STALL_SECONDS))
    file = tiny.write(raw, folder / "chaos.yaml")
    with mounted(folder / "runs", megabytes=32) as disk:
        run = tiny.started(disk.path / "chaos", raw)
        made = Scene(folder, file, run, random.Random(seed), worlds, disk, options=options)
        try:
            yield made
        finally:
            made.close()


def disturbed(made: Scene, on_a_cluster: Sequence[Fault], alone: Sequence[Fault]) -> list[Recovery]:
    """A run from its start to its end, first on a cluster that it joins and then on its own."""
    found = []
    if on_a_cluster:
        with RayCluster() as cluster:
            made.cluster = cluster
            made.nodes = [cluster.add(1) for _ in range(3)]
            made.start()
            found += recovery.disturb(made, on_a_cluster)
            if not alone:
                assert made.driver.end() == 0, made.driver.words()
                return found
            made.driver.process.terminate()
            assert made.driver.end() == faults.STOPPED, made.driver.words()
        made.cluster = None
    made.start()
    found += recovery.disturb(made, alone)
    assert made.driver.end() == 0, made.driver.words()
    return found


def shuffled(chance: random.Random, kinds: Sequence[Fault], rounds: int) -> list[Fault]:
    """Each kind as often as the others, in any order."""
    chosen = list(islice(cycle(kinds), rounds))
    chance.shuffle(chosen)
    return chosen


def assert_like_undisturbed(run: Run, untouched: Run) -> None:
    tiny.assert_identical(tiny.state(run), tiny.state(untouched))
    assert tiny.rows(run) == tiny.rows(untouched)
    assert tiny.result(run) == tiny.result(untouched)


def assert_cheap(recoveries: Sequence[Recovery]) -> None:
    """Asked to stop, a run loses nothing; else what came after the newest checkpoint, which may
    still have been under way, and of the damaged one as many steps more."""
    for one in recoveries:
        intervals = {"terminate": 0, "damage_checkpoint": 3}.get(one.fault, 2)
        assert 0 <= one.lost <= intervals * EVERY, one


def report(recoveries: Sequence[Recovery]) -> None:
    lines = recovery.summary(recoveries)
    print(f"\n{recovery.table(lines)}")
    if path := os.environ.get("GENCOMP_CHAOS_REPORT"):
        rounds = [{**one._asdict(), "lost": one.lost} for one in recoveries]
        Path(path).write_text(
            json.dumps({"faults": lines, "rounds": rounds}, indent=1), encoding="utf-8"
        )


@pytest.mark.slow
def test_five_faults(photos: Path, tmp_path: Path) -> None:
    raw = recipe(photos, len(ON_A_CLUSTER))
    with ThreadPoolExecutor(1) as pool, scene(tmp_path, raw, repeat("2"), seed=1) as made:
        untouched = pool.submit(straight, tmp_path / "straight", raw, 2)
        order = shuffled(made.chance, ON_A_CLUSTER, len(ON_A_CLUSTER))
        recoveries = disturbed(made, order, [])
        report(recoveries)
        assert_like_undisturbed(made.run, untouched.result())
        assert_exact(made.samples, made.run)
    assert_cheap(recoveries)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_faults(photos: Path, tmp_path: Path) -> None:
    on_a_cluster, alone = 16, 16
    raw = recipe(photos, on_a_cluster + alone)
    with ThreadPoolExecutor(1) as pool, scene(tmp_path, raw, repeat("2"), seed=3) as made:
        untouched = pool.submit(straight, tmp_path / "straight", raw, 2)
        recoveries = disturbed(
            made,
            shuffled(made.chance, (*ON_A_CLUSTER, faults.kill_driver), on_a_cluster),
            shuffled(made.chance, ALONE, alone),
        )
        report(recoveries)
        assert_like_undisturbed(made.run, untouched.result())
        assert_exact(made.samples, made.run)
    assert_cheap(recoveries)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_numbers_of_workers(photos: Path, tmp_path: Path) -> None:
    """At every start, and with 1..3 also where a node is lost."""
    rounds = 15
    raw = recipe(photos, rounds)
    chance = random.Random(4)
    worlds = (chance.choice(("1", "2", "3", "1..3")) for _ in repeat(None))
    kinds = (*ON_A_CLUSTER, faults.kill_driver)
    with scene(tmp_path, raw, worlds, seed=5) as made:
        recoveries = disturbed(made, shuffled(made.chance, kinds, rounds), [])
        report(recoveries)
        assert len({one.world for one in recoveries}) == 3
        assert_exact(made.samples, made.run)
    assert_cheap(recoveries)
