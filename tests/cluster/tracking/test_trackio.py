"""Runs in Trackio's directory; skipped where Trackio is not installed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cluster.logs import metrics_log
from cluster.logs.metrics_log import place
from cluster.tracking import choice
from cluster.tracking.follower import Follower
from cluster.tracking.tracker import metrics_of
from gencomp.cli import main
from gencomp.errors import InputError
from sweeps.tracking import TrialsFollower
from sweeps.trial import Trial
from tests import tiny
from tests.cluster.tracking.attempts import stopped_killed_and_finished
from tests.cluster.tracking.in_memory import grid, log, new_run
from tests.processes import ENVIRONMENT, Driver

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("trackio") is None, reason="needs Trackio: pip install trackio"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trackio's directory, which a process reads from its environment once."""
    found = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(found))
        from trackio import utils
    assert found == utils.TRACKIO_DIR
    return found


@pytest.fixture(autouse=True)
def _place(folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    values = {"TRACKIO_DIR": str(folder), "TRACKIO_PROJECT": request.node.name}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)


def table(folder: Path, project: str, words: str) -> list[tuple[Any, ...]]:
    """What Trackio's database answers, read without Trackio."""
    with sqlite3.connect(folder / f"{project}.db") as database:
        return database.execute(words).fetchall()


def rows(folder: Path, project: str, run: str) -> list[tuple[int, dict[str, Any]]]:
    """The step and the metrics of each row of a run, without the row that carries its values."""
    words = f"SELECT step, metrics FROM metrics WHERE run_name = '{run}' ORDER BY id"
    found = [(step, json.loads(text)) for step, text in table(folder, project, words)]
    return [(step, metrics) for step, metrics in found if metrics]


def config(folder: Path, project: str, run: str) -> dict[str, Any]:
    words = f"SELECT config FROM configs WHERE run_name = '{run}'"
    ((text,),) = table(folder, project, words)
    return dict(json.loads(text))


