"""`gencomp figure curves`, which draws distortion and perception of runs against the rate."""

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
    files: str = "files",
    classical: str = "",
) -> None:
    """Draw distortion and perception of several runs against their measured rate, with intervals.

    A result is a run, a sweep (its finished trials) or a metrics.json of `gencomp evaluate`.
    LABEL=RESULT,RESULT draws several results as one line with that label. Other results form one
    line if their recipes differ only in the values that set the rate.

    The rate is that of real files, which `gencomp files` measures first: a point stands at the bits
    of code, and a thin line from it ends at the rate of whole joint containers.

    Metrics are taken from the evaluation. For a run without an evaluation, mse and psnr are taken
    from the end of its training. mmd is measured by this command, on the images of the evaluation.
    Points that were measured in different ways cannot be drawn in one axis and are refused.

    Args:
        results: Results to draw.
        file: The file that the figure is written to.
        metrics: Some of mse,psnr,ms_ssim,lpips,mmd,pv,rfid,rkid,rfd,rkd, the last four with the
            side of patches for distances of patches, as rfid_256; each metric gets an axis.
        evaluation: Name of the evaluation to take from each run.
        files: Name of the evaluation by `gencomp files` to take each run's rates from.
        classical: Some of jpeg,webp,jpeg2000,avif,jpegxl: engineered codecs to draw as lines for
            mse, psnr and ms_ssim; this command measures them on the same images, at the rate of one
            archive of their files, which is their counterpart of a joint container. Series of
            two points or more are then compared with them by their Bjøntegaard delta rate, at equal
            psnr or ms_ssim.
    """
    from cluster.results import bd_rates
    from cluster.results import classical as engineered
    from cluster.results.metrics import remarks
    from cluster.results.panels import panels, parse
    from gencomp.figures import curves
    from sweeps import operating_points

    file.check()
    wanted, codecs = parse(metrics), engineered.parse(classical)
    measured = operating_points.read(results, evaluation, files)
    found = panels(wanted, measured, codecs)
    said = [*remarks(found), *bd_rates.remarks(found)]
    file.write(curves.draw(found, "Rate, distortion, perception", said))
    for line in bd_rates.remarks(found):
        print(line)
