"""What is handed to sbatch through submitit: the script, and the environment of the submission."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gencomp.errors import InputError
from gencomp.own_packages import SAFE_PATH
from slurm.jobs.job import Executor

# What a user sets for all submissions, and what finds the controller and says who asks it.
_KEPT = {
    "SLURM_CLUSTERS",
    "SLURM_CONF",
    "SLURM_JWT",
    *(f"SBATCH_{name}" for name in ("ACCOUNT", "CLUSTERS", "PARTITION", "QOS", "RESERVATION")),
}

# What is not taken as it is in the names of logs, and how a person would call it.
_EXPANDED: dict[Executor, dict[str, str]] = {
    "slurm": {"%": "a %", "\\": "a backslash", "\n": "a line break"},
    "local": {letters: f"the letters {letters}" for letters in ("%j", "%t", "%A", "%a")},
    "debug": {},
}


def python(inside: Sequence[str] = ()) -> str:
    """The command that replaces the batch shell; nothing is imported from its directory (-P).

    Args:
        inside: the words that start a container, whose own Python is taken then.
    """
    words = [*inside, "python"] if inside else [sys.executable]
    return f"exec {shlex.join(words)} -P"


def script(logs: Path, values: Mapping[str, Any], jobs: int, inside: Sequence[str] = ()) -> str:
    """The batch script that submitit would submit; making it needs no Slurm.

    Args:
        logs: the directory of logs.
        values: the parameters of submitit's executor.
        jobs: the number of jobs of the array.
        inside: the words that start a container.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python(inside)} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    count = jobs if jobs > 1 else None
    return _make_sbatch_string(command=command, folder=logs, map_count=count, **values)


def require_plain_name(logs: Path, executor: Executor) -> None:
    """Check the name of the directory of logs, before anything is submitted.

    Slurm and submitit expand % in the names of logs, wherever it stands, and Slurm takes a
    backslash for a word of its own; neither can be escaped for both.

    Raises:
        InputError: logs would be written elsewhere, or not at all.
    """
    for letters, word in _EXPANDED[executor].items():
        if letters in str(logs):
            raise InputError(
                f"{str(logs.parent)!r} has {word} in its name, which would be taken for something"
                " else: jobs cannot write logs there, so rename the directory"
            )


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """While the body submits, nothing of the job in which this process may run is handed on.

    A job would take the variables of the job around it for its own, such as the number of an array.
    Nor do jobs get the variable by which our own children import nothing of the current directory:
    scripts that --setup lines start may lie there.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SBATCH_")) and name not in _KEPT
    }
    if "SLURM_JOB_ID" not in inherited:
        inherited = {}
    if SAFE_PATH in os.environ:
        inherited[SAFE_PATH] = os.environ[SAFE_PATH]
    for name in inherited:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(inherited)