def test_a_stop_a_kill_and_an_evaluation(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    """One id over three attempts, every row and grid once, then an evaluation of it."""
    run = stopped_killed_and_finished(photos, tmp_path, drive, "trackio")
    project = request.node.name
    known = json.loads((run.path / "tracking.json").read_text())["trackio"]
    assert table(folder, project, "SELECT DISTINCT run_id FROM metrics") == [(known["id"],)]

    logged = rows(folder, project, "tiny")
    numbers = [(step, found) for step, found in logged if "samples" not in found]
    by_place = {(step, int("samples_per_second" not in found)): found for step, found in numbers}
    assert len(by_place) == len(numbers)
    expected = {place(row): row for row in metrics_log.read(run.metrics)}
    assert by_place.keys() == expected.keys()
    for where, row in expected.items():
        values = {k: v for k, v in metrics_of(row).items() if k != "samples_per_second"}
        found = {name: float(by_place[where][name]) for name in values}
        assert found == pytest.approx(values, nan_ok=True)

    grids = sorted((run.path / "samples").iterdir())
    shown = [found["samples"] for _, found in logged if "samples" in found]
    assert len(grids) >= 6 and [one["caption"] for one in shown] == [one.name for one in grids]
    # The last grid is drawn again when training has ended; the one that was there first is sent.
    for one, path in zip(shown[:-1], grids[:-1], strict=True):
        assert (folder / "media" / one["file_path"]).read_bytes() == path.read_bytes()
    values = config(folder, project, "tiny")
    assert values["training.steps"] == 300 and values["state"] == "finished"

    for _ in range(2):
        assert main(["evaluate", str(run.path), "--metrics", "mse", "--track", "trackio"]) == 0
    result = run.path / "evaluations" / "metrics" / "metrics.json"
    value = json.loads(result.read_text())["metrics"]["mse"]["value"]
    name = "evaluations/metrics/mse"
    assert [(s, m[name]) for s, m in rows(folder, project, "tiny") if name in m] == [(300, value)]
    ((manifest,),) = table(folder, project, "SELECT manifest FROM artifact_versions")
    (file_kept,) = json.loads(manifest)
    assert file_kept["path"] == "metrics.json" and file_kept["size"] == result.stat().st_size
    assert config(folder, project, "tiny")["state"] == "finished"


@pytest.mark.parametrize("mode", ["sqlite", "jsonl"])
def test_what_is_sent_again_is_left_out(
    mode: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver died after Trackio had taken rows and before that was noted."""
    from trackio import fragments

    project = f"again-{mode}"
    monkeypatch.setenv("TRACKIO_PROJECT", project)
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", mode)
    run = new_run(tmp_path / "run")
    log(run, [1, 2, 3, 4])
    grid(run, 4)
    Follower(run, "trackio", lambda: None).send()
    note = run.path / "tracking.json"
    content = json.loads(note.read_text())
    content["trackio"] |= {"sent": [1, 0], "grid": ""}
    note.write_text(json.dumps(content))
    metrics_log.begin(run.metrics, step=1, starts=2)
    log(run, [2, 3, 4, 5], attempt=2)
    Follower(run, "trackio", lambda: None).end("stopped")
    # Where Trackio writes files, its dashboard brings them to the database.
    assert (folder / f"{project}.db").exists() == (mode == "sqlite")
    assert (fragments.import_inbox_dir() > 0) == (mode == "jsonl")
    logged = rows(folder, project, "run")
    assert sorted(step for step, _ in logged) == [1, 2, 3, 4, 4, 4, 5]
    assert [metrics["test/psnr"] for _, metrics in logged if "test/psnr" in metrics] == ["NaN"]
    if mode == "sqlite":  # files are read in no certain order
        speeds = [one["samples_per_second"] for _, one in logged if "samples_per_second" in one]
        assert speeds == [101.0] * 4 + [102.0]  # what was sent first stays
        assert config(folder, project, "run")["state"] == "stopped"


def test_trials_stand_in_the_group_of_their_sweep(
    photos: Path, tmp_path: Path, folder: Path, request: pytest.FixtureRequest
) -> None:
    """Trials of one name in two sweeps stay two runs."""
    for sweep in ("one", "two"):
        run = new_run(tmp_path / sweep / "trials" / "same")
        (run.path / "trial.json").write_text(json.dumps({"status": "finished", "error": None}))
        log(run, [1, 2, 3])
        grid(run, 2)
        trials = [Trial("same", run.path, {}, tiny.checked(tiny.generator(photos)))]
        for _ in range(2):  # the sweep is started again
            mine = TrialsFollower(
                tmp_path / sweep, "trackio", lambda trials=trials: trials, lambda: None
            )
            mine.send()
            mine.end()
    found = table(folder, request.node.name, "SELECT config FROM configs")
    groups = [json.loads(text)["_Group"] for (text,) in found]
    assert [group.partition("-")[0] for group in groups] == ["one", "two"]
    assert len(rows(folder, request.node.name, "same")) == 2 * (3 + 1)
    assert len(list((folder / "media" / request.node.name).rglob("*.png"))) == 2


def test_a_server_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:7860")
    with pytest.raises(InputError, match="TRACKIO_SERVER_URL"):
        choice.require("trackio")


def test_what_cannot_be_written_is_sent_later(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Trackio's own `log` would drop it with a warning."""
    run = new_run(tmp_path / "run")
    log(run, [1, 2])
    mine = Follower(run, "trackio", lambda: None)
    mine.send()
    with sqlite3.connect(folder / f"{request.node.name}.db") as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    log(run, [3])
    with pytest.raises(sqlite3.Error, match="full"):
        mine.send()
    table(folder, request.node.name, "DROP TRIGGER full")
    mine.end("finished")
    assert [step for step, _ in rows(folder, request.node.name, "run")] == [1, 2, 3]
