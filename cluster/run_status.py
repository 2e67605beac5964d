"""The status of a run, read from its files alone: on any host, while it trains, without torch."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from cluster import locks, processes
from cluster.logs import evaluation_rows, json_lines, metrics_log, process_log

# The numbers of newest rows from which the sample rate and the pace are computed.
_RATE_ROWS, _PACE_ROWS = 10, 200
# A process on another host that holds no lock and has written nothing for this time has ended.
_QUIET_SECONDS = 600.0
# The number of runs that are looked at at once.
_AT_ONCE = 32

Row = Mapping[str, Any]
Looked = TypeVar("Looked")


@dataclass(frozen=True)
class Standing:
    """The status of one run.

    Attributes:
        kind: the system and the stage.
        state: new, running, finished, stopped (on request), failed, or interrupted, if the process
            died without a word.
        detail: the process that runs it, or the reason why it failed.
        step, total: the number of steps done, and of all steps; None if that is not known.
        samples_per_second: the rate over the last rows of the log.
        seconds_left: the seconds that training will still take, if the run is running.
        evaluation: the metrics of the newest evaluation, with its `step` and `time`.
        checkpoint: the `step` and `time` of the newest checkpoint whose files have their sizes.
        attempts: the number of times that the run or its workers were started.
        failures: the `time` and `message` of each failure, oldest first.
    """

    path: Path
    kind: str
    state: str
    detail: str
    step: int
    total: int | None
    samples_per_second: float | None
    seconds_left: float | None
    evaluation: dict[str, float] | None
    checkpoint: dict[str, float] | None
    attempts: int
    failures: list[dict[str, Any]]

    @property
    def fraction(self) -> float | None:
        return None if not self.total else self.step / self.total


def is_run(path: Path) -> bool:
    """Whether a directory holds a run."""
    return (path / "identity.json").is_file()


def read(path: Path, held: bool | None = None) -> Standing:
    """The present status of a run.

    Args:
        path: the run's directory.
        held: whether the sweep to which the run belongs is running; None for a run of its own.
    """
    identity = _read_json(path / "identity.json") or {}
    split = str(identity.get("evaluation.split", "test"))
    result = _read_json(path / "result.json")
    driver = json_lines.read(process_log.of_driver(path))
    events = [row for row in json_lines.read(process_log.of_rank(path, 0)) if "event" in row]
    starts = [row for row in events if row["event"] == "start"]
    state, detail = _state(path, result, driver, events, held)
    since = seconds(starts[-1]) if starts else 0.0
    rows, evaluation = _newest_rows(path / "metrics.jsonl", split, since)
    newest = rows[0] if rows else None
    step = int((result or newest or evaluation or {}).get("step", 0))
    total = _total(identity, newest or evaluation)
    pace = _pace(rows)
    running = state == "running"
    return Standing(
        path=path,
        kind=f"{identity.get('system', '?')}/{identity.get('stage', '?')}",
        state=state,
        detail=detail,
        step=step,
        total=step if result else total,
        samples_per_second=_rate(rows),
        seconds_left=pace * max(total - step, 0) if running and pace and total else None,
        evaluation=evaluation,
        checkpoint=_checkpoint(path / "checkpoints"),
        attempts=len(starts),
        failures=_failures(driver, events),
    )


def holder(directory: Path) -> str | None:
    """The living process that holds a directory, with the time of its last sign if it is remote."""
    found = locks.living(directory)
    if found is None:
        return None
    who, age = found
    return str(who) if who.is_here else f"{who}, seen {age:.0f} s ago"


def look_at_all(look: Callable[[Path], Looked], paths: Iterable[Path]) -> list[Looked]:
    """What a function says of each path, all at once, since some holders may have to be watched."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, paths))


