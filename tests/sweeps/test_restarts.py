"""Searches that are killed, asked to stop or out of budget, and what the same command then does."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.checkpoints import store
from cluster.logs import json_lines, process_log
from cluster.runs import Run
from gencomp import recipes
from gencomp.cli import main
from sweeps import proposals
from sweeps.results import read_results
from tests import tiny
from tests.processes import Driver
from tests.waiting import wait_for

STEPS = 24


@pytest.fixture
def words(photos: Path, generator_run: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command of a search for λ and channels that trade the error off against the rate."""
    overrides = {
        "training.steps": STEPS,
        "training.checkpoint_every": 3,
        "training.sample_every": 1000,
        "evaluation.every": 8,
    }
    base = tiny.write(tiny.codec(photos, generator_run, overrides), tmp_path / "codec.yaml")

    def command(parts: Mapping[str, Any]) -> list[str]:
        sweep: dict[str, Any] = {
            "base": str(base),
            "space": {
                "loss.mmd_weight": {"loguniform": [0.1, 100]},
                "networks.code_channels": {"grid": [1, 2, 4]},
            },
            "search": {"sampler": "nsga2", "population": 2},
            "budget": {"trials": 5},
            "objective": {"minimise": "mse", "against": ["nominal_bpp"]},
            "max_failures": 0,
        }
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(sweep | dict(parts)))
        return ["sweep", str(tmp_path / "search.yaml"), "--runs", str(tmp_path / "runs")]

    return command


