"""The Bjøntegaard delta rates of the series of a figure against its engineered codecs."""

from __future__ import annotations

from collections.abc import Sequence

from gencomp.evaluation.bd_rate import bd_rate
from gencomp.figures.curves import Panel, Point

# Metrics that grow with quality, with their units; those of errors would need another scale.
_QUALITIES = {"psnr": "dB", "ms_ssim": "MS-SSIM"}


def remarks(panels: Sequence[Panel]) -> list[str]:
    """A line for each series of a panel of quality, with its delta rate against each codec.

    The rates are those of whole files: all bits of joint containers against all bits of archives.
    """
    lines = []
    for panel in panels:
        if panel.metric in _QUALITIES:
            lines += _of_panel(panel, _QUALITIES[panel.metric])
    return lines


def _of_panel(panel: Panel, unit: str) -> list[str]:
    series: dict[str, list[Point]] = {}
    for point in panel.points:
        series.setdefault(point.series, []).append(point)
    lines = []
    for name, points in series.items():
        if points[0].reference:
            continue
        found = []
        for other, others in series.items():
            if others[0].reference and (delta := bd_rate(*_curve(points), *_curve(others))):
                between = f"{delta.low:.4g} to {delta.high:.4g} {unit}"
                found.append(f"{delta.percent:+.1f} % {other.partition(',')[0]} ({between})")
        if found:
            lines.append(f"BD-rate of {name}, whole files: {', '.join(found)}")
    return lines


def _curve(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    whole = [point.bpp if point.file_bpp is None else point.file_bpp for point in points]
    return whole, [point.value for point in points]
