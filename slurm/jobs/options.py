"""What the user asks of Slurm, and the batch scripts that say so.

Every job is one Python process that the batch shell turns into (`exec`), without `srun`: the
warning signal `B:USR2` reaches exactly that process, it has all CPUs of its node, and a site's
`--export` settings for job steps do not touch it. Nothing that a user or a site may have a default
for is filled in, except a time limit: it decides when a job saves and requeues itself.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gencomp.errors import InputError

DEFAULT_MINUTES = 60
# Slurm may warn up to a minute early and looks every half minute.
_WARNING_SECONDS = 120
# A time limit is no failure: the job goes on in its next attempt. But one that is too short to get
# anywhere must end some day.
MAX_TIMEOUTS = 1000


class SlurmOptions(BaseModel):
    """Requests under Slurm's own names; None leaves a choice to the user's defaults and the site's.

    The command line offers these options, and a profile may hold them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = Field(None, description="For Slurm, as for sbatch.")
    account: str | None = Field(None, description="For Slurm, as for sbatch.")
    qos: str | None = Field(None, description="For Slurm, as for sbatch.")
    constraint: str | None = Field(None, description="For Slurm, as for sbatch.")
    gres: str | None = Field(None, description="For Slurm, as for sbatch, for example gpu:1.")
    time: str | None = Field(
        None,
        description="For Slurm: minutes, HH:MM:SS or D-HH:MM:SS; an hour by default. A job that"
        " reaches it goes on in its next attempt.",
    )
    mem: str | None = Field(None, description="For Slurm, as for sbatch, for example 8G.")
    sbatch: tuple[str, ...] = Field(
        (), description="For Slurm: any other option of sbatch as KEY=VALUE; repeatable."
    )
    setup: tuple[str, ...] = Field(
        (),
        description="For Slurm: a line of shell before the command, such as a module load;"
        " repeatable.",
    )

    @property
    def minutes(self) -> int:
        return DEFAULT_MINUTES if self.time is None else minutes(self.time)

    @property
    def warning(self) -> int:
        """Seconds between Slurm's warning and the end, at least."""
        own = [re.fullmatch(r"(?:--)?signal=.*@(\d+)", word) for word in self.sbatch]
        given = [int(match[1]) for match in own if match]
        return given[-1] if given else min(_WARNING_SECONDS, self.minutes * 30)


@dataclass(frozen=True)
class Shape:
    """What a job is, whoever asks for it.

    Attributes:
        name, comment: by which Slurm shows it.
        cpus: of each node.
        environment: variables of the job.
        dependency: on other jobs, as for sbatch.
        parallel: jobs of an array that run at once, at most.
    """

    name: str
    comment: str
    nodes: int = 1
    cpus: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    dependency: str | None = None
    parallel: int | None = None


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


def parameters(options: SlurmOptions, shape: Shape) -> dict[str, Any]:
    """Keyword arguments of submitit's Slurm executor.

    Raises:
        InputError: a malformed --sbatch.
    """
    asked = {
        name: value
        for name in ("partition", "account", "qos", "constraint", "gres", "mem")
        if (value := getattr(options, name)) is not None
    }
    additional: dict[str, Any] = {
        **asked,
        "cpus-per-task": shape.cpus,
        "requeue": True,
        "signal": f"B:USR2@{options.warning}",
    }
    if shape.dependency is not None:
        additional |= {"dependency": shape.dependency, "kill-on-invalid-dep": "yes"}
    for word in options.sbatch:
        key, equals, value = word.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", key):
            raise InputError(f"--sbatch {word!r} must be KEY=VALUE with an option of sbatch as KEY")
        additional[key] = value if equals else True
    several = {"ntasks_per_node": 1} if shape.nodes > 1 else {}
    return {
        "job_name": shape.name,
        "comment": shape.comment,
        "time": options.minutes,
        "nodes": shape.nodes,
        **several,
        "wckey": None,
        "use_srun": False,
        "array_parallelism": shape.parallel or 10**6,
        "setup": [
            # A warning that comes before Python answers it must not kill the job.
            "trap '' USR2",
            *options.setup,
            *(f"export {name}={value}" for name, value in shape.environment.items()),
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
