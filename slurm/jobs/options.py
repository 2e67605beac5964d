"""The user's requests to Slurm, and the batch scripts that state them.

Every job is one Python process, which replaces the batch shell (`exec`) without `srun`: the warning
signal `B:USR2` reaches exactly that process, the process has all CPUs of its node, and a site's
`--export` settings for job steps do not affect it. Options for which a user or a site may have a
default are not filled in, except the time limit, which decides when a job saves and requeues
itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gencomp.errors import InputError

DEFAULT_MINUTES = 60
# Slurm may warn up to a minute early, and looks every half minute.
_WARNING_SECONDS = 120
# Reaching the time limit is no failure, since the job goes on in its next attempt. But a job whose
# limit is too short for any progress must end at some time; that of a run or a sweep ends sooner
# (see `slurm.sessions.drive`).
MAX_TIMEOUTS = 1000


class SlurmOptions(BaseModel):
    """Requests to Slurm under its own names. None leaves a choice to the user's or site's defaults.

    The command line offers these options, and a profile may hold them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = Field(None, description="Slurm partition, as for sbatch.")
    account: str | None = Field(None, description="Slurm account, as for sbatch.")
    qos: str | None = Field(None, description="Slurm quality of service, as for sbatch.")
    constraint: str | None = Field(
        None, description="Features that Slurm's nodes must have, as for sbatch."
    )
    gres: str | None = Field(
        None, description="Generic resources of Slurm, as for sbatch, for example gpu:1."
    )
    time: str | None = Field(
        None,
        description="Time limit for Slurm: minutes, HH:MM:SS or D-HH:MM:SS; an hour by default. A"
        " job that reaches the limit goes on in its next attempt.",
    )
    mem: str | None = Field(
        None, description="Memory of a node for Slurm, as for sbatch, for example 8G."
    )
    sbatch: tuple[str, ...] = Field(
        (), description="Any other option of sbatch, for Slurm, as KEY=VALUE; repeatable."
    )
    setup: tuple[str, ...] = Field(
        (),
        description="Line of shell that Slurm's job runs before the command, such as a module load;"
        " repeatable.",
    )
    container: str | None = Field(
        None,
        description="Image in which Slurm's jobs run, as apptainer:IMAGE or pyxis:IMAGE. Its Python"
        " must have this version of gencomp, and Slurm's commands must work in it.",
    )
    mount: tuple[str, ...] = Field(
        (),
        description="Path of the nodes that the container sees, as PATH or SOURCE:TARGET;"
        " repeatable. The current directory and that of the run are always seen.",
    )

    @property
    def minutes(self) -> int:
        return DEFAULT_MINUTES if self.time is None else minutes(self.time)

    @property
    def warning(self) -> int:
        """The least number of seconds between Slurm's warning and the end of the job."""
        own = [re.fullmatch(r"(?:--)?signal=.*@(\d+)", word) for word in self.sbatch]
        given = [int(match[1]) for match in own if match]
        return given[-1] if given else min(_WARNING_SECONDS, self.minutes * 30)


@dataclass(frozen=True)
class Shape:
    """The properties of a job that do not depend on the user's requests.

    Attributes:
        name, comment: the name and the comment by which Slurm shows the job.
        nodes: the number of the job's nodes.
        cpus: the number of CPUs of each node.
        environment: the job's environment variables.
        dependency: the jobs that this one depends on, in the format of sbatch.
        parallel: the most jobs of an array that run at the same time.
    """

    name: str
    comment: str
    nodes: int = 1
    cpus: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    dependency: str | None = None
    parallel: int | None = None


def minutes(text: str) -> int:
    """A time such as `90`, `HH:MM:SS` or `D-HH:MM:SS` in whole minutes, rounded up.

    Raises:
        InputError: the text has another format, or means no time (Slurm takes 0 for "no limit").
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
    """The keyword arguments of submitit's Slurm executor.

    Raises:
        InputError: an --sbatch is malformed.
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
            # A warning that comes before Python can handle it must not kill the job.
            "trap '' USR2",
            *options.setup,
            *(f"export {name}={value}" for name, value in shape.environment.items()),
        ],
        "additional_parameters": additional,
    }


def environment(threads: int) -> dict[str, str]:
    """The environment variables of a job.

    Idle threads do not spin. Freed memory stays with the process, which needs the same tensors
    again and again (returning it would take a third of the time of a small decoder).
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
    }
