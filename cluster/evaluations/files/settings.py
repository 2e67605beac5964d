"""What the user chooses about measuring files. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cluster.evaluations.options import Options, Threads

Lossless = Literal["png", "webp", "jpeg2000", "jpegxl"]
ImageCount = Annotated[int, Field(ge=1)]


class FileOptions(Options):
    """The options that say what is measured."""

    split: str = Field("test", description="Split to measure on.")
    images: ImageCount | None = Field(
        None, description="Number of pictures, evenly spaced over the split; by default all."
    )
    block: int = Field(
        16, ge=1, description="Pictures of a part; a process that is killed loses one part at most."
    )
    lossless: tuple[Lossless, ...] = Field(
        (),
        description="Engineered lossless codecs whose files of the same pictures are measured"
        " beside: alone, and in one archive for each joint container.",
    )
    joint: int = Field(
        1000,
        ge=1,
        description="Most pictures of a joint container, which is one part: a process that is"
        " killed loses it whole.",
    )


class Settings(FileOptions):
    """The options with everything filled in, and everything else that the numbers depend on."""

    images: ImageCount
    threads: Threads
    device: Literal["cpu"] = "cpu"
