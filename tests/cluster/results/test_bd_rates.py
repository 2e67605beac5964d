"""The lines of delta rates under a figure of curves: whole files, at equal quality."""

from __future__ import annotations

import pytest

from cluster.results.bd_rates import remarks
from gencomp.figures.curves import Panel, Point


def point(series: str, bpp: float, value: float, whole: float | None = None) -> Point:
    engineered = series.startswith("JPEG")
    return Point(series, bpp, value, None, series, {}, reference=engineered, file_bpp=whole)


OURS = [point("ours", 0.05, 28, 0.1), point("ours", 0.1, 30, 0.2), point("ours", 0.2, 32, 0.4)]
JPEG = [point("JPEG, one archive of files", 0.2 * 2**i, 28 + 2 * i) for i in range(3)]


def test_whole_files_are_compared() -> None:
    assert remarks([Panel("psnr", [*OURS, *JPEG])]) == [
        "BD-rate of ours, whole files: -50.0 % JPEG (28 to 32 dB)"
    ]


@pytest.mark.parametrize(
    "panel",
    [
        Panel("mse", [*OURS, *JPEG]),
        Panel("psnr", OURS),
        Panel("psnr", [OURS[0], *JPEG]),
        Panel("psnr", [*OURS, point("JPEG, one archive of files", 1, 40)]),
    ],
)
def test_nothing_is_said_without_two_curves(panel: Panel) -> None:
    assert remarks([panel]) == []
