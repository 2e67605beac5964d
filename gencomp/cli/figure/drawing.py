"""The file that a figure is written to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gencomp.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gencomp.figures.style import Format


@dataclass(frozen=True)
class FigureFile:
    """The file that the figure is written to.

    Attributes:
        out: File to write, .png (exact pixels) or .pdf.
        overwrite: Replace the file if it exists.
    """

    out: Path
    overwrite: bool = False

    def check(self) -> Format:
        """The format that the ending of the file asks for.

        Raises:
            InputError: The ending is neither .png nor .pdf, or the file must not be written.
        """
        out = self.out
        match out.suffix.lower():
            case ".png":
                format: Format = "png"
            case ".pdf":
                format = "pdf"
            case _:
                raise InputError(f"--out {out} must end in .png or .pdf")
        if out.is_dir() or (out.exists() and not self.overwrite):
            raise InputError(f"{out} exists; add --overwrite to replace it")
        if not out.parent.is_dir():
            raise InputError(f"the directory {out.parent} does not exist")
        return format

    def write(self, figure: Figure) -> None:
        """Encode a figure of `gencomp.figures` into the file."""
        from cluster.files import write_bytes
        from gencomp.figures.style import encode

        write_bytes(self.out, encode(figure, self.check()))
        print(f"wrote {self.out}")
