"""The lines of deltas of a figure of curves: whole files, at equal metric and at equal rate."""

from __future__ import annotations

import pytest

from cluster.results.bjontegaard import remarks, sentences
from gencomp.figures.curves import Kind, Panel, Point

JPEG_NAME = "JPEG, one archive of files"


def point(
    series: str, bpp: float, value: float, whole: float | None = None, kind: Kind = "result"
) -> Point:
    return Point(series, bpp, value, None, series, {}, kind, file_bpp=whole)


OURS = [point("ours", 0.05, 28, 0.1), point("ours", 0.1, 30, 0.2), point("ours", 0.2, 32, 0.4)]
JPEG = [point(JPEG_NAME, 0.2 * 2**i, 28 + 2 * i, kind="classical") for i in range(3)]
MEANS = (
    "The deltas are means over the ranges in brackets, by PCHIP of log rate over the metric, and of"
    " the metric over log rate."
)


def test_whole_files_are_compared() -> None:
    panel = Panel("psnr", [*OURS, *JPEG])
    assert remarks([panel]) == [
        "BD-rate of ours at equal psnr, whole files: -50.0 % against JPEG (28 to 32 dB)",
        "BD-rates: PCHIP of log rate over the metric",
    ]
    assert sentences([panel]) == [
        "ours, whole files, against JPEG: BD-rate at equal psnr -50.0 % (28 to 32 dB);"
        " BD-psnr at equal rate +2 dB (0.2 to 0.4 bpp)",
        MEANS,
    ]


def test_series_are_compared_with_the_first_one_by_a_metric_that_falls() -> None:
    """LPIPS falls by 0.1 with each doubling; half the rate is 0.1 less at equal rate."""
    ours = [point("ours", 0.1 * 2**i, 0.5 - 0.1 * i) for i in range(3)]
    mine = [point("mine", 0.05 * 2**i, 0.5 - 0.1 * i) for i in range(3)]
    zero = [point("ours", 0.0, 0.9)]
    line, _ = sentences([Panel("lpips", [*ours, *mine, *zero])])
    assert line == (
        "mine, whole files, against ours: BD-rate at equal lpips -50.0 % (0.3 to 0.5);"
        " BD-lpips at equal rate -0.1 (0.1 to 0.2 bpp)"
    )


def test_published_curves_are_compared_in_the_output_alone() -> None:
    vtm = [point("VTM", 0.2 * 2**i, 28 + 2 * i, kind="published") for i in range(3)]
    panel = Panel("mean_psnr", [*OURS, *vtm])
    assert remarks([panel]) == []
    assert sentences([panel])[0].startswith("ours, whole files, against VTM: BD-rate at equal mean")


def test_curves_without_a_common_range_have_a_sentence_instead() -> None:
    far = [point(JPEG_NAME, 10 * 2**i, 50 + 2 * i, kind="classical") for i in range(2)]
    panel = Panel("psnr", [*OURS, *far])
    assert remarks([panel]) == []
    assert sentences([panel])[0] == (
        "ours, whole files, against JPEG: BD-rate at equal psnr unknown, as the curves have no"
        " qualities in common; BD-psnr at equal rate unknown, as the curves have no rates in common"
    )


@pytest.mark.parametrize(
    "panel",
    [
        Panel("mse", [*OURS, *JPEG]),
        Panel("pv", [*OURS, *JPEG]),
        Panel("psnr", OURS),
        Panel("psnr", [OURS[0], *JPEG]),
        Panel("psnr", [*OURS, point(JPEG_NAME, 1, 40, kind="classical")]),
    ],
)
def test_nothing_is_said_without_two_curves(panel: Panel) -> None:
    assert remarks([panel]) == sentences([panel]) == []
