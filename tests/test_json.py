"""`--json`: one document on standard output and nothing else, with the keys of docs/json.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import runs
from cluster.logs import json_lines
from gencomp.cli import console, main
from tests import tiny
from tests.conftest import ROOT
from tests.sweeps.small_sweeps import planned, rates_and_weights


def documented(command: str) -> set[str]:
    """The keys that the page lists for a command, as `runs[].path`."""
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    section = text.split(f"## gencomp {command}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\S+)` \|", section, re.MULTILINE))


def keys(value: Any, listed: set[str], path: str = "") -> Iterator[str]:
    """The keys of a document; those below a key are left out where the page lists none of them."""
    if path and not any(one.startswith((f"{path}.", f"{path}[]")) for one in listed):
        yield path
    elif isinstance(value, list):
        for item in value:
            yield from keys(item, listed, f"{path}[]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from keys(inner, listed, f"{path}.{key}".removeprefix("."))
    else:
        yield path


def has_its_keys(document: Any, command: str) -> None:
    listed = documented(command)
    assert set(keys(document, listed)) == listed


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> Any:
    assert main([*map(str, words), "--json"]) == code
    out = capsys.readouterr().out
    return json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


@pytest.fixture
def sweep(tmp_path: Path, photos: Path, generator_run: Path) -> Path:
    """The file of a sweep of four trials that have ended, one of them without an evaluation."""
    base = tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")
    small = rates_and_weights(
        base, objective={"minimise": "mse", "against": ["mmd"]}, group_by=None
    )
    for number, trial in enumerate(planned(small, tmp_path / "runs" / "small")):
        row = {"step": 5, "test/mse": 0.1 * (number + 1), "test/mmd": 0.5}
        json_lines.append(runs.Run(trial.path).metrics, row if number else {"step": 5})
        trial.set_status("stopped")
    shutil.copy(tmp_path / "runs" / "small" / "sweep.yaml", tmp_path / "small.yaml")
    return tmp_path / "small.yaml"


def test_status(generator_run: Path, sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = sweep.parent / "runs"
    shutil.copytree(generator_run, found / "one")
    (found / "one" / "logs" / "driver.jsonl").write_text('{"event": "failed", "message": "no"}\n')
    for trial in (found / "small" / "trials").iterdir():
        (trial / "identity.json").write_text("{}")
    document = answer(capsys, "status", found, found / "one")
    (one,) = document["runs"]
    assert (one["state"], one["step"]) == ("finished", 12)
    assert [trial.keys() for trial in document["sweeps"][0]["trials"]] == [{*one, "point"}] * 4
    has_its_keys(document, "status")


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    has_its_keys(answer(capsys, "doctor"), "doctor")
    monkeypatch.setattr("gencomp.cli.doctor.requirements", lambda: ["nosuch>=2"])
    document = answer(capsys, "doctor", code=1)
    assert document["usable"] is False
    (missing,) = [one for one in document["findings"] if one["state"] == "missing"]
    assert missing["name"] == "nosuch"


def test_evaluate(codec_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(codec_run, tmp_path / "codec"))
    words = ["evaluate", run, "--metrics", "mse,psnr", "--images", "4"]
    document = answer(capsys, *words)
    assert document == json.loads((run / "evaluations" / "metrics" / "metrics.json").read_text())
    has_its_keys(document, "evaluate")
    assert answer(capsys, *words) == document
    assert main([*map(str, words), "--json"]) == 0
    assert "95 % interval" in capsys.readouterr().err


def test_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = answer(capsys, "sweep", sweep, "--runs", sweep.parent / "runs")
    (only,) = document["sweeps"]
    assert only["ending"] == "complete" and only["path"] == str(sweep.parent / "runs" / "small")
    assert [one["score"] for one in only["trials"]][-1] is None
    assert only["trials"][0]["point"].keys() == {"networks.code_channels", "loss.mmd_weight"}
    assert only["trials"][0]["metrics"] == {"mse": 0.2, "mmd": 0.5}
    has_its_keys(document, "sweep")


def test_slurm_status(codec_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(codec_run, tmp_path / "codec"))
    size = ["--metrics", "mse", "--images", "4", "--executor", "debug"]
    assert main(["slurm", "evaluate", str(run), *size]) == 0
    capsys.readouterr()
    document = answer(capsys, "slurm", "status", run / "evaluations" / "metrics")
    assert [one["state"] for one in document["jobs"]] == ["done"]
    assert document["state"] == "1 of 1 blocks are finished"
    has_its_keys(document, "slurm status")


@pytest.mark.parametrize("words", [["status"], ["evaluate"], ["slurm", "status"]], ids=" ".join)
def test_an_error_leaves_no_document(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, str(tmp_path / "none"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("gencomp: error: ")


def test_children_do_not_write_into_the_document() -> None:
    code = (
        "import os, subprocess, pathlib\n"
        "from gencomp.cli.console import only_json\n"
        "with only_json(True) as answer:\n"
        "    print('word'); os.system('echo child')\n"
        "    answer({'path': pathlib.Path('a'), 'nan': float('nan'), 'é': (1, 2)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"path": "a", "nan": None, "é": [1, 2]}
    assert sorted(done.stderr.split()) == ["child", "word"]


def test_without_the_option_nothing_changes(capfd: pytest.CaptureFixture[str]) -> None:
    with console.only_json(False) as answer:
        print("word")
        answer({})
    assert capfd.readouterr() == ("word\n", "")
