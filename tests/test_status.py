"""`gencomp status`: runs, sweeps and directories of them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from cluster.files import locked
from cluster.logs import process_log
from gencomp.cli import main


@pytest.fixture
def runs(generator_run: Path, tmp_path: Path) -> Path:
    """A finished run and a sweep: one trial finished, one failed, one runs, one waits."""
    shutil.copytree(generator_run, tmp_path / "runs" / "one")
    sweep = tmp_path / "runs" / "sweep"
    for number, status in enumerate(("finished", "failed", "pending", "pending")):
        trial = Path(shutil.copytree(generator_run, sweep / "trials" / f"trial{number}"))
        state = {"status": status, "point": {"loss.mmd_weight": 10 * number}, "error": None}
        if number:
            (trial / "result.json").unlink()
        if status == "failed":
            state["error"] = "ValueError: too large"
        (trial / "trial.json").write_text(json.dumps(state))
    with process_log.journal(sweep / "trials" / "trial2", rank=0) as journal:
        journal.write("INFO", "starts", event="start")
    (sweep / "sweep.yaml").write_text("base: one\n")
    (sweep / "trials.json").write_text("[]")
    (tmp_path / "runs" / "something else").mkdir()
    return tmp_path / "runs"


def test_a_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with process_log.driving(runs / "one", None, lambda row: None):
        process_log.note(runs / "one", "WARNING", "rank 1 died", event="workers_failed")
    assert main(["status", str(runs / "one")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{runs / 'one'} (dplc/wae): finished"
    assert lines[1].startswith("  step 12 of 12 (100%), ") and lines[1].endswith(" samples/s")
    assert lines[2].startswith("  evaluation of step 12, ") and " ago: mse 0." in lines[2]
    assert lines[3].startswith("  checkpoint of step 12, ")
    assert lines[4] == "  1 attempt, 1 failed:"
    assert lines[5].startswith(f"    {time.strftime('%Y')}") and lines[5].endswith("rank 1 died")


def test_a_sweep(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(runs / "sweep"):
        assert main(["status", str(runs / "sweep")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{runs / 'sweep'}: running, process ")
    for words in ("4 trials", "1 finished", "1 failed", "1 running", "1 pending"):
        assert words in lines[0]
    assert lines[2].startswith("  mse: pixels on [-1, 1]. MMD: ") and "negative" in lines[2]
    header, *rows = lines[3:7]
    assert header.split()[:4] == ["trial", "mmd_weight", "state", "progress"]
    assert [row.split()[:3] for row in rows[:3]] == [
        ["trial0", "0", "finished"],
        ["trial1", "10", "failed"],
        ["trial2", "20", "running"],
    ]
    assert lines[-1] == "  trial1 failed: ValueError: too large"
    assert main(["status", str(runs / "sweep")]) == 0
    out = capsys.readouterr().out
    assert f"{runs / 'sweep'}: not running" in out and "trial2 interrupted" in out


def test_a_directory(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(runs)]) == 0
    title, header, *rows = capsys.readouterr().out.splitlines()
    assert title == f"{runs}:" and header.split()[:3] == ["run", "kind", "state"]
    assert rows[0].split()[:7] == ["one", "dplc/wae", "finished", "step", "12", "of", "12"]
    assert rows[1].split() == ["sweep", "sweep", "not", "running", "1", "of", "4", "trials"]


def test_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(runs), str(runs / "one"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (one,), (sweep,) = found["runs"], found["sweeps"]
    assert (one["state"], one["step"], one["checkpoint"]["step"]) == ("finished", 12, 12)
    assert [trial["point"]["loss.mmd_weight"] for trial in sweep["trials"]] == [0, 10, 20, 30]


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "is no run and no sweep, and there are none in it" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
