"""Axes of metrics against the rate, for several results that were measured by equal protocols."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cluster.results import classical, file_rates
from cluster.results.metrics import RunResult
from gencomp.coding.classical import ClassicalCodec
from gencomp.errors import InputError
from gencomp.evaluation.feature_inputs import whole_name
from gencomp.figures.curves import Panel, Point, require_one_protocol

# The metrics of features, with the word by which `gencomp evaluate` measures each.
_OF_FEATURES = {"rfid": "fid", "rkid": "kid", "rfd": "fid", "rkd": "kid"}
_WORDS = {"mean_psnr": "psnr", **_OF_FEATURES}
# Distances of features of patches carry their side: rfid_256.
METRICS = ("mse", "psnr", "mean_psnr", "ms_ssim", "lpips", "dists", "mmd", "pv", *_OF_FEATURES)
_WITH_ZERO_RATE = ("mse", "pv", *_OF_FEATURES)


def parse(text: str) -> list[str]:
    """The metrics that a text such as `mse,psnr` names.

    Raises:
        InputError: The text names something that is no metric with an axis, or nothing at all.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    for name in names:
        whole, side = whole_name(name)
        if name not in METRICS and not (side and whole in _OF_FEATURES):
            raise InputError(f"--metrics {name!r} is not one of {', '.join(METRICS)}")
    if not names:
        raise InputError(f"--metrics is empty, but needs some of {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def panels(
    metrics: Sequence[str], measured: Sequence[RunResult], codecs: Sequence[ClassicalCodec] = ()
) -> list[Panel]:
    """An axis for each metric, with lines of engineered codecs where their distortion is shown.

    Args:
        metrics: The metrics, which are some of `METRICS`.
        measured: The results with their series.
        codecs: The engineered codecs, which are measured on the images of the results.

    Raises:
        InputError: No result has a metric, points of one metric were measured in different ways,
            or no axis has a place for the engineered codecs.
    """
    _require_rates(measured)
    found = [_panel(metric, measured) for metric in metrics]
    for panel in found:
        require_one_protocol(panel)
    return _with_references(found, measured, codecs) if codecs else found


def _require_rates(measured: Sequence[RunResult]) -> None:
    """Raise one `InputError` for all the codecs whose files were not measured."""
    runs = [one.run for one in measured if one.rates is None and one.run is not None]
    if codecs := [run.path for run in runs if run.system().codec() is not None]:
        raise file_rates.missing(codecs, measured[0].files)


def _panel(metric: str, measured: Sequence[RunResult]) -> Panel:
    """The panel with all points of a metric.

    Raises:
        InputError: No result has the metric.
    """
    points: list[Point] = []
    whole, side = whole_name(metric)
    for one in measured:
        points += filter(None, [one.point(metric)])
    # The point without any bits belongs to the generator, so one in a series is enough.
    drawn: set[str] = set()
    for one in measured:
        zero = one.point(f"rate0_{metric}", bpp=0.0) if whole in _WITH_ZERO_RATE else None
        if zero is not None and one.series not in drawn:
            drawn.add(one.series)
            points.append(zero)
    if not points:
        patches = f" --patches {side}" if side else ""
        raise InputError(
            f"no result has the metric {metric}; measure it with"
            f" `gencomp evaluate RUN --metrics {_WORDS.get(whole, whole)}{patches}`"
        )
    return Panel(metric, points)


def _with_references(
    panels: Sequence[Panel], measured: Sequence[RunResult], codecs: Sequence[ClassicalCodec]
) -> list[Panel]:
    """The panels of distortion with a line of each codec."""
    fitting = [panel for panel in panels if panel.metric in classical.METRICS]
    if not fitting:
        said = ", ".join(classical.METRICS)
        raise InputError(f"--classical needs one of {said} among the --metrics")
    first = next((one for one in measured if one.run is not None), measured[0])
    images = first.images()
    assert first.run is not None
    pixels = torch.cat([batch.images_BCHW for batch in images.batches(first.run.recipe())])
    points = [point for panel in fitting for point in panel.points]
    highest = max(point.file_bpp or point.bpp for point in points)
    rungs = classical.measure(codecs, pixels, highest, [panel.metric for panel in fitting])
    return [
        Panel(
            panel.metric, [*panel.points, *(r.point(panel.metric, panel.points[0]) for r in rungs)]
        )
        if panel in fitting
        else panel
        for panel in panels
    ]
