"""Errors that end training however often workers are started again: bad input, or a full disk.

A worker writes such an error to a file, for its driver and for the workers that are started after
it. The file takes its room on the disk beforehand and is overwritten in place, because the disk may
be full by then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cluster.checkpoints.writer import SavingError, has_no_room
from cluster.files import write_bytes
from gencomp.errors import InputError

_BYTES, _LONGEST_SENTENCE = 4096, 800


class Refusal(NamedTuple):
    """The sentence with which workers refuse to go on.

    Attributes:
        input: whether the input was wrong; otherwise a disk was.
        sentence: the sentence, which says what was wrong and how to mend it.
    """

    input: bool
    sentence: str

    def error(self) -> InputError | SavingError:
        return (InputError if self.input else SavingError)(self.sentence)


def refusal(error: Exception, run: Path) -> Refusal | None:
    """The refusal that an error of a worker calls for; None if later workers may succeed."""
    if isinstance(error, OSError) and has_no_room(error) and not isinstance(error, SavingError):
        return Refusal(
            False,
            f"{error.filename or run} could not be written: {error.strerror}; make room, and the"
            " same command goes on from the newest checkpoint",
        )
    if not hasattr(error, "exit_code"):
        return None
    return Refusal(isinstance(error, ValueError), str(error))


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of the body are raised; those that end training are said in a reserved file before.

    Args:
        path: the file, in the run's directory.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if (what := refusal(error, path.parent)) is not None:
            with suppress(OSError):  # the run may have become read-only
                say(path, what)
        raise


def reserve(path: Path) -> None:
    """Take room on the disk for a refusal, and erase an earlier one.

    Args:
        path: the file.

    Raises:
        SavingError: the file cannot be written.
    """
    try:
        write_bytes(path, b" " * _BYTES)
    except OSError as error:
        raise SavingError(
            f"{path.parent} cannot be written: {error.strerror or error}; mend that, and the same"
            " command goes on"
        ) from error


def say(path: Path, what: Refusal) -> None:
    """Write a refusal into the file that `reserve` has made.

    Args:
        path: the file.
        what: the refusal.

    Raises:
        OSError: the file cannot be written after all.
    """
    short = what._replace(sentence=what.sentence[:_LONGEST_SENTENCE])
    text = json.dumps(short._asdict(), ensure_ascii=False)
    # One call writes all of it, so that no process reads a part of it.
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode().ljust(_BYTES))
        os.fsync(file)
    finally:
        os.close(file)


def said(path: Path) -> Refusal | None:
    """The refusal in the file, if a worker has written one."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return Refusal(**json.loads(text)) if text else None
