"""`gencomp figure curves`, which draws distortion and perception of runs against the rate."""

from __future__ import annotations

from pathlib import Path
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
    published: str = "",
    json: Path | None = None,
) -> None:
    """Draw distortion and perception of several runs against their measured rate, with intervals.

    A result is a run, a sweep (its finished trials), a metrics.json of `gencomp evaluate`, or a
    JSON file of a curve, as CompressAI keeps them and as --json writes them. LABEL=RESULT,RESULT
    draws several results as one line with that label. Other results form one line if their recipes
    differ only in the values that set the rate.

    The rate is that of real files, which `gencomp files` measures first: a point stands at the bits
    of code, and a thin line from it ends at the rate of whole joint containers.

    Metrics are taken from the evaluation. For a run without an evaluation, mse and psnr are taken
    from the end of its training. mmd is measured by this command, on the images of the evaluation.
    Points that were measured in different ways cannot be drawn in one axis and are refused. A JSON
    file that does not state its protocol is drawn, and the figure says that it is unknown.

    Series of two points or more are compared with the classical and the published codecs, and with
    the first series, by their Bjøntegaard deltas: the rate at equal metric and the metric at equal
    rate.

    Args:
        results: Results to draw.
        file: The file that the figure is written to.
        metrics: Some of mse,psnr,mean_psnr,ms_ssim,lpips,dists,mmd,pv,rfid,rkid,rfd,rkd, the last
            four with the side of patches for distances of patches, as rfid_256; each metric gets
            an axis. psnr is that of the mean error, mean_psnr the mean of the PSNR of each image.
        evaluation: Name of the evaluation to take from each run.
        files: Name of the evaluation by `gencomp files` to take each run's rates from.
        classical: Some of jpeg,webp,jpeg2000,avif,jpegxl: engineered codecs to draw as lines for
            mse, psnr, mean_psnr and ms_ssim; this command measures them on the same images, at the
            rate of one archive of their files, which is their counterpart of a joint container.
        published: Published codecs to draw as dashed lines for mean_psnr and ms_ssim: methods that
            `gencomp published` lists, such as vtm,mbt2018, or all. Only those are drawn whose data
            set and protocol agree with those of the results; this command says why others are not.
        json: Directory to write each measured line to as a JSON file that CompressAI's plots read.
    """
    from cluster.results import bjontegaard, curve_files
    from cluster.results import classical as engineered
    from cluster.results import published as others
    from cluster.results.metrics import remarks
    from cluster.results.panels import panels, parse
    from gencomp.figures import curves
    from sweeps import operating_points

    file.check()
    if json is not None:
        curve_files.check(json, file.overwrite)
    wanted, codecs = parse(metrics), engineered.parse(classical)
    methods = others.parse(published)
    measured = operating_points.read(results, evaluation, files)
    found = panels(wanted, measured, codecs)
    left_out: list[str] = []
    if methods:
        found, left_out = others.with_published(found, methods)
    said = [*remarks(found), *others.remarks(found), *bjontegaard.remarks(found)]
    file.write(curves.draw(found, "Rate, distortion, perception", said))
    if json is not None:
        for line in curve_files.write(found, json):
            print(line)
    for line in [*left_out, *bjontegaard.sentences(found)]:
        print(line)
