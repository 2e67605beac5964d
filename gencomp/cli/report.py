"""`gencomp report`, which writes an HTML page about a generator, a sweep and a curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.tracking import choice
from gencomp.cli.arguments import Checkpoint
from gencomp.errors import InputError


def report(
    generator: Path | None = None,
    sweep: Path | None = None,
    curve: Path | None = None,
    tradeoff: tuple[Path, ...] = (),
    lossless: tuple[Path, ...] = (),
    checkpoint: Checkpoint = "last",
    figures: tuple[Path, ...] = (),
    out: Path = Path("runs/report.html"),
    images: int = 8,
    track: choice.Name | None = None,
) -> None:
    """Write one self-contained HTML page from finished runs.

    A part whose run does not exist is left out, and the page says so. Rates are those of real
    files: by `gencomp files` where it has measured a codec under its usual name, and else of 128
    held-out images that this command measures and keeps.

    Args:
        generator: Run of the generative model; runs/generator by default.
        sweep: Directory of the sweep over codecs; runs/rates by default.
        curve: Collected AIS evaluation; evaluations/ais in the generator's run by default.
        tradeoff: Runs or sweeps that are shown by their distortion and perception beside the
            sweep, such as second layers and fresh critics. A sweep that weighs perception is shown
            so by itself, with the sweeps that it starts from.
        lossless: Measurements of lossless files by gencomp files, such as RUN/evaluations/files:
            bits per dimension beside the bound, the engineered codecs that were measured, and what
            is published of the same pictures.
        checkpoint: Checkpoint of the sweep's codecs: last, best (by training.keep_best_metric), or
            the number of a step.
        figures: Images to show at the end of the page, such as PNG files of gencomp figure.
        out: HTML file to write.
        images: How many test images to show.
        track: Experiment tracker in which the page is attached to the generator's run: mlflow, on
            the server that MLFLOW_TRACKING_URI names, wandb, or trackio.
    """
    if images < 1:
        raise InputError(f"--images is {images}, but at least one image must be shown")
    if out.is_dir() or (out.parent.exists() and not out.parent.is_dir()):
        raise InputError(f"--out {out} cannot be written; name an HTML file in a directory")
    if track is not None:
        choice.require(track)
    from cluster.compressed_files.images import decoded, read
    from cluster.files import write_text
    from gencomp.report import render
    from sweeps.report.inputs import find
    from sweeps.report.page import report as content

    drawings = [(path.name, decoded(read(path), path)) for path in figures]
    inputs = find(generator, sweep, curve, checkpoint, tradeoff, lossless)
    if track is not None and inputs.run is None:
        raise InputError("--track needs the run of a generator, to which the page is attached")
    found = content(inputs, images, say=_say)
    html = render(replace(found, figures=drawings))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, html)
    print(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")
    if track is not None and inputs.run is not None:
        from cluster.tracking.results import attach

        attach(inputs.run, track, out)


def _say(text: str) -> None:
    print(f"  {text}", flush=True)
