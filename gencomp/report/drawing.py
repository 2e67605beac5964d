"""Matplotlib figures as inline SVG, which takes its colours and font from the page.

Figures are drawn in placeholder colours that become CSS variables (see `template.STYLE`), so one
drawing serves both light and dark pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gencomp.report.markup import text

INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
GROUPS = tuple(f"#0a0b{i:02x}" for i in range(1, 7))  # colours without an order, with MARKERS
RAMP = tuple(f"#0c0d{i:02x}" for i in range(1, 7))  # colours with an order
MARKERS = ("o", "s", "D", "^", "v", "P")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--card)",
    **{colour: f"var(--g{i})" for i, colour in enumerate(GROUPS, 1)},
    **{colour: f"var(--r{i})" for i, colour in enumerate(RAMP, 1)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gencomp",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "savefig.transparent": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the report's style to what is drawn and saved in this context."""
    with matplotlib.rc_context(_STYLE):
        yield


def new(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure whose size is given in inches (72 units of the drawing), and its array of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an inline SVG element.

    Args:
        figure: the figure.
        name: a name that is unique on the page; ids in the drawing start with it.
        label: the description for readers who cannot see the figure.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None  # matplotlib writes one
    width = float(box.group(1).split()[2])
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r">\s+<", "><", body)
    return (
        f'<svg role="img" aria-label="{text(label)}" viewBox="{box.group(1)}" '
        f'style="--width:{width:.0f}">{body.strip()}'
    )


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5, or at more if it is short."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    decades = np.log10(high / low)
    subs = (1, 2, 3, 4, 5, 6, 7, 8) if decades < 0.7 else (1, 2, 5) if decades < 3 else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def automatic_scale(axes: Axes, values: Sequence[float], signed_linear: float = 0.01) -> None:
    """Choose the scale of the vertical axis.

    It is logarithmic where all values are positive and span a wide range, and linear near 0 where
    some are not positive.
    """
    finite = np.asarray([v for v in values if np.isfinite(v)])
    if len(finite) == 0:
        return
    if finite.min() > 0:
        if finite.max() / finite.min() > 3:
            log_axis(axes, "y")
    elif np.abs(finite).max() > 30 * signed_linear:
        axes.set_yscale("symlog", linthresh=signed_linear, linscale=0.6)
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_minor_locator(NullLocator())


def step_axis(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.03)


def handle(colour: str, marker: str, label: str, line: Any = "-") -> Line2D:
    """An entry of a legend."""
    return Line2D(
        [], [], color=colour, marker=marker, linestyle=line, markeredgewidth=1.3, label=label
    )


def plain(value: float, _: object = None) -> str:
    return f"{value:g}".replace("-", "−")


def ramp(values: Sequence[Any]) -> dict[Any, str]:
    """A colour of the ordered palette for each value; if there are too many, neighbours share."""
    ordered = sorted(set(values), key=lambda value: (str(type(value)), value))
    if len(ordered) <= len(RAMP):
        at = (
            np.linspace(0, len(RAMP) - 1, len(ordered)).round().astype(int)
            if len(ordered) > 1
            else [2]
        )
    else:
        at = np.linspace(0, len(RAMP) - 1e-9, len(ordered)).astype(int)
    return {value: RAMP[i] for value, i in zip(ordered, at, strict=True)}
