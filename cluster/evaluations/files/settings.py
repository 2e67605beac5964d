"""What the user chooses about measuring files, and what else the numbers depend on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Choices(BaseModel):
    """What the user chooses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = Field("test", description="Split to measure on.")
    block: int = Field(16, ge=1, description="Pictures of a part; what is killed loses a part.")
    seed: int = Field(7, ge=0, le=2**63 - 1, description="Seed of the intervals.")


class Settings(Choices):
    """Everything that the numbers depend on."""

    images: int = Field(ge=1, description="Pictures, evenly spaced over the split.")
    threads: int = Field(ge=1, le=1024, description="Threads of a process: they shape seconds.")
    device: Literal["cpu"] = Field("cpu", description="Where codecs run.")


CHOICES = Choices()
