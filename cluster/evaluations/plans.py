"""The plan of an evaluation, written once into its directory, RUN/evaluations/NAME.

The same command finds the evaluation again; another plan under the same name is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Sized
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from cluster.checkpoints.store import LAST, Choice
from cluster.files import write_text
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.validation import sentence

# The files that submitit and the lock may have left in the directory before there is a plan.
_LEFT_BEFORE = ("logs", "lock")


class Block(Protocol):
    """A unit of work, with the items that it is made of."""

    @property
    def items(self) -> Sized: ...


class Plan(BaseModel):
    """The plan of an evaluation.

    Everything in it is its identity, but places of files and what follows from the rest.

    Attributes:
        FILE: the name of the plan's file in the directory.
        LOCATIONS: the fields that hold places of files, and are no part of the identity.
        DERIVED: the fields that follow from the others, and are no part of the identity either.
        COMMAND: the command that makes such an evaluation, for messages.
        BEFORE: the fields and settings whose values are no part of the identity as long as they are
            these.
        checkpoint: the choice of the run's checkpoint that is measured.
        written: the values of how the run's codec writes the files that are measured, by dotted
            key; none for a method without such values, and where no files are measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    FILE: ClassVar[str]
    LOCATIONS: ClassVar[tuple[str, ...]]
    DERIVED: ClassVar[tuple[str, ...]] = ()
    COMMAND: ClassVar[str]
    # Plans that were written before these choices existed have these values, and keep their hash.
    BEFORE: ClassVar[dict[str, Any]] = {"checkpoint": LAST, "written": {}}

    if TYPE_CHECKING:  # each kind declares its own settings, at their place among its fields
        settings: Any
    checkpoint: Choice = LAST
    written: dict[str, Any] = {}

    @property
    def blocks(self) -> Sequence[Block]:
        """All units of work."""
        raise NotImplementedError

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the identity, 32 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def identity(self) -> dict[str, Any]:
        """The identity as a flat dictionary, in which the settings stand beside the rest."""
        values = self.model_dump(mode="json", exclude={*self.LOCATIONS, *self.DERIVED})
        flat = {**values.pop("settings"), **values}
        return {k: v for k, v in flat.items() if k not in self.BEFORE or v != self.BEFORE[k]}

    def differences(self, other: Self) -> list[str]:
        """The changes that `other` would make to this plan, in words."""
        old, new = ({**self.BEFORE, **plan.identity()} for plan in (self, other))
        return [
            f"{k} was {_short(old[k])}, would be {_short(new[k])}" for k in old if old[k] != new[k]
        ]

    @property
    def named_checkpoint(self) -> dict[str, Choice]:
        """The entry of a protocol that names the checkpoint; it is empty for the last one."""
        return {} if self.checkpoint == LAST else {"checkpoint": self.checkpoint}

    @model_serializer(mode="wrap")
    def _serialise(self, all_fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans that were written before these could be chosen keep their identity.
        values: dict[str, Any] = all_fields(self)
        for name in ("checkpoint", "written"):
            if values.get(name) == self.BEFORE[name]:
                del values[name]
        return values

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The plan of an evaluation that exists.

        Raises:
            InputError: the directory holds no such plan, or the plan cannot be read.
        """
        try:
            text = (directory / cls.FILE).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{directory} is not an evaluation directory (it has no {cls.FILE}); "
                f"`{cls.COMMAND}` makes one"
            ) from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{directory / cls.FILE} cannot be read: {sentence(error, cls)}"
            ) from None


def directory(run: Run, name: str) -> Path:
    """The directory of an evaluation of a run.

    Raises:
        InputError: the name is not one plain directory name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"--name {name!r} must be one plain directory name")
    return (run.path / "evaluations" / name).resolve()


def find(run: Run, name: str, plan: Plan) -> Path:
    """The directory of an evaluation, which need not exist yet. Nothing is written.

    Raises:
        InputError: the directory holds another plan, or something else.
    """
    return find_at(directory(run, name), plan)


def find_at(path: Path, plan: Plan, option: str = "--name") -> Path:
    """The directory at a path, if the evaluation may lie there. Nothing is written.

    Args:
        path: the absolute path of the directory.
        plan: the evaluation's plan.
        option: the option by which the user chose the directory, for messages.

    Raises:
        InputError: the directory holds another plan, or something else.
    """
    if (path / plan.FILE).exists():
        if differences := plan.read(path).differences(plan):
            raise InputError(
                f"{path} holds another evaluation: {'; '.join(differences)} (choose another "
                f"{option}, or the settings that it has)"
            )
    elif path.exists() and not (
        path.is_dir() and not any(_is_content(entry.name) for entry in path.iterdir())
    ):
        raise InputError(
            f"{path} exists, is not empty and is no evaluation; choose another {option}"
        )
    return path


def enter_at(path: Path, plan: Plan) -> Path:
    """Create an evaluation in a directory that `find_at` has found free, or find it there."""
    if not (path / plan.FILE).exists() or plan.read(path) != plan:
        # The plan is written again if its files have moved since last time.
        write_text(path / plan.FILE, plan.model_dump_json(indent=1) + "\n")
    return path


def absolute(location: str) -> str:
    """The absolute path of a shard set, which a job finds from anywhere; a URI stays as it is."""
    return location if "://" in location else str(Path(location).resolve())


def spaced(length: int, count: int, split: str) -> tuple[int, ...]:
    """The numbers of `count` rows, evenly spaced over a split.

    Neighbours may be crops of one photograph.

    Raises:
        InputError: the split has fewer images.
    """
    if count > length:
        raise InputError(f"split {split!r} has {length} images, fewer than the {count} asked for")
    return tuple(i * length // count for i in range(count))


def _is_content(name: str) -> bool:
    return name.partition(".")[0] not in ("", *_LEFT_BEFORE)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
