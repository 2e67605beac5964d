"""Why workers will not go on, however often they are started again: bad input, or no room.

They say it in a file, for their driver and for those that are started after them. Its room is taken
beforehand and it is written over in place: by then the disk may be full.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from cluster.checkpoints.writer import SavingError, has_no_room
from cluster.files import write_bytes
from gencomp.errors import InputError

_BYTES, _LONGEST_SENTENCE = 4096, 800


class Refusal(NamedTuple):
    """One sentence.

    Attributes:
        input: whether something was wrong with the input, else with a disk.
    """

    input: bool
    sentence: str

    def error(self) -> InputError | SavingError:
        return (InputError if self.input else SavingError)(self.sentence)


def refusal(error: Exception, run: Path) -> Refusal | None:
    """What an error of a worker means for those after it; None if they may have more luck."""
    if isinstance(error, OSError) and has_no_room(error) and not isinstance(error, SavingError):
        return Refusal(
            False,
            f"{error.filename or run} could not be written: {error.strerror}; make room, and the"
            " same command goes on from the newest checkpoint",
        )
    if not hasattr(error, "exit_code"):
        return None
    return Refusal(isinstance(error, ValueError), str(error))


def reserve(path: Path) -> None:
    """Take the room, and forget what was said before.

    Raises:
        SavingError: there is none.
    """
    try:
        write_bytes(path, b" " * _BYTES)
    except OSError as error:
        raise SavingError(
            f"{path.parent} cannot be written: {error.strerror or error}; mend that, and the same"
            " command goes on"
        ) from error


def say(path: Path, what: Refusal) -> None:
    """Write it where room was reserved.

    Raises:
        OSError: even that is not possible.
    """
    short = what._replace(sentence=what.sentence[:_LONGEST_SENTENCE])
    text = json.dumps(short._asdict(), ensure_ascii=False)
    # One call, so that nobody reads a part of it.
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode().ljust(_BYTES))
        os.fsync(file)
    finally:
        os.close(file)


def said(path: Path) -> Refusal | None:
    """What was said, if anything."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return Refusal(**json.loads(text)) if text else None
