"""Populations that really train: whoever is killed, members start from the very same state."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from cluster.checkpoints import store
from cluster.files import locked
from cluster.logs import json_lines
from cluster.runs import Run
from gencomp import recipes
from gencomp.cli import main
from gencomp.cli.sweep import _print_failures
from gencomp.errors import InputError
from gencomp.systems.common import calibration
from sweeps import plan
from sweeps.ray_tune import QueueSearcher, TrialStatusCallback
from sweeps.results import newest_round, read_results, table
from sweeps.sweep_file import Sweep, dump
from sweeps.trial import Trial
from sweeps.trial_queue import TrialQueue
from sweeps.worker import Attempt, Task, train
from tests import tiny


@pytest.fixture(scope="module")
def raw(photos: Path, generator_run: Path) -> dict[str, Any]:
    return tiny.codec(
        photos,
        generator_run,
        {"training.steps": 10, "training.checkpoint_every": 3, "evaluation.every": 2},
    )


@pytest.fixture(scope="module")
def real(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two members, exchanges at steps 4 and 8, ten steps in all."""
    return Sweep.model_validate(
        {
            "base": str(tiny.write(raw, tmp_path_factory.mktemp("base") / "codec.yaml")),
            "space": {"loss.mmd_weight": {"loguniform": [1, 100]}},
            "population": {"size": 2, "every": 4, "replaced": 0.5},
            "objective": {"minimise": "mse"},
            "seed": 1,
        }
    )


