"""What the options of all kinds of evaluations have in common. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Threads = Annotated[
    int,
    Field(
        ge=1,
        le=1024,
        description="threads of a process; their number changes the last bits of results",
    ),
]
Device = Literal["cpu", "cuda"]


class Options(BaseModel):
    """A group of command-line options.

    Each option is declared once: its type, its default, its range and the sentence that --help
    prints. The settings of an evaluation consist of such groups, with every default filled in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
