"""The colours, type and file formats that all figures share.

The colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart.
Each colour has its own marker, so that figures can be read in grey print.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from gencomp.errors import InputError

Format = Literal["png", "pdf"]

INK, MUTED, GRID = "#1b1f24", "#667080", "#dfe2e6"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (8, 3)))
DOTS_PER_INCH = 200
_BESIDE = 7  # the distance, in points, from a data point to its label
_SHIFTS = sorted(range(-60, 61, 5), key=abs)  # the points by which a label may be moved up or down
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")  # the alignment of the label
_CHOICES = [(side, shift) for shift in _SHIFTS for side in _SIDES]

_STYLE: Any = {
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 10,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "pdf.fonttype": 42,
    "svg.hashsalt": "gencomp",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of gencomp's figures to what is drawn and encoded in this context."""
    with matplotlib.rc_context(_STYLE):
        yield


def encode(figure: Figure, format: Format, dots_per_inch: float | None = None) -> bytes:
    """The bytes of the figure's file; the same figure gives the same bytes.

    Args:
        figure: a figure that this package has drawn.
        format: png or pdf.
        dots_per_inch: the resolution of a PNG; by default that of the figure.
    """
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if format == "pdf" else {"Software": None}
    with style():
        figure.savefig(buffer, format=format, dpi=dots_per_inch or figure.dpi, metadata=metadata)
    return buffer.getvalue()


def titled(width: float, height: float, title: str, remarks: Sequence[str]) -> Figure:
    """An empty figure with a heading: a bold title, and remarks under it in grey.

    Args:
        width: the width of the figure in inches.
        height: the height of the figure below the heading in inches.
        title: the title, one line.
        remarks: the lines under the title.
    """
    heading = 0.36 + 0.165 * len(remarks)
    height += heading
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - heading / height), wspace=0.05, hspace=0.06)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout=layout)
    figure.suptitle(title, x=0.1 / width, y=1 - 0.08 / height, ha="left", va="top")
    for number, line in enumerate(remarks):
        y = 1 - (0.29 + 0.165 * number) / height
        figure.text(0.1 / width, y, line, ha="left", va="top", fontsize=8, color=MUTED)
    return figure


def log_axis(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2 and 5.

    A short axis has more numbers, and a long one only powers of ten.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ratio = high / low
    subs = tuple(range(1, 10)) if ratio < 4 else (1, 2, 5) if ratio < 1000 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def line_looks(names: Sequence[str], what: str) -> list[dict[str, Any]]:
    """The colour and dashes of each line.

    The first lines are solid, one in each colour; the colours then repeat with each kind of dashes.

    Args:
        names: the names of the lines.
        what: the plural noun for the lines in the message, such as "curves".

    Raises:
        InputError: more lines than can be told apart.
    """
    kinds = ("-", *DASHES)
    if len(names) > (most := len(COLOURS) * len(kinds)):
        raise InputError(
            f"{len(names)} {what} are too many for one figure, which tells {most} apart"
        )
    return [
        {"color": COLOURS[i % len(COLOURS)], "linestyle": kinds[i // len(COLOURS)]}
        for i in range(len(names))
    ]


def beside(axes: Axes, text: str, place: tuple[float, float], colour: str) -> Annotation:
    """Write a small label at the right of a point, outlined so that it can be read over lines."""
    return axes.annotate(
        text,
        place,
        xytext=(_BESIDE, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=colour,
        path_effects=[withStroke(linewidth=2.2, foreground="white")],
        zorder=6,
    )


def spread(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Move the labels that `beside` has written until none covers another label or a point.

    The labels are placed from the top down, each at the right or the left of its point, and moved
    up or down as little as possible.
    """
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()
    pixels = axes.figure.dpi / 72
    placed = [_around(axes, label.xy, 4 * pixels) for label in labels]
    for label in sorted(labels, key=lambda one: -one.get_window_extent().y1):
        box = label.get_window_extent()
        for side, shift in _CHOICES:
            across = 0 if side == "left" else -box.width - 2 * _BESIDE * pixels
            moved = box.translated(across, shift * pixels)
            inside = axes.bbox.x0 < moved.x0 and moved.x1 < axes.bbox.x1
            if inside and not any(moved.overlaps(other) for other in placed):
                break
        label.set_horizontalalignment(side)
        label.xyann = (_BESIDE if side == "left" else -_BESIDE, shift)
        placed.append(moved)


def _around(axes: Axes, place: tuple[float, float], reach: float) -> Bbox:
    x, y = axes.transData.transform(place)
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def plain(value: float, _: object = None) -> str:
    """A number with four digits, without an exponent where possible, and with a true minus sign."""
    return f"{value:.4g}".replace("-", "−")
