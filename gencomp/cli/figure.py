"""`gencomp figure`: images and latents of finished runs as figures of papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gencomp.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from cluster.runs import Run
    from gencomp.cli.figure_inputs import Images
    from gencomp.figures.style import Format
    from gencomp.figures.tiles import Column
    from gencomp.system import System

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
_MOST_LATENTS = 6


def rates(
    runs: Runs,
    /,
    out: Path,
    images: int = 4,
    rows: tuple[int, ...] = (),
    draws: int = 3,
    split: str = "test",
    checkpoint: str = "last",
    seed: int = 7,
    scale: int = 2,
    overwrite: bool = False,
) -> None:
    """Draw images beside their reconstructions at each rate, several draws of the noise each.

    A row an image: the original, samples of the generator's prior (0 bpp), then each run's
    reconstructions, the same as `gencomp evaluate` measures.

    Args:
        runs: Codecs on one generator, one for each rate.
        out: File to write, .png (exact pixels) or .pdf.
        images: How many, evenly spaced over the split.
        rows: These images of the split instead, by number.
        draws: Reconstructions of each image at each rate.
        split: Split to show.
        checkpoint: Checkpoint of each run: last, best (by training.keep_best_metric) or a step.
        seed: Of the noise.
        scale: Side of the square that a pixel becomes.
        overwrite: Replace the file if it exists.
    """
    from gencomp.figures import tiles

    format = check_out(out, overwrite)
    chosen, columns = _along_the_rate(runs, images, rows, draws, split, checkpoint, seed, scale)
    original, *others = columns
    alone = tiles.Column(original.heading, original.remark, [row[:1] for row in original.tiles])
    sheet = tiles.Sheet(
        "Reconstructions along the rate",
        [
            f"{chosen.said} images (number {', '.join(map(str, chosen.rows))})",
            f"{draws} draws of the noise each; 0 bpp: samples of the prior, whatever the image",
            "Rates are nominal, those of a code of fixed length",
            *_said(checkpoint),
        ],
        [alone, *others],
    )
    write_figure(tiles.draw(sheet, scale), out, format)


def interpolation(
    runs: Runs,
    /,
    out: Path,
    image: int = 0,
    draws: int = 3,
    split: str = "test",
    checkpoint: str = "last",
    seed: int = 7,
    scale: int = 2,
    overwrite: bool = False,
) -> None:
    """Draw one image from generation (0 bpp) to reconstruction, the noise held fixed.

    A row a draw: along it B sees the same noise at every rate.

    Args:
        runs: Codecs on one generator, one for each rate.
        out: File to write, .png (exact pixels) or .pdf.
        image: Its number in the split.
        draws: Rows of the figure.
        split: Split the image is of.
        checkpoint: Checkpoint of each run: last, best (by training.keep_best_metric) or a step.
        seed: Of the noise.
        scale: Side of the square that a pixel becomes.
        overwrite: Replace the file if it exists.
    """
    from gencomp.figures import tiles

    format = check_out(out, overwrite)
    chosen, columns = _along_the_rate(runs, None, (image,), draws, split, checkpoint, seed, scale)
    original, *others = columns
    upright = [
        tiles.Column(column.heading, column.remark, [[tile] for tile in column.tiles[0]])
        for column in (*others, original)
    ]
    sheet = tiles.Sheet(
        "From generation to reconstruction",
        [
            f"{chosen.data_set}, {split} split, image {image}",
            "Held fixed along a row: image, generator and the noise that B sees",
            "(0 bpp: a sample of the prior, which knows nothing of the image; rates are nominal)",
            *_said(checkpoint),
        ],
        upright,
        [f"draw {draw + 1}" for draw in range(draws)],
    )
    write_figure(tiles.draw(sheet, scale), out, format)


def latent(
    runs: Runs,
    /,
    out: Path,
    images: int | None = None,
    split: str = "test",
    checkpoint: str = "last",
    seed: int = 7,
    overwrite: bool = False,
) -> None:
    """Draw how the latents of up to six runs are distributed beside their prior.

    Prints the MMD of each with a 95 % interval, and the range that chance alone gives.

    Args:
        runs: Codecs, or generators with an encoder, of the same prior.
        out: File to write, .png or .pdf.
        images: How many, evenly spaced over the split; all, but 2048 at most, by default.
        split: Split to encode.
        checkpoint: Checkpoint of each run: last, best (by training.keep_best_metric) or a step.
        seed: Of the noise and the prior's samples.
        overwrite: Replace the file if it exists.
    """
    from gencomp.cli import figure_inputs as inputs
    from gencomp.cli import figure_latents
    from gencomp.cli.console import print_table
    from gencomp.figures import latents

    format = check_out(out, overwrite)
    if len(runs) > _MOST_LATENTS:
        raise InputError(f"{len(runs)} runs are too many for one figure of latents, which has 6")
    opened = _opened(runs, checkpoint)
    chosen = figure_latents.choose(opened, split, images)
    names = inputs.differing(opened) if len(opened) > 1 else [opened[0].name]
    compared = figure_latents.compare(opened, names, chosen, seed)
    low, high = compared.chance
    rows = [
        [one.name, f"{found.value:.5f}", "{:.5f} to {:.5f}".format(*found.interval)]
        for one, found in zip(compared.sets, compared.measured, strict=True)
    ]
    rows.append(["chance", f"{compared.null.mean():.5f}", f"{low:.5f} to {high:.5f}"])
    print_table(f"MMD to the prior, {chosen.said} images", ["run", "MMD", "95 %"], rows)
    dimensions, variance = compared.sets[0].z_NM.shape[1], compared.sets[0].variance
    remarks = [
        f"{chosen.said} images; prior N(0, {variance:g} I) of {dimensions} dimensions;"
        f" chance: {latents.NULL_DRAWS} pairs of samples of the prior",
        *_said(checkpoint),
    ]
    figure = latents.draw(
        compared.sets, compared.measured, compared.null, "Latents and their prior", remarks
    )
    write_figure(figure, out, format)


def check_out(out: Path, overwrite: bool) -> Format:
    """The format that the file's name asks for.

    Raises:
        InputError: another format, or the file may not be written.
    """
    match out.suffix.lower():
        case ".png":
            format: Format = "png"
        case ".pdf":
            format = "pdf"
        case _:
            raise InputError(f"--out {out} must end in .png or .pdf")
    if out.is_dir() or (out.exists() and not overwrite):
        raise InputError(f"{out} exists; add --overwrite to replace it")
    if not out.parent.is_dir():
        raise InputError(f"the directory {out.parent} does not exist")
    return format


def write_figure(figure: Figure, out: Path, format: Format) -> None:
    """Encode a figure of `gencomp.figures` into its file."""
    from cluster.files import write_bytes
    from gencomp.figures.style import encode

    write_bytes(out, encode(figure, format))
    print(f"wrote {out}")


def _along_the_rate(
    paths: tuple[Path, ...],
    count: int | None,
    rows: tuple[int, ...],
    draws: int,
    split: str,
    checkpoint: str,
    seed: int,
    scale: int,
) -> tuple[Images, list[Column]]:
    """The images, and the columns of original, 0 bpp and every rate."""
    from gencomp.cli import figure_inputs as inputs
    from gencomp.figures.tiles import Column

    for name, value in (("draws", draws), ("scale", scale)):
        if value < 1:
            raise InputError(f"--{name} is {value}, but it must be at least 1")
    runs = _opened(paths, checkpoint)
    inputs.require_one_generator(runs)
    chosen = inputs.choose_images(runs, split, 1 if rows else count)
    if rows:
        chosen = inputs.choose_rows(chosen, rows)
    originals = [
        tile
        for batch in chosen.batches(runs[0].recipe())
        for tile in inputs.as_tiles(batch.images_BCHW)
    ]
    height, width = originals[0].shape[:2]
    labels = inputs.differing(runs, rates=False)
    coded: list[tuple[int, str, Run, System]] = []
    for run, label in zip(runs, labels, strict=True):
        system = run.system()
        coded.append((inputs.nominal_bits(run, system, height, width), label, run, system))
    coded.sort(key=lambda one: one[0])

    def column(heading: str, remark: str, made: list[Tensor]) -> Column:
        tiles = [inputs.as_tiles(one) for one in made]
        return Column(heading, remark, [list(row) for row in zip(*tiles, strict=True)])

    columns = [Column("original", "", [[tile] * draws for tile in originals])]
    samples = inputs.prior_samples(coded[0][3], chosen, seed, draws)
    columns.append(column("0 bpp", "prior", samples))
    for bits, label, run, system in coded:
        remark = f"{bits} bits" + (f", {label}" if len(set(labels)) > 1 else "")
        made = inputs.reconstructions(run, system, chosen, seed, draws)
        columns.append(column(f"{bits / (height * width):.3g} bpp", remark, made))
    return chosen, columns


def _opened(paths: tuple[Path, ...], checkpoint: str) -> list[Run]:
    from cluster.checkpoints.store import parse_choice
    from gencomp.cli.figure_inputs import finished

    if not paths:
        raise InputError("a figure needs one run or more")
    return [finished(path, parse_choice(checkpoint)) for path in paths]


def _said(checkpoint: str) -> list[str]:
    """The line of a figure about the checkpoint; the last one goes without saying."""
    return [] if checkpoint == "last" else [f"Checkpoint of each run: {checkpoint}"]
