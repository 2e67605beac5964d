"""`gencomp figure curves`: distortion and perception of several runs against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.errors import InputError

if TYPE_CHECKING:
    from cluster.results.metrics import Measured
    from gencomp.coding.classical import ClassicalCodec
    from gencomp.figures.curves import Panel, Point

_METRICS = ("mse", "psnr", "ms_ssim", "lpips", "mmd", "pv", "rfid", "rkid")
_ZERO_RATE = {"mse": "rate0_mse", "pv": "rate0_pv", "rfid": "rate0_rfid", "rkid": "rate0_rkid"}


def curves(
    results: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT...")],
    /,
    out: Path,
    metrics: str = "mse,pv,mmd",
    evaluation: str = "metrics",
    classical: str = "",
    overwrite: bool = False,
) -> None:
    """Draw distortion and perception of several runs against their rate, with intervals.

    A result is a run, a sweep (its finished trials) or a metrics.json of `gencomp evaluate`;
    LABEL=RESULT,RESULT joins some under a label of their own. Others are joined by the values of
    their recipes that differ, apart from those that set the rate.

    Metrics come from the evaluation, and mse and psnr of a run without one from the end of its
    training; mmd is measured here, on the images of the evaluation. Points that were measured in
    different ways are refused in one axis.

    Args:
        results: What to draw.
        out: File to write, .png or .pdf.
        metrics: Some of mse,psnr,ms_ssim,lpips,mmd,pv,rfid,rkid: an axis each.
        evaluation: Name of the evaluation to take from each run.
        classical: Some of jpeg,webp,jpeg2000,avif,jpegxl: lines of engineered codecs, measured here
            on the same images, for mse, psnr and ms_ssim.
        overwrite: Replace the file if it exists.
    """
    from cluster.results import classical as figure_classical
    from cluster.results import metrics as figure_results
    from gencomp.cli.figure.rates import check_out, write_figure
    from gencomp.figures import curves

    format = check_out(out, overwrite)
    wanted, codecs = _parse(metrics), figure_classical.parse(classical)
    measured = figure_results.read(results, evaluation)
    panels = [_panel(metric, measured) for metric in wanted]
    for panel in panels:
        curves.require_one_protocol(panel)
    if codecs:
        panels = _with_references(panels, measured, codecs)
    remarks = figure_results.remarks(panels)
    figure = curves.draw(panels, "Rate, distortion, perception", remarks)
    write_figure(figure, out, format)


def _parse(text: str) -> list[str]:
    names = [word.strip() for word in text.split(",") if word.strip()]
    for name in names:
        if name not in _METRICS:
            raise InputError(f"--metrics {name!r} is not one of {', '.join(_METRICS)}")
    if not names:
        raise InputError(f"--metrics is empty, but needs some of {', '.join(_METRICS)}")
    return list(dict.fromkeys(names))


def _panel(metric: str, measured: Sequence[Measured]) -> Panel:
    """All points of a metric.

    Raises:
        InputError: nobody has it.
    """
    from gencomp.figures.curves import Panel

    points: list[Point] = []
    for one in measured:
        points += filter(None, [one.point(metric)])
    # The point without any bits belongs to the generator: once in a series is enough.
    drawn: set[str] = set()
    for one in measured:
        zero = one.point(_ZERO_RATE[metric], bpp=0.0) if metric in _ZERO_RATE else None
        if zero is not None and one.series not in drawn:
            drawn.add(one.series)
            points.append(zero)
    if not points:
        raise InputError(
            f"no result has the metric {metric}; measure it with"
            f" `gencomp evaluate RUN --metrics {metric}`"
        )
    return Panel(metric, points)


def _with_references(
    panels: Sequence[Panel], measured: Sequence[Measured], codecs: Sequence[ClassicalCodec]
) -> list[Panel]:
    """The panels of distortion with a line of each codec."""
    import torch

    from cluster.results import classical as figure_classical
    from gencomp.figures.curves import Panel

    fitting = [panel for panel in panels if panel.metric in figure_classical.METRICS]
    if not fitting:
        said = ", ".join(figure_classical.METRICS)
        raise InputError(f"--classical needs one of {said} among the --metrics")
    first = next((one for one in measured if one.run is not None), measured[0])
    images = first.images()
    assert first.run is not None
    pixels = torch.cat([batch.images_BCHW for batch in images.batches(first.run.recipe())])
    highest = max(point.bpp for panel in fitting for point in panel.points)
    rungs = figure_classical.measure(codecs, pixels, highest, [panel.metric for panel in fitting])
    return [
        Panel(
            panel.metric, [*panel.points, *(r.point(panel.metric, panel.points[0]) for r in rungs)]
        )
        if panel in fitting
        else panel
        for panel in panels
    ]