def results(directory: Path) -> dict[str, int]:
    """Finished trials, and when they were."""
    found = directory.glob("trials/*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def starts(trial: Path) -> list[int]:
    rows = json_lines.read(process_log.of_rank(trial, 0))
    return [row["step"] for row in rows if row.get("event") == "start"]


def checkpoints_of(directory: Path) -> set[Path]:
    """All that there are and were whole."""
    return {path.parent for path in directory.glob("trials/*/checkpoints/step-*/manifest.json")}


def test_a_budget_that_is_used_up_starts_nothing(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "runs" / "search"
    directory.mkdir(parents=True)
    (directory / "sweep.yaml").touch()
    (directory / "time.json").write_text('{"seconds": 7200}')
    assert main(words({"budget": {"trials": 5, "hours": 2}})) == 0
    said = capsys.readouterr().out
    assert "the budget of 5 trials and 2 h is used up; 0 trials wait at their checkpoints" in said
    assert "5 were not begun" in said
    assert read_results(directory).rows == []
    grid = {"search": None, "space": {"loss.mmd_weight": {"grid": [0, 1, 2]}}}
    assert main(words(grid | {"budget": {"seconds": 60}})) == 0
    said = capsys.readouterr().out
    assert "the budget of 60 s is used up" in said and "3 were not begun" in said
    assert [row["status"] for row in read_results(directory).rows] == ["pending"] * 3


def test_a_stranger_s_directory_is_refused(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "runs" / "search"
    directory.mkdir(parents=True)
    (directory / "lock").touch()  # of a start that was cut short
    assert main(words({"budget": {"trials": 5, "seconds": 1e-9}})) == 0
    (directory / "sweep.yaml").rename(directory / "notes")
    assert main(words({})) == 2
    assert "exists and is not a sweep" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(
    words: Callable[..., list[str]], tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    """Each trial is proposed once, ends once, and is what it would have been alone."""
    directory, chance = tmp_path / "runs" / "search", random.Random(5)
    done: dict[str, int] = {}
    kills = 0
    while kills < 8:
        driver, seen = drive(*words({})), checkpoints_of(directory)
        wait_for(
            lambda: driver.process.poll() is not None or bool(checkpoints_of(directory) - seen),  # noqa: B023
        )
        time.sleep(chance.uniform(0, 4))
        if driver.process.poll() is not None:
            break
        driver.crash()
        kills += 1
        assert done.items() <= results(directory).items()
        done = results(directory)
    assert kills > 1
    last = drive(*words({}))
    assert last.end() == 0, last.words()
    assert done.items() <= results(directory).items() and len(results(directory)) == 5

    proposed = proposals.read(directory)
    assert len({json.dumps(one.point) for one in proposed}) == len(proposed) == 5
    listed = json.loads((directory / "trials.json").read_text())
    assert len(list((directory / "trials").iterdir())) == 5
    table = {row["trial"]: row for row in read_results(directory).rows}
    assert any(row["pareto"] for row in table.values())
    for id_, one in zip(listed, proposed, strict=True):
        run = Run(directory / "trials" / id_)
        assert starts(run.path)[0] == 0 and starts(run.path) == sorted(starts(run.path))
        assert {key: table[id_][key] for key in one.point} == one.point
        alone, _ = tiny.trained(
            tmp_path / "alone" / id_, recipes.read(run.path / "recipe.yaml"), calibration=2048
        )
        tiny.assert_identical(tiny.state(alone, STEPS), tiny.state(run, STEPS))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_gangs_stop_at_a_signal_and_at_the_end_of_their_time(
    words: Callable[..., list[str]], tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    directory = tmp_path / "runs" / "search"
    gangs = {
        "workers": 2,
        "overrides": {"training.steps": 10_000, "training.checkpoint_every": 900},
    }
    first = drive(*words(gangs))
    # A trial that has made no step has nothing to save.
    first.wait_for(lambda: any(map(json_lines.read, directory.glob("trials/*/metrics.jsonl"))))
    (trial,) = (path.parent for path in directory.glob("trials/*/metrics.jsonl"))
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 130, first.words()
    saved = store.newest(Run(trial).checkpoints)
    assert saved is not None and saved.step % 900 != 0
    assert saved.step == json_lines.read(Run(trial).metrics)[-1]["step"]

    spent = json.loads((directory / "time.json").read_text())["seconds"]
    budget = {"trials": 5, "seconds": spent + 150}
    second = drive(*words(gangs | {"budget": budget}))
    assert second.end() == 0, second.words()
    said = second.out.read_text()
    assert "1 trials wait at their checkpoints, 4 were not begun" in said, said
    assert starts(trial) == [0, saved.step]
    later = store.newest(Run(trial).checkpoints)
    assert later is not None and later.step > saved.step
    assert later.step == json_lines.read(Run(trial).metrics)[-1]["step"]
    (row,) = read_results(directory).rows
    assert row["status"] == "pending" and row["error"] is None
    assert json.loads((directory / "time.json").read_text())["seconds"] >= budget["seconds"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_population_killed_at_an_exchange_is_what_it_would_have_been(
    words: Callable[..., list[str]], tmp_path: Path, drive: Callable[..., Driver]
) -> None:
    population = {
        "space": {"loss.mmd_weight": {"loguniform": [0.1, 100]}},
        "search": None,
        "budget": {},
        "population": {"size": 3, "every": 8, "replaced": 0.34},
        "objective": {"minimise": "mse"},
    }
    once = drive(*words(population), "--name", "once")
    assert once.end() == 0, once.words()
    directory = tmp_path / "runs" / "twice"
    command = [*words(population), "--name", "twice"]
    first = drive(*command)
    # The second round has begun.
    first.wait_for(lambda: len(list(directory.glob("trials/*/trial.json"))) > 3)
    first.crash()
    second = drive(*command)
    assert second.end() == 0, second.words()

    ended = results(tmp_path / "runs" / "once").keys()
    assert len(ended) == 3 and results(directory).keys() == ended
    for id_ in ended:
        a, b = (Run(tmp_path / "runs" / name / "trials" / id_) for name in ("once", "twice"))
        tiny.assert_identical(tiny.state(a), tiny.state(b))
    statuses = [row["status"] for row in read_results(directory).rows]
    assert sorted(statuses) == ["finished"] * 3 + ["stopped"] * 6
