"""Images in which jobs run, by Apptainer or by pyxis (the plugin of Slurm that uses enroot).

The batch shell starts Python inside the image. That Python asks Slurm for things itself: it
requeues its job (`scontrol`) and asks how much time is left (`squeue`). So these programs must work
inside, and a job whose image cannot reach the controller ends at once rather than hours later, when
it would have to requeue itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from gencomp.errors import InputError
from slurm.jobs.options import SlurmOptions

Kind = Literal["apptainer", "pyxis"]

# Before Python, whose command follows, the controller must answer.
_REACHED = ("sh", "-c", 'scontrol ping >&2 && exec "$@"', "sh")


@dataclass(frozen=True)
class Container:
    """An image and what its processes see of the nodes.

    Attributes:
        kind: the program that runs the image.
        image: the image, in the words of that program.
        mounts: files and directories of the nodes, as PATH or SOURCE:TARGET; the first one is the
            working directory.
    """

    kind: Kind
    image: str
    mounts: tuple[str, ...]

    def words(self, cpus: int, gpu: bool) -> list[str]:
        """The words of a batch script that come before Python.

        Args:
            cpus: the number of CPUs of the job.
            gpu: whether the job needs a GPU, which pyxis gives without being asked.
        """
        if self.kind == "apptainer":
            nvidia = ["--nv"] if gpu else []
            seen = ["--bind", ",".join(self.mounts), "--pwd", self.mounts[0]]
            return ["apptainer", "exec", *nvidia, *seen, self.image, *_REACHED]
        mounts = ",".join(one if ":" in one else f"{one}:{one}" for one in self.mounts)
        return [
            *("srun", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}", "--export=ALL"),
            *("--mpi=none", "--unbuffered", f"--container-image={self.image}"),
            *(f"--container-mounts={mounts}", f"--container-workdir={self.mounts[0]}"),
            *_REACHED,
        ]


def of(options: SlurmOptions, seen: Sequence[Path]) -> Container | None:
    """The container that was asked for; None if there is none.

    Args:
        options: the requests to Slurm.
        seen: directories that are mounted besides; the first one is the working directory.

    Raises:
        InputError: the kind is unknown, there is no image, or a mount is malformed or without a
            container.
    """
    if options.container is None:
        if options.mount:
            raise InputError("--mount is for jobs in an image: give --container as well")
        return None
    kind, _, image = options.container.partition(":")
    if kind not in get_args(Kind) or not image.strip():
        raise InputError(
            f"--container {options.container!r} must be apptainer:IMAGE or pyxis:IMAGE, such as"
            " apptainer:/shared/gencomp.sif"
        )
    mounts = [*map(str, seen), *options.mount]
    for one in mounts:
        parts = one.split(":")
        if len(parts) > 2 or "," in one or not all(part.startswith("/") for part in parts):
            raise InputError(
                f"--mount {one!r} must be an absolute PATH, or SOURCE:TARGET of two, without commas"
            )
    return Container(cast(Kind, kind), image, tuple(dict.fromkeys(mounts)))
