"""The Bjøntegaard deltas between the series of a figure of curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gencomp.evaluation.bjontegaard import (
    INTERPOLATION,
    BdQuality,
    BdRate,
    NotComparable,
    bd_quality,
    bd_rate,
    counting_points,
)
from gencomp.evaluation.feature_inputs import whole_name
from gencomp.figures.curves import Kind, Panel, Point

# Metrics that grow with quality, and metrics that fall. Errors would need another scale.
_RISING = ("psnr", "mean_psnr", "ms_ssim")
_FALLING = ("lpips", "dists", "rfid", "rkid", "rfd", "rkd")
_UNITS = {"psnr": " dB", "mean_psnr": " dB"}


@dataclass(frozen=True)
class Deltas:
    """What two series of a panel say of each other, by the rates of their whole files.

    Attributes:
        metric: the metric of the panel.
        series, other: the series, and the one that it is measured against.
        kind: the kind of the other series.
        rate: the delta rate at equal metric, and the ends of the range in the metric's unit; a
            sentence if there is none.
        value: the delta of the metric at equal rate; for a metric that falls with quality, a
            negative one means that the series is better.
    """

    metric: str
    series: str
    other: str
    kind: Kind
    rate: BdRate | str
    value: BdQuality | str


def between(panels: Sequence[Panel]) -> list[Deltas]:
    """The deltas of all measured series of panels of quality.

    A series is compared with each engineered and published codec, and with the first series.
    Series with a single point have no deltas.
    """
    return [deltas for panel in panels for deltas in _of_panel(panel)]


def remarks(panels: Sequence[Panel]) -> list[str]:
    """A line for each series with its delta rates, for the figure; published codecs are left out.

    The rates are those of whole files: all bits of joint containers against all bits of archives.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for one in between(panels):
        if isinstance(one.rate, BdRate) and one.kind != "published":
            said = f"{one.rate.percent:+.1f} % against {one.other} ({_range(one.rate, one.metric)})"
            found.setdefault((one.metric, one.series), []).append(said)
    lines = [
        f"BD-rate of {series} at equal {metric}, whole files: {', '.join(said)}"
        for (metric, series), said in found.items()
    ]
    return [*lines, "BD-rates: PCHIP of log rate over the metric"] if lines else []


def sentences(panels: Sequence[Panel]) -> list[str]:
    """A line for each pair of series with both deltas and their ranges, or with what is missing."""
    lines = []
    for one in between(panels):
        rate, value = one.rate, one.value
        if isinstance(rate, BdRate):
            rate = f"{rate.percent:+.1f} % ({_range(rate, one.metric)})"
        if isinstance(value, BdQuality):
            unit = _UNITS.get(one.metric, "")
            ends = f"{value.low:.4g} to {value.high:.4g} bpp"
            value = f"{value.difference:+.4g}{unit} ({ends})"
        lines.append(
            f"{one.series}, whole files, against {one.other}: BD-rate at equal {one.metric} {rate};"
            f" BD-{one.metric} at equal rate {value}"
        )
    if lines:
        lines.append(f"The deltas are means over the ranges in brackets, by {INTERPOLATION}.")
    return lines


def _range(rate: BdRate, metric: str) -> str:
    return f"{rate.low:.4g} to {rate.high:.4g}{_UNITS.get(metric, '')}"


def _of_panel(panel: Panel) -> Iterator[Deltas]:
    whole, _ = whole_name(panel.metric)
    if whole not in (*_RISING, *_FALLING):
        return
    sign = 1.0 if whole in _RISING else -1.0
    series: dict[str, list[Point]] = {}
    for point in panel.points:
        if point.bpp > 0:
            series.setdefault(point.series, []).append(point)
    curves = {name: _curve(points, sign) for name, points in series.items()}
    several = [name for name, curve in curves.items() if counting_points(*curve) > 1]
    own = [name for name in several if series[name][0].kind == "result"]
    others = [name for name in several if series[name][0].kind != "result"]
    for name in own:
        for other in [*own[:1], *others]:
            if other != name:
                rate, value = _deltas(curves[name], curves[other], sign)
                label = other.partition(", one archive")[0]
                yield Deltas(panel.metric, name, label, series[other][0].kind, rate, value)


def _deltas(
    own: tuple[list[float], list[float]], other: tuple[list[float], list[float]], sign: float
) -> tuple[BdRate | str, BdQuality | str]:
    rate: BdRate | str
    value: BdQuality | str
    try:
        found = bd_rate(*own, *other)
        low, high = sorted((sign * found.low, sign * found.high))
        rate = BdRate(found.percent, low, high)
    except NotComparable as error:
        rate = f"unknown, as {error}"
    try:
        better = bd_quality(*own, *other)
        value = better._replace(difference=sign * better.difference)
    except NotComparable as error:
        value = f"unknown, as {error}"
    return rate, value


def _curve(points: Sequence[Point], sign: float) -> tuple[list[float], list[float]]:
    whole = [point.bpp if point.file_bpp is None else point.file_bpp for point in points]
    return whole, [sign * point.value for point in points]
