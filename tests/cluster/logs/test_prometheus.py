"""A run in the text format of Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cluster import beside
from cluster.logs import json_lines, process_log, prometheus
from gencomp.errors import InputError
from tests.cluster.tracking.in_memory import log, new_run

LINE = re.compile(r'([a-z_]+)\{(run="(?:[^"\\]|\\.)*"(?:,(?:name|state)="[^"]*")?)\} (\S+)')


def parsed(text: str) -> dict[str, float]:
    """The values by name and labels; every line must be one of the format."""
    found, announced = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            announced.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match is not None and match[1] in announced, line
            found[f"{match[1]}{{{match[2]}}}"] = float(match[3])
    assert text.endswith("\n")
    return found


def test_what_a_run_says(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    log(run, range(1, 7))
    journal = process_log.Journal(run.path, None)
    journal.write("WARNING", "rank 0 died", event="workers_failed", ranks=[0])
    journal.close()
    assert parsed(prometheus.text(run.path)) == {
        'gencomp_step{run="run"}': 6,
        'gencomp_steps{run="run"}': 9,
        'gencomp_samples_per_second{run="run"}': pytest.approx(101),
        'gencomp_attempts_total{run="run"}': 0,
        'gencomp_failures_total{run="run"}': 1,
        'gencomp_logged_seconds{run="run"}': 1e6 + 6,
        'gencomp_training{run="run",name="generator/loss"}': 1 / 6,
        'gencomp_evaluation{run="run",name="mse"}': 1 / 4,
        'gencomp_state{run="run",state="new"}': 1,
    }


def test_a_run_that_has_said_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path / 'an "odd" \\ name')
    found = parsed(prometheus.text(run.path))
    assert found['gencomp_step{run="an \\"odd\\" \\\\ name"}'] == 0


def test_the_file_is_written_at_the_end_at_the_latest(tmp_path: Path) -> None:
    run, file = new_run(tmp_path / "run"), tmp_path / "run.prom"
    with prometheus.written(run.path, file):
        log(run, [1, 2])
        (run.path / "result.json").write_text(json.dumps({"step": 2}))
    found = parsed(file.read_text())
    assert found['gencomp_step{run="run"}'] == 2
    assert found['gencomp_state{run="run",state="finished"}'] == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".prom"] == ["run.prom"]


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "_PERIOD", 0.01)
    run, file = new_run(tmp_path / "run"), tmp_path / "run.prom"
    file.mkdir()
    with prometheus.written(run.path, file):
        json_lines.append(run.metrics, {"step": 1})
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert caplog.records[0].name == beside.__name__


@pytest.mark.parametrize("name", ["run.txt", "none/run.prom", "folder.prom"])
def test_a_file_that_is_not_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(InputError, match=r"must be a file \*\.prom in a folder that exists"):
        prometheus.require(tmp_path / name)
