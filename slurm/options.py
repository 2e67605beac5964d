"""What the user asks of Slurm, and the batch scripts that say so.

Every job is one Python process that the batch shell turns into (`exec`), without `srun`: the
warning signal `B:USR2` reaches exactly that process, it has all CPUs of the allocation, and a
site's `--export` settings for job steps do not touch it. Nothing that a user or a site may have a
default for is filled in, except a time
limit: it decides when a job saves its chains and requeues itself.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp.errors import InputError

DEFAULT_MINUTES = 60
# Slurm may warn up to a minute early and looks every half minute.
_WARNING_SECONDS = 120
# A time limit is no failure: the job goes on in its next attempt.
MAX_TIMEOUTS = 100


@dataclass(frozen=True)
class SlurmOptions:
    """Requests under Slurm's own names; None leaves a choice to the user's defaults and the site's.

    Attributes:
        sbatch: KEY=VALUE of any other option of sbatch, KEY alone for a switch.
        setup: lines of shell before the command.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    time: str | None = None
    mem: str | None = None
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    max_parallel: int | None = None

    @property
    def minutes(self) -> int:
        return DEFAULT_MINUTES if self.time is None else minutes(self.time)


def minutes(text: str) -> int:
    """`90`, `HH:MM:SS` or `D-HH:MM:SS` in whole minutes, rounded up.

    Raises:
        InputError: another format, or no time at all (Slurm would take 0 for "no limit").
    """
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d{1,2}):([0-5]\d):([0-5]\d)|(\d+))", text.strip())
    if match is None:
        raise InputError(f"--time {text!r} must be minutes, HH:MM:SS or D-HH:MM:SS")
    days, hours, mins, seconds, plain = (int(group or 0) for group in match.groups())
    total = plain + (days * 24 + hours) * 60 + mins + (seconds > 0)
    if total == 0:
        raise InputError("--time 0 would be a job without a time limit; ask for at least a minute")
    return total


def parameters(
    options: SlurmOptions, threads: int, job_name: str, comment: str, dependency: str | None = None
) -> dict[str, Any]:
    """Keyword arguments of submitit's Slurm executor.

    Args:
        dependency: on other jobs, as for sbatch.

    Raises:
        InputError: a malformed --sbatch.
    """
    limit = options.minutes
    asked = {
        name: value
        for name in ("partition", "account", "qos", "constraint", "gres", "mem")
        if (value := getattr(options, name)) is not None
    }
    additional: dict[str, Any] = {
        **asked,
        "cpus-per-task": threads,
        "requeue": True,
        "signal": f"B:USR2@{min(_WARNING_SECONDS, limit * 30)}",
    }
    if dependency is not None:
        additional |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    for word in options.sbatch:
        key, equals, value = word.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", key):
            raise InputError(f"--sbatch {word!r} must be KEY=VALUE with an option of sbatch as KEY")
        additional[key] = value if equals else True
    return {
        "job_name": job_name,
        "comment": comment,
        "time": limit,
        "wckey": None,
        "use_srun": False,
        "array_parallelism": options.max_parallel or 10**6,
        "setup": [
            # A warning that comes before Python answers it must not kill the job.
            "trap '' USR2",
            *options.setup,
            *(f"export {name}={value}" for name, value in environment(threads).items()),
        ],
        "additional_parameters": additional,
    }


def environment(threads: int) -> dict[str, str]:
    """Variables of a job. Idle threads do not spin; freed memory stays with the process, which asks
    for the same tensors again and again (handing it back costs a third of the time of a small
    decoder).
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
    }


def python() -> str:
    """The command that the batch shell becomes."""
    return f"exec {shlex.quote(sys.executable)}"


def script(logs: Path, values: dict[str, Any], jobs: int) -> str:
    """The batch script that submitit would submit, made without Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{python()} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    count = jobs if jobs > 1 else None
    return _make_sbatch_string(command=command, folder=logs, map_count=count, **values)
