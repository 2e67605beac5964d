"""Runs of Weights & Biases: in RUN/wandb, and on a server where there is a key and a network.

A process of W&B takes the rows and writes them, in order, some time later. What it has not written
is lost when the driver is killed. Offline, its files say afterwards what was written, and the rest
is sent again. On a server it is not asked for: what may have been sent is never sent again, so that
rows before a kill may be missing there.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb

from cluster.logs.metrics_log import Row, place
from cluster.runs import Run
from cluster.tracking.tracker import NOWHERE, Described, Held, Outcome, metrics_of
from cluster.tracking.wandb_files import history
from gencomp.exit_codes import DONE, FAILED

_REACH_SECONDS = 5.0


class WandbRun:
    """A `cluster.tracking.tracker.Tracker`."""

    def __init__(self, run: Described) -> None:
        mode = _mode()
        self._held = _held(run) if mode == "offline" else None
        group = {} if run.group is None else {"group": f"{run.group.name}-{run.group.id}"}
        self._run: Any = wandb.init(
            project=run.project,
            id=run.id,
            name=run.name,
            dir=run.path,
            config=dict(run.values),
            allow_val_change=True,
            mode=mode,
            resume=None if mode == "offline" else "allow",
            # A sweep follows many runs at once.
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
            **group,
        )
        self._run.define_metric("*", step_metric="step")
        folder = Path(self._run.dir).parent
        self.where = f"{folder}, for wandb sync" if mode == "offline" else str(self._run.url)

    def held(self) -> Held | None:
        return self._held

    def has_row(self, row: Row) -> bool:
        return True

    def has_grid(self, path: Path) -> bool:
        return True

    def log_rows(self, rows: Sequence[Row], number: int) -> None:
        # W&B's own step counts what was logged and must never fall, over all attempts.
        for own_step, row in enumerate(rows, number):
            self._run.log({"step": row["step"], **metrics_of(row)}, step=own_step, commit=True)

    def log_grid(self, path: Path, step: int, number: int) -> None:
        values = {"step": step, "samples": wandb.Image(str(path))}
        self._run.log(values, step=number, commit=True)

    def log_result(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        self._run.summary.update(dict(values))

    def attach(self, path: Path, folder: str) -> None:
        # W&B would link to the file, which may have gone when the run is synced.
        copy = Path(self._run.dir) / folder / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def end(self, outcome: Outcome) -> None:
        self._run.finish(FAILED if outcome == "failed" else DONE)


def _held(run: Described) -> Held | None:
    """The last row and the last grid in the offline files of a run; None if there are no files.

    Numbers grow, and W&B writes in order, so that whatever comes before them was written too.
    """
    files = list((run.path / "wandb").glob(f"offline-run-*-{run.id}/*.wandb"))
    row, grid = NOWHERE, ""
    for file in files:
        for logged in history(file):
            if "samples/path" in logged:
                grid = max(grid, Run(run.path).grid(logged["step"]).name)
            else:
                row = max(row, place(logged))
    return Held(row, grid) if files else None


def _mode() -> Literal["online", "offline", "disabled", "shared"]:
    """The mode that WANDB_MODE names; else online where there is a key and the server answers."""
    if (named := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled", "shared"):
        return named  # type: ignore[return-value]
    settings = wandb.setup().settings
    return "online" if settings.api_key and _answers(settings.base_url) else "offline"


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), _REACH_SECONDS).close()
    except OSError:
        return False
    return True
