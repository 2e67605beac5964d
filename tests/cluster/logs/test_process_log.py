"""Structured logs: what is in them, and that they survive crashes."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.logs import json_lines, process_log
from tests import tiny
from tests.processes import ENVIRONMENT, ROOT

FIELDS = ["time", "level", "run", "trial", "rank", "step", "host", "pid", "message"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_fields(tmp_path: Path) -> None:
    """Ours from INFO on, warnings of libraries, and Python's warnings."""
    with process_log.journal(tmp_path / "run", rank=3) as journal:
        logging.getLogger("cluster.x").info("without %s", "step")
        journal.step = 7
        logging.getLogger("shards").warning("two\nlines")
        logging.getLogger("library").setLevel(logging.INFO)
        logging.getLogger("library").info("never seen")
        logging.getLogger("library").warning("of a library", extra=process_log.details(event="odd"))
        warnings.warn("of Python", UserWarning, stacklevel=1)
    found = rows(tmp_path / "run" / "logs" / "rank-00003.jsonl")
    assert [row["message"] for row in found[:3]] == ["without step", "two\nlines", "of a library"]
    assert "UserWarning: of Python" in found[3]["message"]
    assert [row["step"] for row in found] == [None, 7, 7, 7]
    assert [row["level"] for row in found] == ["INFO", "WARNING", "WARNING", "WARNING"]
    assert [row.get("logger") for row in found] == [None, None, "library", "py.warnings"]
    assert found[2]["event"] == "odd"
    for row in found:
        assert list(row)[: len(FIELDS)] == FIELDS
        assert (row["run"], row["trial"], row["rank"]) == ("run", None, 3)
        assert (row["host"], row["pid"]) == (platform.node(), os.getpid())
        age = datetime.now(UTC) - datetime.fromisoformat(row["time"])
        assert 0 <= age.total_seconds() < 60


def test_logging_is_put_back(tmp_path: Path) -> None:
    root, ours = logging.getLogger(), logging.getLogger("cluster")
    before = (list(root.handlers), ours.level, warnings.showwarning)
    with process_log.journal(tmp_path, rank=0, console=True):
        assert ours.level == logging.INFO
    assert (list(root.handlers), ours.level, warnings.showwarning) == before


def test_an_error_is_logged_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), process_log.journal(tmp_path, rank=0):
        raise ValueError("wrong\n here")
    (row,) = rows(process_log.of_rank(tmp_path, 0))
    assert (row["level"], row["event"]) == ("ERROR", "failed")
    assert row["message"] == "ValueError: wrong here"
    assert Path(__file__).name in row["traceback"]


def test_who_leaves_in_good_order_has_not_failed(tmp_path: Path) -> None:
    for code, events in ((0, []), (None, []), (3, ["failed"])):
        with pytest.raises(SystemExit), process_log.journal(tmp_path / str(code), rank=0):
            sys.exit(code)
        found = rows(process_log.of_rank(tmp_path / str(code), 0))
        assert [row["event"] for row in found] == events


def test_of_a_trial(tmp_path: Path) -> None:
    trial = tmp_path / "sweep" / "trials" / "0123abcd"
    with process_log.journal(trial, rank=0) as journal:
        journal.write("INFO", "one")
    (row,) = rows(process_log.of_rank(trial, 0))
    assert (row["run"], row["trial"]) == ("sweep", "0123abcd")


def test_a_line_that_a_crash_cut_does_not_hurt_the_next(tmp_path: Path) -> None:
    path = process_log.of_rank(tmp_path, 0)
    path.parent.mkdir()
    path.write_text('{"message": "whole"}\n{"mess')
    with process_log.journal(tmp_path, rank=0) as journal:
        journal.write("INFO", "next")
    assert [row["message"] for row in json_lines.read(path)] == ["whole", "next"]
    assert [row["message"] for row in json_lines.newest_first(path)] == ["next", "whole"]


def test_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with process_log.journal(tmp_path, rank=0) as journal:
        real = journal._file
        journal._file = os.open("/dev/full", os.O_WRONLY)
        logging.getLogger("cluster").warning("lost")
        os.close(journal._file)
        journal._file = real
        logging.getLogger("cluster").warning("kept")
    assert [row["message"] for row in rows(process_log.of_rank(tmp_path, 0))] == ["kept"]


def test_attempts_of_the_loop(photos: Path, tmp_path: Path) -> None:
    """Stopped, crashed and finished: each attempt says where it starts and how it ends."""
    raw = tiny.generator(photos)
    run, _ = tiny.trained(tmp_path / "run", raw, tiny.stop_after(5))
    with pytest.raises(tiny.Crash):
        tiny.trained(run.path, raw, tiny.crash_after(4))
    tiny.trained(run.path, raw)
    found = rows(process_log.of_rank(run.path, 0))
    events = [(row["event"], row["step"]) for row in found if "event" in row]
    assert events == [
        ("start", 0),
        ("end", 5),
        ("start", 5),
        ("failed", 9),
        ("start", 8),
        ("end", 12),
    ]
    assert [row["outcome"] for row in found if row.get("event") == "end"] == ["stopped", "finished"]
    start = found[0]
    assert (start["world"], start["device"]) == (1, "cpu")
    assert {"gencomp", "python", "torch"} <= start["versions"].keys()
    size = process_log.of_rank(run.path, 0).stat().st_size
    assert size < 8000, "a line is as large as the module says"


def test_the_console_shows_rank_0(tmp_path: Path) -> None:
    code = """
import logging, sys
from pathlib import Path
from cluster.logs import process_log
with process_log.journal(Path(sys.argv[1]), rank=0, console=True):
    logging.getLogger("cluster").info("hello")
    logging.getLogger("other").warning("careful")
    logging.getLogger("other").info("not this")
"""
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    ).stderr.splitlines()
    assert [line.partition(" ")[2] for line in shown] == [
        "rank 0: hello",
        "rank 0: WARNING: careful",
    ]


def test_relay(tmp_path: Path) -> None:
    """The driver's lines and rank 0's, from now on; failures once, in the driver's words."""
    process_log.note(tmp_path, "INFO", "before")
    shown: list[str] = []
    relay = process_log.Relay(
        tmp_path, lambda row: shown.append(process_log.readable(row).partition(" ")[2])
    )
    process_log.note(tmp_path, "WARNING", "workers failed", event="workers_failed")
    for rank in (0, 1):
        with process_log.journal(tmp_path, rank=rank) as journal:
            journal.write("INFO", "starts", event="start")
            journal.write("CRITICAL", "hangs", event="stalled")
    relay()
    relay()
    assert shown == ["driver: WARNING: workers failed", "rank 0: starts"]


class TestNewestFirst:
    def test_is_the_log_backwards(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        for number in range(100):
            json_lines.append(path, {"step": number, "text": "x" * (number % 13)})
        forwards = json_lines.read(path)
        for block in (1, 7, 64, 1000, 1 << 16):
            assert list(json_lines.newest_first(path, block)) == forwards[::-1]

    def test_of_nothing(self, tmp_path: Path) -> None:
        assert list(json_lines.newest_first(tmp_path / "none")) == []
        (tmp_path / "empty").touch()
        assert list(json_lines.newest_first(tmp_path / "empty")) == []
