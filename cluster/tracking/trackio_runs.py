"""Runs in Trackio's directory, which TRACKIO_DIR names.

Trackio's own `init` and `log` do not do: they write a moment later, lose that with a killed driver
and what cannot be written with a mere warning, log a step again, end the run before when the next
is begun, and print among the output. So rows are given to what lies below them, `fragments`, as
Trackio does with rows that it had to put aside: each has an id of its own, and a row whose id is
there already is left out. Nothing needs to be asked for after a break; it is sent again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trackio import cas, fragments, utils
from trackio.media.utils import get_project_media_path
from trackio.sqlite_storage import SQLiteStorage

from cluster.logs.metrics_log import Row, place
from cluster.tracking.tracker import Described, Outcome, metrics_of


class TrackioRun:
    """A `cluster.tracking.tracker.Tracker`."""

    def __init__(self, run: Described) -> None:
        SQLiteStorage.validate_project_name(run.project)
        self._run = run
        self._writer = fragments.FragmentWriter()
        known = SQLiteStorage.get_run_config(run.project, run.name, run_id=run.id) or {}
        self._config = {
            **utils.to_json_safe(dict(run.values)),
            "_Created": known.get("_Created") or _iso(datetime.now(UTC).timestamp()),
            "_Group": None if run.group is None else f"{run.group.name}-{run.group.id}",
        }
        self._say("running")
        self.where = f"run {run.name} of project {run.project} in {utils.TRACKIO_DIR}"

    def held(self) -> None:
        return None  # whatever is sent again is left out

    def has_row(self, row: Row) -> bool:
        return False

    def has_grid(self, path: Path) -> bool:
        return False

    def log_rows(self, rows: Sequence[Row], number: int) -> None:
        records = []
        for row in rows:
            step, kind = place(row)
            id_ = f"row-{step}-{kind}"
            records.append(self._record(id_, metrics_of(row), row["step"], row["time"]))
        self._write(records)

    def log_grid(self, path: Path, step: int, number: int) -> None:
        # Trackio keeps files by the name of the run, which others of the project may have as well.
        folder = get_project_media_path(self._run.project, self._run.name, step)
        copy = folder / f"{self._run.id}-{path.name}"
        shutil.copyfile(path, copy)
        shown = {
            "_type": "trackio.image",
            "file_path": str(copy.relative_to(utils.MEDIA_DIR)),
            "caption": path.name,
        }
        seconds = path.stat().st_mtime
        self._write([self._record(f"grid-{path.name}", {"samples": shown}, step, seconds)])

    def log_result(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        id_ = f"result-{min(values, default='')}-{seconds}"
        self._write([self._record(id_, values, step, seconds)])

    def attach(self, path: Path, folder: str) -> None:
        digest, size = cas.stage_blob_into_project(path, self._run.project)
        name = f"{self._run.name}-{self._run.id}-{folder}-{path.name}"
        SQLiteStorage.commit_artifact_version(
            project=self._run.project,
            name=_allowed(name),
            type=folder.partition("/")[0],
            description=None,
            manifest=[{"path": path.name, "digest": digest, "size": size}],
            metadata=None,
            aliases=None,
            run_name=self._run.name,
            run_id=self._run.id,
            overwrite=True,
        )

    def end(self, outcome: Outcome) -> None:
        self._say(outcome)

    def _say(self, state: str) -> None:
        """Write the configuration with the state of the run, for which Trackio has no place."""
        # Trackio takes a configuration with a row only; this one is empty and stays single.
        row = self._record("begun", {}, 0, datetime.now(UTC).timestamp())
        self._write([{**row, "config": {**self._config, "state": state}}])

    def _record(
        self, id_: str, metrics: Mapping[str, Any], step: int, seconds: float
    ) -> dict[str, Any]:
        entry = {
            "project": self._run.project,
            "run": self._run.name,
            "run_id": self._run.id,
            "metrics": dict(metrics),
            "step": step,
            "timestamp": _iso(seconds),
            "log_id": f"{self._run.id}-{id_}",
        }
        return dict(fragments.metric_record(entry))

    def _write(self, records: list[dict[str, Any]]) -> None:
        """Write records to the database, or to a file for who owns the database."""
        if _writes_files():
            self._writer.write_local(records)
        else:
            fragments.import_records(records)


def _writes_files() -> bool:
    """Whether Trackio would not write to a database where its directory lies.

    `trackio.utils.get_storage_mode` says the same, but prints a sentence among the output.
    """
    mode = os.environ.get("TRACKIO_STORAGE_MODE", "auto").strip().lower()
    if mode in ("sqlite", "jsonl"):
        return mode == "jsonl"
    return bool(utils.is_network_filesystem(utils.TRACKIO_DIR))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _allowed(name: str) -> str:
    """A name with the characters that Trackio takes for a file."""
    return "".join(
        one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in name
    )
