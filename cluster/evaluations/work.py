"""Work that can be saved, stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# A function that makes the part of a block in one go. It takes the number of the block, and a
# function to call with the number of items that are done.
MakePart = Callable[[int, Callable[[int], None]], None]


class Work(Protocol):
    """A piece of an evaluation that advances step by step and can resume from its file."""

    @property
    def done(self) -> bool: ...

    @property
    def steps(self) -> int: ...

    @property
    def ess(self) -> float | None: ...

    def advance(self) -> None: ...

    def save(self) -> None: ...

    def finish(self) -> None: ...
