"""A run or a sweep that one job drives, over all of its attempts.

    DIR/slurm/order.json   what the job runs, and with which resources
    DIR/slurm/jobs.json, progress/, logs/   see `slurm.jobs.job_set`

DIR is the run or the sweep itself, whose own files say what is done and what is not. An order is
written anew with every submission, so the next job may have other nodes or workers.
"""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster import run_status
from cluster.files import read_json, write_text
from gencomp.errors import InputError
from gencomp.validation import sentence

FOLDER = "slurm"
_FILE, _COMPLETE = "order.json", "complete"
# The parts of the time between Slurm's warning and the end of the job in which the driver saves and
# Ray ends; the rest is for requeueing.
_TO_SAVE, _TO_END = 0.75, 0.12


class Order(BaseModel):
    """What a job runs, and with which resources."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["train", "sweep"]
    words: tuple[str, ...] = Field(
        min_length=1, description="words of the driver's command line, after `gencomp`"
    )
    nodes: int = Field(ge=1, description="number of nodes")
    cpus: int = Field(ge=1, description="number of CPUs of each node")
    gpu: bool = Field(description="whether the workers need GPUs")
    warning: int = Field(
        ge=1, description="least number of seconds between Slurm's warning and the end of the job"
    )

    @property
    def save_seconds(self) -> float:
        """The time in which the driver must save, in seconds."""
        return _TO_SAVE * self.warning

    @property
    def end_seconds(self) -> float:
        """The time in which Ray must end after the driver, in seconds."""
        return _TO_END * self.warning


# Names of files and directories, with the sizes of files.
Traces = frozenset[tuple[str, int]]


class Progress(NamedTuple):
    """The number of steps of a run, or of trials of a sweep; `total` is 0 until it is known."""

    done: int
    total: int


@dataclass(frozen=True)
class Session(ABC):
    """A run or a sweep as one block of work for one job.

    Attributes:
        path: the directory of the session, DIR/slurm.
        order: the order of the newest job.
    """

    path: Path
    order: Order

    @property
    def subject(self) -> Path:
        """The run or the sweep."""
        return self.path.parent

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether nothing is left for a job to do."""

    @abstractmethod
    def progress_now(self) -> Progress:
        """The progress, read from the subject's own files without importing torch."""

    @abstractmethod
    def traces(self) -> Traces:
        """What work leaves behind; each step, checkpoint or trial changes it."""

    @abstractmethod
    def state(self) -> str:
        """The progress in words."""

    def completed(self) -> None:  # noqa: B027  # the files of a run show this without a note
        """Note that a driver has ended with nothing left to do."""


class TrainingSession(Session):
    """The session of a run."""

    def is_complete(self) -> bool:
        return (self.subject / "result.json").exists()

    def progress_now(self) -> Progress:
        now = run_status.read(self.subject)
        return Progress(now.step, now.total or 0)

    def traces(self) -> Traces:
        return _traces(self.subject, "metrics.jsonl", "checkpoints/step-*")

    def state(self) -> str:
        now = self.progress_now()
        of = f" of {now.total}" if now.total else ""
        return f"step {now.done}{of}; gencomp status {shlex.quote(str(self.subject))} says more"


class SweepSession(Session):
    """The session of a sweep.

    Only the driver of a sweep can tell whether all is done, so the file `complete` notes it.
    """

    def is_complete(self) -> bool:
        return (self.path / _COMPLETE).exists()

    def completed(self) -> None:
        (self.path / _COMPLETE).touch()

    def reopen(self) -> None:
        """Note that there is something to do again."""
        (self.path / _COMPLETE).unlink(missing_ok=True)

    def progress_now(self) -> Progress:
        trials = read_json(self.subject / "trials.json") or []
        done = [trial for trial in trials if _has_ended(self.subject / "trials" / trial)]
        return Progress(len(done), len(trials))

    def traces(self) -> Traces:
        return _traces(self.subject, "trials/*/metrics.jsonl", "trials/*/trial.json")

    def state(self) -> str:
        now = self.progress_now()
        return (
            f"{now.done} of {now.total} trials have ended; "
            f"gencomp status {shlex.quote(str(self.subject))} says more"
        )


def session(subject: Path, order: Order) -> Session:
    """The session of a run or a sweep, which need not exist yet. Nothing is written."""
    path = subject.resolve() / FOLDER
    return TrainingSession(path, order) if order.kind == "train" else SweepSession(path, order)


def enter(found: Session) -> None:
    """Write the order of a session, for the jobs that are submitted from now on."""
    write_text(found.path / _FILE, found.order.model_dump_json(indent=1) + "\n")


def find(directory: Path) -> Session | None:
    """The session of a run or a sweep, or of its directory `slurm`; None if there is none.

    Raises:
        InputError: the session's order cannot be read.
    """
    directory = directory.resolve()
    for subject in (directory, directory.parent):
        file = subject / FOLDER / _FILE
        if not file.is_file() or directory not in (subject, file.parent):
            continue
        try:
            return session(subject, Order.model_validate_json(file.read_bytes()))
        except ValidationError as error:
            raise InputError(f"{file} cannot be read: {sentence(error, Order)}") from None
    return None


def open_session(path: str | Path) -> Session:
    """A session that exists.

    Raises:
        InputError: the directory holds no session, or the session's order cannot be read.
    """
    found = find(Path(path))
    if found is None:
        raise InputError(f"{path} holds no order of a run or a sweep (it has no {_FILE})")
    return found


def _traces(subject: Path, *patterns: str) -> Traces:
    found = set()
    for pattern in patterns:
        for path in subject.glob(pattern):
            with suppress(OSError):  # an old checkpoint may go meanwhile
                found.add((str(path), 0 if path.is_dir() else path.stat().st_size))
    return frozenset(found)


def _has_ended(trial: Path) -> bool:
    if (trial / "result.json").exists():
        return True
    try:
        told: Any = json.loads((trial / "trial.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("status") in ("finished", "stopped", "failed")
