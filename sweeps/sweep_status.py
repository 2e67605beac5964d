"""The status of a sweep by its files alone, read from any host, while it runs, without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cluster import run_status
from cluster.run_status import Standing


@dataclasses.dataclass(frozen=True)
class SweepStatus:
    """A sweep with its trials.

    Attributes:
        path: the directory of the sweep.
        holder: the process that runs the sweep, if one does.
        trials: the point that each trial tries, and where its run stands.
    """

    path: Path
    holder: str | None
    trials: list[tuple[dict[str, Any], Standing]]


def is_sweep(path: Path) -> bool:
    """Whether a directory holds a sweep."""
    return (path / "sweep.yaml").is_file()


def read(path: Path) -> SweepStatus:
    """The status of a sweep now.

    Args:
        path: the directory of the sweep.
    """
    holder = run_status.holder(path)

    def look(trial: Path) -> tuple[dict[str, Any], Standing]:
        try:
            told = json.loads((trial / "trial.json").read_bytes())
        except (OSError, ValueError):
            told = {}
        return told.get("point") or {}, _of_trial(trial, told, holder is not None)

    found = filter(run_status.is_run, sorted((path / "trials").glob("*")))
    return SweepStatus(path, holder, run_status.look_at_all(look, found))


def _of_trial(path: Path, told: dict[str, Any], held: bool) -> Standing:
    """What the sweep says of the end of a trial comes before what the trial's own log says.

    A trial is stopped when it was beaten, and pending when it will go on.
    """
    found = run_status.read(path, held)
    status = told.get("status")
    if found.state != "finished" and status in ("stopped", "failed"):
        detail = str(told.get("error") or "")
        return dataclasses.replace(found, state=status, detail=detail, seconds_left=None)
    if found.state in ("new", "stopped"):
        return dataclasses.replace(found, state="pending")
    return found
