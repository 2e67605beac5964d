"""The trials of a sweep in a tracker: each is a run of the sweep, and each row arrives once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.runs import Run
from sweeps import tracking
from sweeps.tracking import TrialsFollower
from sweeps.trial import Trial
from tests import tiny
from tests.cluster.tracking.in_memory import Server, log, new_run


def trial(directory: Path, id_: str, status: str, photos: Path) -> Trial:
    run = new_run(directory / "trials" / id_)
    found = Trial(id_, run.path, {}, tiny.checked(tiny.generator(photos)))
    say(found, status)
    return found


def say(trial: Trial, status: str) -> None:
    (trial.path / "trial.json").write_text(json.dumps({"status": status, "error": None}))


def test_trials_are_followed_until_they_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(
        tracking.choice, "end_group", lambda name, project, group: ended.append(group.name)
    )
    directory, server = tmp_path / "sweep", Server()
    trials = [trial(directory, "one", "pending", photos)]

    def follower() -> TrialsFollower:
        return TrialsFollower(directory, "mlflow", lambda: trials, lambda: None, server.connect)

    mine = follower()
    mine.send()
    assert server.runs == []  # nothing was logged yet
    log(Run(trials[0].path), [1, 2])
    mine.send()
    trials.append(trial(directory, "two", "pending", photos))
    log(Run(trials[1].path), [1])
    mine.send()
    say(trials[0], "finished")
    mine.end()
    assert [described.name for described in server.runs] == ["one", "two"]
    (group,) = {described.group for described in server.runs}
    assert group is not None and group.name == "sweep" and ended == ["sweep"]
    assert server.ends == ["finished", "stopped"]

    again = follower()  # the sweep goes on
    log(Run(trials[1].path), [2])
    again.send()
    say(trials[1], "failed")
    again.end()
    assert [described.name for described in server.runs] == ["one", "two", "two"]
    assert {described.group for described in server.runs} == {group}
    assert server.steps() == [(1, False), (2, False), (1, False), (2, False)]
    assert server.ends == ["finished", "stopped", "failed"]
