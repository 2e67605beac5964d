"""What an evaluation is, written down once in its directory, RUN/evaluations/NAME.

The same command finds it again; another plan under the same name is refused.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

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

# What submitit and the lock may have left before there is a plan.
_LEFT_BEFORE = ("logs", "lock")


class Plan(BaseModel):
    """An evaluation. Everything but where things lie is its identity.

    Attributes:
        FILE: its name in the directory.
        LOCATIONS: fields that are no part of the identity.
        COMMAND: what makes one, for messages.
        checkpoint: which checkpoint of the run is measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    FILE: ClassVar[str]
    LOCATIONS: ClassVar[tuple[str, ...]]
    COMMAND: ClassVar[str]

    settings: Any
    checkpoint: Choice = LAST

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the identity, 32 hexadecimal digits."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def identity(self) -> dict[str, Any]:
        """Flat; settings stand beside the rest."""
        values = self.model_dump(mode="json", exclude={*self.LOCATIONS})
        return {**values.pop("settings"), **values}

    def differences(self, other: Self) -> list[str]:
        """What `other` would change, in words."""
        old, new = ({"checkpoint": LAST, **plan.identity()} for plan in (self, other))
        return [
            f"{k} was {_short(old[k])}, would be {_short(new[k])}" for k in old if old[k] != new[k]
        ]

    @property
    def named_checkpoint(self) -> dict[str, Choice]:
        """The entry of a protocol that names the checkpoint; the last one goes without saying."""
        return {} if self.checkpoint == LAST else {"checkpoint": self.checkpoint}

    @model_serializer(mode="wrap")
    def _serialise(self, all_fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans that were written before there was a choice stay what they are.
        values: dict[str, Any] = all_fields(self)
        values.pop("checkpoint", None)
        return values | self.named_checkpoint

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The plan of an evaluation that exists.

        Raises:
            InputError: there is none in that directory, or it cannot be read.
        """
        try:
            text = (directory / cls.FILE).read_text()
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
    """Where an evaluation of a run belongs.

    Raises:
        InputError: the name is more than the name of a directory.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise InputError(f"--name {name!r} must be one plain directory name")
    return (run.path / "evaluations" / name).resolve()


def find(run: Run, name: str, plan: Plan) -> Path:
    """The directory of an evaluation, whether it is there already or not; writes nothing.

    Raises:
        InputError: the directory holds another plan, or something else.
    """
    return find_at(directory(run, name), plan)


def find_at(path: Path, plan: Plan, option: str = "--name") -> Path:
    """A directory if the evaluation may have it; writes nothing.

    Args:
        path: whole.
        plan: of the evaluation.
        option: by which the user chose the directory, for messages.

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


def enter(run: Run, name: str, plan: Plan) -> Path:
    """Create the directory of an evaluation, or find it again.

    Raises:
        InputError: as `find`; nothing is changed.
    """
    return enter_at(find(run, name, plan), plan)


def enter_at(path: Path, plan: Plan) -> Path:
    """Create an evaluation in a directory that `find_at` has found to be free or its own."""
    if not (path / plan.FILE).exists() or plan.read(path) != plan:
        # Things may lie elsewhere than last time.
        write_text(path / plan.FILE, plan.model_dump_json(indent=1) + "\n")
    return path


def absolute(location: str) -> str:
    """A shard set's directory from wherever a job starts; a URI stays as it is."""
    return location if "://" in location else str(Path(location).resolve())


def spaced(length: int, count: int, split: str) -> tuple[int, ...]:
    """`count` rows evenly spaced over a split: neighbours may be crops of one photograph.

    Raises:
        InputError: the split has fewer.
    """
    if count > length:
        raise InputError(f"split {split!r} has {length} images, fewer than the {count} asked for")
    return tuple(i * length // count for i in range(count))


def _is_content(name: str) -> bool:
    return name.partition(".")[0] not in ("", *_LEFT_BEFORE)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
