"""The kinds of evaluations as jobs: one file holds the stages and the jobs of a kind."""

from __future__ import annotations

import shlex
from pathlib import Path

from gencomp.errors import InputError
from slurm.jobs.job_set import JobSet
from slurm.kinds.curve import CurveJobs
from slurm.kinds.encoders import EncoderJobs
from slurm.kinds.files import FileJobs
from slurm.kinds.metrics import MetricJobs
from slurm.sessions.session_jobs import SessionJobs

KINDS = (MetricJobs, FileJobs, EncoderJobs, CurveJobs)


def open_jobs(path: Path) -> JobSet:
    """The jobs of the evaluation in a directory, or of a run or a sweep that was submitted.

    Raises:
        InputError: the directory holds no such thing, or its plan cannot be read.
    """
    if (session := SessionJobs.find(path)) is not None:
        return session
    if (path / "identity.json").is_file() or (path / "sweep.yaml").is_file():
        raise InputError(
            f"{path} was not submitted to Slurm; "
            f"`gencomp status {shlex.quote(str(path))}` says where it stands"
        )
    for kind in KINDS:
        if kind.EVALUATION.lies_in(path):
            return kind.open(path)
    files = ", ".join(kind.EVALUATION.PLAN.FILE for kind in KINDS)
    raise InputError(f"{path} is not an evaluation directory (it has none of {files})")
