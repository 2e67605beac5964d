"""What a run or a sweep knows of itself in its trackers: the file tracking.json in its directory.

{"mlflow": {"id": "...", "project": "...", "numbered": 120, "sent": [100, 1], ...}}
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.files import read_json, write_bytes
from cluster.logs.metrics_log import Place
from cluster.tracking import choice
from cluster.tracking.choice import Name
from cluster.tracking.tracker import NOWHERE, Outcome

FILE = "tracking.json"


@dataclass(frozen=True)
class Record:
    """What is known of a run in one tracker.

    Attributes:
        id: the id of the run, which is made once.
        project: the tracker's project or experiment.
        numbered: how many rows and grids were sent, or may have been.
        sent: the place of the last row that was sent.
        sending: the place of the last row that was sent or may have been.
        grid: the name of the last grid that was sent; names are in the order of steps.
        sending_grid: the name of the last grid that was sent or may have been.
        began, began_grid: `sent` and `grid` when the run was opened last.
        ended: how the run has ended, if the tracker was told.
    """

    id: str
    project: str
    numbered: int = 0
    sent: Place = NOWHERE
    sending: Place = NOWHERE
    grid: str = ""
    sending_grid: str = ""
    began: Place = NOWHERE
    began_grid: str = ""
    ended: Outcome | None = None


def found_or_made(directory: Path, name: Name) -> Record:
    """The record of a run or a sweep for a tracker; a new one is written before it is used.

    The caller holds the directory.
    """
    known = _read(directory).get(name)
    if known is not None:
        places = {key: (known[key][0], known[key][1]) for key in ("sent", "sending", "began")}
        return Record(**{**known, **places})
    made = Record(secrets.token_hex(8), choice.project(name))
    write(directory, name, made)
    return made


def write(directory: Path, name: Name, record: Record, **changes: Any) -> Record:
    """Write a record with some changes, and give it back."""
    changed = replace(record, **changes)
    records = _read(directory) | {name: asdict(changed)}
    write_bytes(directory / FILE, (json.dumps(records, indent=1) + "\n").encode())
    return changed


def _read(directory: Path) -> dict[str, Any]:
    return read_json(directory / FILE) or {}
