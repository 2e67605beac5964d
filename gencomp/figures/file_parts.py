"""The figure of what files are made of: the rate of each part, stacked to the rate of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures.style import COLOURS, INK, MUTED, style, titled

CONTAINER = "container"
# What papers call the parts of `Codec.parts`, in this order; other parts keep their names.
_NAMES = {
    "latents": "latents",
    "labels": "label map",
    "instances": "instance map",
    "mask": "mask of kept regions",
    CONTAINER: "container",
}
_WIDTH, _ROW, _AROUND = 7.2, 0.32, 1.1  # inches


@dataclass(frozen=True)
class FileParts:
    """The mean rate of files of one picture, part by part.

    Attributes:
        name: what tells these files from others.
        bpp: the bits per pixel of each part, the container's under `CONTAINER`; their sum is that
            of the file.
        file: the bits per pixel of the file.
        images: the number of pictures.
    """

    name: str
    bpp: Mapping[str, float]
    file: Measured
    images: int


def parts_of(files: Sequence[FileParts]) -> dict[str, str]:
    """The parts that some files have, each with what papers call it, in the order of the bars."""
    found = dict.fromkeys(part for one in files for part in one.bpp)
    order = [*(part for part in _NAMES if part in found), *(p for p in found if p not in _NAMES)]
    if CONTAINER in order:
        order.append(order.pop(order.index(CONTAINER)))
    return {part: _NAMES.get(part, part) for part in order}


def draw(files: Sequence[FileParts], title: str, remarks: Sequence[str]) -> Figure:
    """Draw a bar for each kind of files, with the 95 % interval of its whole rate.

    Raises:
        InputError: there are more parts than colours.
    """
    parts = parts_of(files)
    if len(parts) > len(COLOURS) + 1:
        raise InputError(f"{len(parts)} parts are too many for one figure")
    colours = dict(zip((part for part in parts if part != CONTAINER), COLOURS, strict=False))
    with style():
        figure = titled(_WIDTH, _AROUND + _ROW * len(files), title, remarks)
        axes = figure.subplots()
        stack(axes, files, colours | {CONTAINER: MUTED}, INK)
        figure.legend(loc="outside lower center", ncols=min(len(parts), 5))
    return figure


def stack(axes: Axes, files: Sequence[FileParts], colours: Mapping[str, str], ink: str) -> None:
    """Draw the bars into axes, the first kind of files at the top.

    Args:
        axes: the axes.
        files: the files.
        colours: the colour of each part.
        ink: the colour of the intervals.
    """
    places = range(len(files))
    ends = [0.0] * len(files)
    for part, name in parts_of(files).items():
        widths = [one.bpp.get(part, 0.0) for one in files]
        axes.barh(places, widths, 0.62, left=ends, color=colours[part], label=name)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for place, one in zip(places, files, strict=True):
        if one.file.interval is not None:
            axes.plot(one.file.interval, [place] * 2, color=ink, linewidth=0.9)
    axes.set_yticks(places, [one.name for one in files])
    axes.set_ylim(len(files) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("bits per pixel")
