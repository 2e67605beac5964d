"""`gencomp figure curves`: distortion and perception of several runs against the rate."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile


def curves(
    results: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT...")],
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    metrics: str = "mse,pv,mmd",
    evaluation: str = "metrics",
    classical: str = "",
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
        file: Where the figure goes.
        metrics: Some of mse,psnr,ms_ssim,lpips,mmd,pv,rfid,rkid: an axis each.
        evaluation: Name of the evaluation to take from each run.
        classical: Some of jpeg,webp,jpeg2000,avif,jpegxl: lines of engineered codecs, measured here
            on the same images, for mse, psnr and ms_ssim.
    """
    from cluster.results import classical as engineered
    from cluster.results.metrics import remarks
    from cluster.results.panels import panels, parse
    from gencomp.figures import curves
    from sweeps import operating_points

    file.check()
    wanted, codecs = parse(metrics), engineered.parse(classical)
    measured = operating_points.read(results, evaluation)
    found = panels(wanted, measured, codecs)
    file.write(curves.draw(found, "Rate, distortion, perception", remarks(found)))
