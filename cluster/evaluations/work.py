"""Work that can be saved, left and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# Makes the part of a block in one go, and calls the function given with the items that are done.
MakePart = Callable[[int, Callable[[int], None]], None]


class Work(Protocol):
    """A piece of an evaluation that advances step by step and goes on from its file."""

    @property
    def done(self) -> bool: ...

    @property
    def steps(self) -> int: ...

    @property
    def ess(self) -> float | None: ...

    def advance(self) -> None: ...

    def save(self) -> None: ...

    def finish(self) -> None: ...
