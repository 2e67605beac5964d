"""The figure of what relative entropy coding costs: rate, faithfulness and time of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gencomp.coding.relative_entropy.overhead import Overhead
from gencomp.errors import InputError
from gencomp.figures.style import COLOURS, INK, MARKERS, log_axis, style, titled

# What a panel shows of a measurement, its title, and what a sample of the target has.
_PANELS: tuple[tuple[Callable[[Overhead], float], str, float | None], ...] = (
    (lambda one: one.reached, "ln q/p over KL", 1.0),
    (lambda one: one.variance, "variance of residuals", 1.0),
    (lambda one: one.projection, "residual along the mean", 0.0),
    (lambda one: one.encode_ms, "CPU time to encode, ms a block", None),
)


def draw(measured: Mapping[str, Sequence[Overhead]], title: str, remarks: Sequence[str]) -> Figure:
    """Draw measurements against the rate: a row of panels for each kind of blocks.

    A line joins the settings that differ in their oversampling alone.

    Args:
        measured: the measurements of each kind of blocks, all with the same settings.
        title: the title of the figure.
        remarks: the lines under the title.

    Raises:
        InputError: there are more kinds of settings than colours.
    """
    kinds = list(dict.fromkeys(_kind(one) for found in measured.values() for one in found))
    if len(kinds) > len(COLOURS):
        raise InputError(
            f"{len(kinds)} pairs of a piece's nats and of beams are too many for one figure, which"
            f" tells {len(COLOURS)} apart"
        )
    with style():
        figure = titled(10.4, 2.4 * len(measured) + 0.3, title, remarks)
        axes_RC = figure.subplots(len(measured), len(_PANELS), squeeze=False)
        for (name, found), axes_C in zip(measured.items(), axes_RC, strict=True):
            for (value, what, ideal), axes in zip(_PANELS, axes_C, strict=True):
                _panel(axes, found, kinds, value)
                axes.set_title(what)
                if ideal is None:
                    log_axis(axes)
                else:
                    axes.axhline(ideal, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            axes_C[0].set_ylabel(name)
        for axes in axes_RC[-1]:
            axes.set_xlabel("indices over KL")
        handles, names = axes_RC[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _panel(
    axes: Axes,
    found: Sequence[Overhead],
    kinds: Sequence[tuple[float, int]],
    value: Callable[[Overhead], float],
) -> None:
    for number, (omega, beams) in enumerate(kinds):
        own = sorted(
            (one for one in found if _kind(one) == (omega, beams)), key=lambda one: one.index_rate
        )
        axes.plot(
            [one.index_rate for one in own],
            [value(one) for one in own],
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=4.5,
            label=f"Ω {omega:g}, B {beams}",
        )
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))


def _kind(one: Overhead) -> tuple[float, int]:
    return one.settings.omega, one.settings.beams
