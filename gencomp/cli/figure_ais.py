"""`gencomp figure ais`, `convergence`, `image-curves`: what annealed importance sampling found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.errors import InputError

if TYPE_CHECKING:
    from gencomp.cli.figure_ais_inputs import Measured

Evaluations = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EVALUATION...")
]


def ais(
    evaluations: Evaluations,
    /,
    out: Path,
    variational: tuple[Path, ...] = (),
    runs: tuple[str, ...] = (),
    cut_distortion: float | None = None,
    cut_rate: float = 0.1,
    evaluation: str = "metrics",
    overwrite: bool = False,
) -> None:
    """Draw rate-distortion curves of generative models, with intervals and their BDMC gaps.

    Curves of other decoders, priors and samplers stand in one figure, those of other data, images,
    distortions or scales of the values do not. Their images are the same, so curves differ more
    surely than their bands suggest. LABEL=EVALUATION gives a curve a name of its own.

    Args:
        evaluations: Directories that `gencomp slurm collect` was run on, RUN/evaluations/NAME.
        out: File to write, .png or .pdf.
        variational: Points of encoders trained for decoders of the figure.
        runs: Codecs to draw as operating points: runs, sweeps or metrics.json files, as for
            `gencomp figure curves`, measured on the images of the curves.
        cut_distortion: Begin each curve at the point closest to this summed distortion.
        cut_rate: Begin each curve at the point closest to this rate in nats; 0 for all of it.
        evaluation: Name of the evaluation to take from each of the --runs.
        overwrite: Replace the file if it exists.
    """
    from gencomp.cli import figure_ais_inputs as inputs
    from gencomp.cli.figure import check_out, write_figure
    from gencomp.figures import rate_distortion

    format = check_out(out, overwrite)
    _check_cuts(cut_distortion, cut_rate)
    measured = inputs.read(evaluations)
    inputs.require_one_protocol(measured)
    trained = [inputs.variational(path, measured) for path in variational]
    codecs = inputs.operating_points(runs, evaluation, measured[0]) if runs else []
    curves = [rate_distortion.cut(one.curve(), cut_distortion, cut_rate) for one in measured]
    _print_gaps(measured)
    figure = rate_distortion.draw(
        curves,
        measured[0].units,
        "Rate-distortion curves" if len(curves) > 1 else "Rate-distortion curve",
        [_images(measured), "band: 95 % interval over images, at equal rate"],
        trained,
        codecs,
    )
    write_figure(figure, out, format)


def convergence(evaluations: Evaluations, /, out: Path, overwrite: bool = False) -> None:
    """Draw how sure curves are: effective sample size, acceptance, and the BDMC gap.

    Several evaluations of one decoder with different numbers of temperatures show how the gap
    falls, beside what a single chain with perfect moves would have.

    Args:
        evaluations: Directories that `gencomp slurm collect` was run on, of one decoder.
        out: File to write, .png or .pdf.
        overwrite: Replace the file if it exists.
    """
    from gencomp.cli import figure_ais_inputs as inputs
    from gencomp.cli.figure import check_out, write_figure
    from gencomp.figures import convergence

    format = check_out(out, overwrite)
    measured = inputs.read(evaluations)
    inputs.require_one_protocol(measured, one_decoder=True)
    if not any(one.gaps for one in measured):
        raise InputError(
            f"{measured[0].evaluation.path} has no BDMC gap to draw; `gencomp slurm ais` measures"
            " it with --bdmc-images 16"
        )
    _print_gaps(measured)
    figure = convergence.draw(
        [one.convergence() for one in measured],
        "Convergence",
        [_images(measured), "bands: the middle 80 % of the images; bars: 95 %"],
    )
    write_figure(figure, out, format)


def image_curves(
    evaluation: Annotated[str, tyro.conf.Positional],
    /,
    out: Path,
    cut_distortion: float | None = None,
    cut_rate: float = 0.1,
    overwrite: bool = False,
) -> None:
    """Draw the curve of each image, and their mean.

    Args:
        evaluation: Directory that `gencomp slurm collect` was run on, RUN/evaluations/NAME.
        out: File to write, .png or .pdf.
        cut_distortion: Begin at the point of the mean closest to this summed distortion.
        cut_rate: Begin at the point of the mean closest to this rate in nats; 0 for all of it.
        overwrite: Replace the file if it exists.
    """
    from gencomp.cli import figure_ais_inputs as inputs
    from gencomp.cli.figure import check_out, write_figure
    from gencomp.figures import rate_distortion

    format = check_out(out, overwrite)
    _check_cuts(cut_distortion, cut_rate)
    (one,) = inputs.read([evaluation])
    mean = rate_distortion.cut(one.curve(), cut_distortion, cut_rate)
    remarks = [_images([one])]
    figure = rate_distortion.draw_images(
        one.images(), mean, one.units, "Curves of single images", remarks
    )
    write_figure(figure, out, format)


def _check_cuts(distortion: float | None, rate: float) -> None:
    for name, value in (("distortion", distortion), ("rate", rate)):
        if value is not None and not value >= 0:
            raise InputError(f"--cut-{name} is {value:g}, but it must not be negative")


def _images(measured: Sequence[Measured]) -> str:
    """What was measured, and how; of several the ways that all share."""
    first = measured[0]
    chains = sorted({one.plan.settings.chains for one in measured})
    said = "–".join(str(count) for count in dict.fromkeys((chains[0], chains[-1])))
    return f"{first.images_said}, {said} chains each"


def _print_gaps(measured: Sequence[Measured]) -> None:
    """A table of all gaps: a figure of many curves has no room for them."""
    from gencomp.cli.console import print_table

    rows = [
        [one.label, f"{gap.beta:.4g}", f"{gap.value:.4f}", f"{gap.standard_error:.4f}"]
        + ["{:.4f} to {:.4f}".format(*gap.interval)]
        for one in measured
        for gap in one.gaps
    ]
    if rows:
        header = ["evaluation", "beta", "gap", "± s.e.", "95 %"]
        print_table("BDMC gap, nats", header, rows)