@pytest.fixture(scope="module")
def one_round(real: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose first round has ended, that no test changes."""
    directory = tmp_path_factory.mktemp("population") / "sweep"
    for trial in list(iter(opened(real, directory).next, None)):
        work(trial)
    return directory


def opened(of: Sweep, directory: Path) -> TrialQueue:
    planned = plan.make(of, directory)
    plan.write(of, planned, directory)
    return TrialQueue(of, planned, directory)


def work(trial: Trial, stop_at: int | None = None) -> None:
    """Train a trial in this process, as a worker would; stopped: before a step, unfinished."""
    task = Task(trial.path, trial.until)
    attempt = Attempt({}, 1, False, trial.path / "never", math.inf)
    asked = iter(range(stop_at)) if stop_at is not None else None

    class Stopping(Attempt):
        def should_stop(self) -> bool:
            return asked is not None and next(asked, None) is None

    trial.count_start()
    with locked(trial.path) as lease, mock.patch.object(calibration, "CALIBRATION_SAMPLES", 64):
        train(task, 0, Stopping(*attempt), lease, lambda metrics: None)
    if trial.status() != "finished" and trial.has_reached_its_step():
        trial.set_status("stopped")


def whole(of: Sweep, directory: Path) -> TrialQueue:
    """A whole sweep; each trial is cut short once, and then all is read again."""
    one = opened(of, directory)
    while (trial := one.next()) is not None:
        work(trial, stop_at=1)
        one = opened(of, directory)
        again = one.next()
        assert again is not None and again.id == trial.id
        work(again)
    return one


def replay(schedule: list[dict[str, Any]], raw: dict[str, Any], folder: Path) -> Run:
    """Train by hand what a schedule says, each stretch from the last checkpoint before."""
    ends: list[int | None] = [one["after_step"] for one in schedule[1:]]
    found = None
    for part, end in zip(schedule, [*ends, None], strict=True):
        recipe = recipes.with_overrides(raw, part["point"])
        run = tiny.started(folder / part["trial"], recipe)
        if found is not None:
            run.checkpoints.mkdir()
            found.path.rename(run.checkpoints / found.path.name)
        stop = None if end is None else tiny.stop_after(end - part["after_step"])
        tiny.trained(run.path, recipe, stop)
        found = store.newest(run.checkpoints)
        assert found is not None
    return run


def test_exchanges_are_exact_and_survive_kills(
    real: Sweep, raw: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three members is replaced at each exchange; which one hangs on the last bits of their
    scores, and so on the processor. Whoever it is, in the end one has never been replaced."""
    population = {"size": 3, "every": 4, "replaced": 0.34}
    of = Sweep.model_validate(real.model_dump() | {"population": population, "seed": 2})
    one = whole(of, tmp_path / "sweep")
    assert one.is_complete() and not one.has_next() and not one.waits()
    assert [trial.status() for trial in one.trials] == ["stopped"] * 6 + ["finished"] * 3

    # A member is what its schedule says, step by step.
    changed = set()
    for member in one.trials[6:]:
        schedule = Run(member.path).identity()["schedule"]
        changed.add(is_changed := any(part["point"] != member.point for part in schedule))
        if is_changed:
            by_hand = replay(schedule, raw, tmp_path / f"replayed-{member.id}")
        else:  # a run like any other
            values = recipes.with_overrides(raw, member.point)
            by_hand, _ = tiny.trained(tmp_path / f"straight-{member.id}", values)
            assert tiny.rows(by_hand) == tiny.rows(Run(member.path))
        tiny.assert_identical(tiny.state(by_hand), tiny.state(Run(member.path)))
        # The rows of those before it are in its log.
        logged = {row["step"] for row in json_lines.read(Run(member.path).metrics)}
        assert logged == set(range(1, 11))
    assert changed == {False, True}

    # Of trials that handed on, the state from which others went on is kept, and no other.
    for trial in one.trials[:6]:
        kept = store.directories(Run(trial.path).checkpoints)
        assert [store.step_of(path) for path in kept] == [trial.until]
    shows_a_complete_one(of, one, tmp_path, capsys)


def shows_a_complete_one(
    of: Sweep, one: TrialQueue, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line: nothing to do, so no cluster is started."""
    (folder / "population.yaml").write_text(dump(of))
    assert main(["sweep", str(folder / "population.yaml"), *_named(folder, "sweep")]) == 0
    said = capsys.readouterr().out
    results = read_results(folder / "sweep")
    (best,) = results.best()
    assert best["status"] == "finished" and results.run(best).system().codec() is not None
    assert best["from"] in {trial.id for trial in one.trials[3:6]} and best["until"] == 12
    assert "9 trials, 9 done" in said
    members = said[said.index("members, best") : said.index("best trial")]
    assert all((trial.id in members) == (trial in one.trials[6:]) for trial in one.trials)
    values = said[said.index(f"values of {best['trial']}") :].splitlines()[2:]
    assert [line.split()[0] for line in values] == ["0", "4", "8"]
    assert values[-1].split()[-1] == best["trial"]
    assert main(["status", str(folder / "sweep")]) == 0
    assert "9 trials: 6 stopped, 3 finished" in capsys.readouterr().out


def _named(folder: Path, name: str) -> list[str]:
    return ["--runs", str(folder), "--name", name]


def killed_before(act: Callable[[], object], number: int) -> bool:
    """Whether a process that acts was killed before so many of its changes on disk."""
    child = os.fork()
    if child == 0:
        left = iter(range(number))

        def dying(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any, **options: Any) -> Any:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*arguments, **options)

            return changed

        changes: list[tuple[Any, str]] = [(os, "replace"), (os, "rename"), (shutil, "copyfile")]
        for owner, name in [*changes, (store.HashedFile, "write")]:
            setattr(owner, name, dying(getattr(owner, name)))
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_within_an_exchange(real: Sweep, one_round: Path, tmp_path: Path) -> None:
    """Whichever change on disk was the last one, the members start from the very same bytes."""
    before = {path.name for path in (one_round / "trials").iterdir()}

    def exchanged(directory: Path) -> dict[str, bytes]:
        assert opened(real, directory).next() is not None
        return {
            name: content
            for name, content in tiny.tree(directory).items()
            if not any(part.startswith(".") or part in before for part in Path(name).parts)
        }

    expected = exchanged(shutil.copytree(one_round, tmp_path / "whole"))
    assert sum(name.endswith("networks.safetensors") for name in expected) == 2
    for number in itertools.count(3, 7):
        directory = shutil.copytree(one_round, tmp_path / str(number))
        if not killed_before(lambda: exchanged(directory), number):  # noqa: B023
            break
        assert exchanged(directory) == expected, number
    assert number > 25


def test_a_state_that_is_lost_is_trained_again(
    real: Sweep, one_round: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(one_round, tmp_path / "sweep")
    one = opened(real, directory)
    first = one.trials[0]
    # Copied: the file stands behind them.
    before = {name: value.clone() for name, value in tiny.state(Run(first.path), 4).items()}
    tiny.flip(Run(first.path).checkpoints / "step-000000004" / store.NETWORKS)
    again = one.next()
    assert again is not None and again.id == first.id
    assert one.waits() and one.next() is None
    work(again)
    tiny.assert_identical(tiny.state(Run(first.path), 4), before)
    child = one.next()
    assert child is not None and child.until == 8 and child.parent is not None
    # A member never starts from nothing.
    shutil.rmtree(Run(child.path).checkpoints)
    opened(real, directory)
    parent = tiny.state(Run(child.parent.path), 4)
    tiny.assert_identical(tiny.state(Run(child.path)), parent)


def test_what_cannot_be_compared_or_is_another_population(
    real: Sweep, raw: dict[str, Any], tmp_path: Path
) -> None:
    def changed(**values: Any) -> Sweep:
        return Sweep.model_validate(real.model_dump() | values)

    def with_population(**values: Any) -> Sweep:
        return changed(population={"size": 2, "every": 4, "replaced": 0.5} | values)

    with pytest.raises(InputError, match="every is 3, but it must be a multiple of evaluation"):
        plan.make(with_population(every=3), tmp_path / "sweep")
    opened(real, tmp_path / "sweep")
    plan.make(changed(concurrent=3, max_failures=0), tmp_path / "sweep")
    other = tiny.write(raw | {"training": raw["training"] | {"seed": 7}}, tmp_path / "other.yaml")
    for another, what in (
        (with_population(size=5), "population"),
        (changed(seed=2, objective={"minimise": "mmd"}), "seed, objective"),
        (changed(base=str(other)), "recipe or other data"),
    ):
        with pytest.raises(InputError, match=f"holds a population with another {what}; choose"):
            plan.make(another, tmp_path / "sweep")


def test_failed_members_are_replaced_and_not_tried_again(
    real: Sweep, one_round: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(one_round, tmp_path / "sweep")
    one = opened(real, directory)
    good, bad = one.trials
    good.set_status("pending")
    bad.set_status("failed", "the disk was full")
    assert one.next() is None and one.waits() and not one.has_next()
    good.set_status("stopped")
    assert not one.waits() and one.has_next()
    assert one.next() is not None and len(one.trials) == 4
    again = opened(real, directory)
    found = list(iter(again.next, None))
    assert len(found) == 2 and bad.id not in {trial.id for trial in found}
    assert {trial.parent.id for trial in found if trial.parent} == {good.id}


@pytest.mark.parametrize("newest", [False, True])
def test_only_failures_of_the_newest_round_fail_a_sweep(
    newest: bool,
    real: Sweep,
    one_round: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = shutil.copytree(one_round, tmp_path / "sweep")
    one = opened(real, directory)
    bad = one.trials[1]
    bad.set_status("failed", "the disk was full")
    while (trial := one.next()) is not None:
        work(trial)
    if newest:
        one.trials[-1].set_status("failed", "a node died")
        (one.trials[-1].path / "result.json").unlink()
    on_disk = table(one.trials, real.objective)
    current = newest_round(on_disk)
    assert _print_failures(on_disk, current) == int(newest)
    said = capsys.readouterr().out
    assert f"trial {bad.id} failed and was replaced: the disk was full\n" in said
    assert (f"trial {one.trials[-1].id} failed: a node died\n" in said) == newest


def test_tune_waits_for_an_exchange(real: Sweep, one_round: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(one_round, tmp_path / "sweep")
    one = opened(real, directory)
    trial = one.trials[1]
    trial.set_status("pending")  # a killed driver could not note its end
    searcher = QueueSearcher(one, lambda: False, lambda trial: None)
    events: list[str] = []
    callback = TrialStatusCallback(one, lambda trial, event, values: events.append(event))
    assert searcher.suggest("") is None
    tunes = SimpleNamespace(config={"trial": {"id": trial.id}})
    callback.on_trial_complete(1, [], tunes)
    assert trial.status() == "stopped" and events == ["stopped"]
    assert [searcher.suggest("")["trial"]["until"] for _ in range(2)] == [8, 8]
    assert searcher.suggest("") is None
    assert QueueSearcher(one, lambda: True, lambda trial: None).suggest("") == "FINISHED"