def seconds(row: Row) -> float:
    """The time at which a line was logged, in seconds since 1970."""
    try:
        return datetime.fromisoformat(row["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _state(
    path: Path,
    result: Row | None,
    driver: list[dict[str, Any]],
    events: list[dict[str, Any]],
    held: bool | None,
) -> tuple[str, str]:
    if result is not None:
        return "finished", ""
    who = holder(path)
    if who is not None:
        return "running", ", ".join(filter(None, (who, _waits_for(driver, events))))
    said = [row for row in driver if row.get("event") in ("start", "failed", "end")]
    if not said and not events:
        return "new", ""
    last = (said or events)[-1]
    if last["event"] == "end":
        return "stopped", ""
    if last["event"] in ("failed", "stalled"):
        return "failed", str(last.get("message", ""))
    if not said and (_lives(path, last) if held is None else held):
        return "running", f"process {last.get('pid')} on {last.get('host')}"
    return "interrupted", f"process {last.get('pid')} on {last.get('host')} died without a word"


def _waits_for(driver: list[dict[str, Any]], events: list[dict[str, Any]]) -> str:
    """What the driver says it waits for, unless the workers have begun since."""
    said: Row = next((row for row in reversed(driver) if "event" in row), {})
    begun = max((seconds(row) for row in events if row["event"] == "start"), default=0.0)
    waits = said.get("event") == "waiting" and seconds(said) > begun
    return str(said["message"]) if waits else ""


def _lives(path: Path, start: Row) -> bool:
    """Whether the process of a training loop that holds no lock still works."""
    if start.get("host") == platform.node():
        return processes.born(int(start.get("pid", 0))) is not None
    files = [p for p in (path / "metrics.jsonl", process_log.of_rank(path, 0)) if p.exists()]
    return time.time() - max(p.stat().st_mtime for p in files) < _QUIET_SECONDS


def _newest_rows(
    path: Path, split: str, since: float
) -> tuple[list[dict[str, Any]], dict[str, float] | None]:
    """The newest rows of training since a time, from the newest back, and the newest evaluation."""
    rows: list[dict[str, Any]] = []
    evaluation = None
    for row in metrics_log.newest_first(path):
        metrics = evaluation_rows.from_row(row, split)
        if metrics and evaluation is None:
            evaluation = {"step": row.get("step", 0), "time": row.get("time", 0.0), **metrics}
        old = row.get("time", 0.0) < since or len(rows) == _PACE_ROWS
        if "samples_per_second" in row and not old:
            rows.append(row)
        if old and evaluation is not None:
            break
    return rows, evaluation


def _total(identity: Row, row: Row | None) -> int | None:
    """The number of all steps; if the recipe counts epochs, it follows from the steps so far."""
    steps, epochs = (identity.get(f"training.{name}") for name in ("steps", "epochs"))
    if isinstance(steps, int):
        return steps
    if row is None or not isinstance(epochs, int | float) or not row.get("epoch"):
        return None
    return round(row["step"] * epochs / row["epoch"])


def _rate(rows: list[dict[str, Any]]) -> float | None:
    """The rate of samples: a harmonic mean, as the rows stand for equal numbers of samples."""
    rates = [row["samples_per_second"] for row in islice(rows, _RATE_ROWS)]
    rates = [rate for rate in rates if rate]
    return len(rates) / sum(1 / rate for rate in rates) if rates else None


def _pace(rows: list[dict[str, Any]]) -> float | None:
    """The seconds per step, including everything that happens between steps."""
    if len(rows) < 2 or rows[0]["step"] <= rows[-1]["step"]:
        return None
    return float((rows[0]["time"] - rows[-1]["time"]) / (rows[0]["step"] - rows[-1]["step"]))


def _checkpoint(directory: Path) -> dict[str, float] | None:
    for path in sorted(directory.glob("step-*"), reverse=True):
        manifest = _read_json(path / "manifest.json")
        try:
            if manifest and all(
                (path / name).stat().st_size == entry["bytes"] for name, entry in manifest.items()
            ):
                step = int(path.name.removeprefix("step-"))
                return {"step": step, "time": (path / "manifest.json").stat().st_mtime}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _failures(driver: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The failures that the driver has logged, or rank 0 if there is no driver."""
    found = []
    begun: Row | None = None
    for row in [row for row in driver if "event" in row] or events:
        if row["event"] == "start":
            if begun is not None:
                who = f"process {begun.get('pid')} on {begun.get('host')}"
                text = f"{who}, which had started then, died without a word"
                found.append({"time": seconds(begun), "message": text})
            begun = row
        elif row["event"] in ("failed", "end", "stalled"):
            begun = None
        if row["event"] in ("workers_failed", "failed", "stalled"):
            found.append({"time": seconds(row), "message": str(row.get("message", ""))})
    return found


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if there is no file, or it is not whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
