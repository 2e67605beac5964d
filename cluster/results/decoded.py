"""One compressed file as several decoders show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.compressed_files import images
from cluster.results import pictures
from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.figures.tiles import Column


def through_decoders(
    stream: Path, paths: Sequence[Path], checkpoint: str, count: int
) -> tuple[list[Column], list[str]]:
    """A column of pictures for each decoder, and the lines that say what they are.

    Args:
        stream: a compressed file.
        paths: the finished runs whose decoders read it.
        checkpoint: the choice of each run's checkpoint, as `--checkpoint` names it.
        count: the number of pictures to show, from the first.

    Raises:
        InputError: the file cannot be read, or a run is not finished, has no codec or decodes the
            files of another encoder.
    """
    data = images.read(stream)
    runs = pictures.finished_runs(paths, checkpoint)
    for run in runs:
        pictures.require_codec(run)
    try:
        members = container.unpack(data).members
    except InputError as error:
        raise InputError(f"{stream} cannot be decoded: {error}") from None
    shown = range(min(count, len(members)))
    columns, bits = [], 0
    for run, name in zip(runs, pictures.differing(runs, rates=True), strict=True):
        codec = run.system().codec()
        assert codec is not None
        tiles = [[codec.decompress(data, place=place, name=str(stream))] for place in shown]
        bits = max(bits, codec.code_bits(data))
        columns.append(Column(name, run.path.name, tiles))
    pixels = sum(one.height * one.width for one in members)
    said = [
        f"{stream.name}: {len(shown)} of {len(members)} pictures,"
        f" {bits / len(members):.4g} bits of code and {8 * len(data) / len(members):.4g} bits of"
        f" the file for each ({bits / pixels:.3g} and {8 * len(data) / pixels:.3g} bpp)",
        "The sender wrote one file; the receiver chose the decoder",
    ]
    return columns, said
