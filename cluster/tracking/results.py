"""Evaluations and reports of a finished run in its tracker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.files import locked, read_json, write_json
from cluster.logs.process_log import one_line
from cluster.runs import Run
from cluster.tracking import choice
from cluster.tracking.choice import Name
from cluster.tracking.follower import Connect, Follower
from cluster.tracking.record import FILE
from cluster.tracking.tracker import Tracker
from gencomp.errors import InputError
from gencomp.exit_codes import FAILED

_BUSY = "{directory} is being trained or tracked by {holder}; give the command again later"


class NotTaken(RuntimeError):
    """Raised where a tracker does not take a file that has been written already."""

    exit_code = FAILED


def send_evaluation(run: Run, name: Name, result: Path, connect: Connect = choice.connect) -> None:
    """Log the metrics of an evaluation to its run and attach their file, unless that was done.

    Args:
        run: the run, with the checkpoint that was measured.
        name: the tracker's name.
        result: metrics.json in the evaluation's directory.
        connect: what opens the run in the tracker.

    Raises:
        InputError: another process holds the run.
        NotTaken: the tracker failed.
    """
    note, content = result.parent / FILE, result.read_bytes()
    values = _values(json.loads(content), result.parent.name)
    with _opened(run, name, result, connect) as tracker:
        known: dict[str, Any] = read_json(note) or {}
        digest = hashlib.sha256(content).hexdigest()
        if known.get(name) != digest:
            tracker.attach(result, f"evaluations/{result.parent.name}")
            step = run.chosen_checkpoint().step
            tracker.log_result(values, step, result.stat().st_mtime)
            write_json(note, known | {name: digest})


def attach(run: Run, name: Name, path: Path, connect: Connect = choice.connect) -> None:
    """Attach a file, such as a report, to a finished run, in place of an earlier one of its name.

    Raises:
        InputError: another process holds the run.
        NotTaken: the tracker failed.
    """
    with _opened(run, name, path, connect) as tracker:
        tracker.attach(path, "reports")


@contextmanager
def _opened(run: Run, name: Name, file: Path, connect: Connect) -> Iterator[Tracker]:
    """A run in a tracker, which is told afterwards that the run is finished."""
    with locked(run.path, _BUSY) as lease:
        follower = Follower(run, name, lease.require, connect=connect)
        try:
            yield follower.opened()
            follower.end("finished")
        except InputError:
            raise
        except Exception as error:
            raise NotTaken(
                f"{name} did not take {file}, which is written: {one_line(error)[:300]}; the same"
                " command tries again"
            ) from error


def _values(content: Mapping[str, Any], evaluation: str) -> dict[str, float]:
    """The metrics of an evaluation by names such as `evaluations/metrics/mse`."""
    return {
        f"evaluations/{evaluation}/{name}": float(entry["value"])
        for name, entry in content.get("metrics", {}).items()
        if isinstance(entry.get("value"), int | float)
    }
