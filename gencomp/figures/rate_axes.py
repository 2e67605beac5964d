"""The axes of rate and distortion, with second axes that show the values in other units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from gencomp.figures.style import log_axis, plain
from gencomp.rate_distortion.units import nats_to_bpp

DistortionName = Literal["squared_error", "gaussian_likelihood", "features"]


@dataclass(frozen=True)
class Units:
    """The units of the axes.

    Attributes:
        distortion: the distortion that is summed over an image's values.
        values: the number of values of an image.
        pixels: height times width, for bits per pixel.
        value_range: the range of the values; None where the distortion has another scale.
    """

    distortion: DistortionName
    values: int
    pixels: int
    value_range: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The label of the axis of distortions."""
        if self.distortion == "gaussian_likelihood":
            return "distortion: −log p(x|z), nats per image"
        if self.distortion == "features":
            return "distortion: squared distance of features"
        return f"distortion: squared error, summed over {self.values:,} values{self._on}"

    @property
    def label_per_value(self) -> str:
        return f"mean squared error per value{self._on}"

    @property
    def _on(self) -> str:
        if self.value_range is None:
            return ""
        low, high = self.value_range
        return f" on [{plain(low)}, {plain(high)}]"


def label_axes(axes: Axes, units: Units) -> None:
    """Label the axes in nats and summed distortion, and add exact second axes.

    Bits per pixel stand at the right, and the mean squared error per value above.
    """
    axes.margins(x=0.03, y=0.05)
    axes.set_xlabel(units.label)
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.set_ylabel("rate, nats per image")
    _log_axis(axes)
    right = axes.twinx()
    right.set_ylim(*(nats_to_bpp(y, units.pixels) for y in axes.get_ylim()))
    _log_axis(right)
    right.set_ylabel("rate, bits per pixel")
    _only_spine(right, "right")
    if units.distortion == "squared_error":
        top = axes.twiny()
        top.set_xlim(*(x / units.values for x in axes.get_xlim()))
        top.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        top.xaxis.set_major_formatter(FuncFormatter(plain))
        top.set_xlabel(units.label_per_value)
        _only_spine(top, "top")


def _log_axis(axes: Axes) -> None:
    """Make an axis logarithmic with minor ticks, since curves are read off between the numbers."""
    log_axis(axes)
    axes.yaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))


def _only_spine(axes: Axes, which: str) -> None:
    axes.grid(False)
    for name, spine in axes.spines.items():
        spine.set_visible(name == which)
