"""A finished tiny run and evaluations of its curve, for tests of what is computed and of jobs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.evaluations.curve.context import open_context
from cluster.evaluations.curve.pilot import open_tuner
from cluster.evaluations.curve.plan import Evaluation, make
from cluster.evaluations.curve.settings import settings
from cluster.evaluations.curve.work import open_block
from cluster.evaluations.work import Work
from cluster.runs import Run
from shards.building.build import build
from tests import tiny

SMALL: dict[str, Any] = {
    "split": "test",
    "images": 4,
    "block": 1,
    "chains": 4,
    "temperatures": 12,
    "points": 5,
    "beta_max": 0.1,
    "leapfrog": 2,
    "bdmc_images": 0,
    "seed": 7,
    "tuning_seed": 6,
    "pilot_images": 2,
    "pilot_temperatures": 20,
    "threads": 1,
    "device": "cpu",
}
Evaluate = Callable[..., Evaluation]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A generator of width 4 after three steps; no test changes it."""
    root = tmp_path_factory.mktemp("tiny")
    build("photos", root / "photos", limit=16)
    raw = tiny.generator(root / "photos", {"training.steps": 3, "evaluation.every": 3})
    run, outcome = tiny.trained(root / "runs" / "g", raw)
    assert outcome.finished
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run."""
    return Run(Path(shutil.copytree(finished.path, tmp_path / "g")))


@pytest.fixture
def evaluate(run: Run) -> Evaluate:
    """An entered evaluation of the run, with settings of its own."""

    def enter(name: str = "ais", **own: Any) -> Evaluation:
        plan = make(run, settings(**{**SMALL, **own}))
        return Evaluation.find(run, name, plan).enter()

    return enter


@pytest.fixture
def tuned(evaluate: Evaluate) -> Evaluate:
    """An entered evaluation after its pilot."""

    def enter(name: str = "ais", **own: Any) -> Evaluation:
        evaluation = evaluate(name, **own)
        finish(open_tuner(evaluation))
        return evaluation

    return enter


def finish(work: Work) -> None:
    """Go on to the end of a work, and finish it."""
    while not work.done:
        work.advance()
    work.finish()


def measure(evaluation: Evaluation, *groups: tuple[int, ...]) -> None:
    """Make the parts of some blocks that are missing, in this process."""
    for blocks in groups:
        context = open_context(evaluation)
        for block in blocks:
            if not evaluation.part(block).exists():
                finish(open_block(context, block))


def parts(evaluation: Evaluation) -> dict[str, bytes]:
    """The parts there are."""
    return {path.name: path.read_bytes() for path in sorted((evaluation.path / "parts").iterdir())}
