"""Compressed files as decoders show them: one through several decoders, or several of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.compressed_files import images, work
from cluster.results import pictures
from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.figures.label_colours import coloured
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


def beside(
    run: Path, checkpoint: str, image: Path, maps: Mapping[str, Path], streams: Sequence[Path]
) -> list[Column]:
    """A column for an image, for each of its maps in colours, and for each of its files.

    Args:
        run: the run whose codec reads the files.
        checkpoint: the choice of the run's checkpoint, as `--checkpoint` names it.
        image: the image.
        maps: the PNG file of each map.
        streams: compressed files of the image.

    Raises:
        InputError: a file cannot be read, the run has no codec, or a map or a file has another size
            or holds several pictures.
    """
    codec, data = work.opened(run, checkpoint), images.read(image)
    image_HWC = images.decoded(data, image)
    columns = [Column("original", f"{len(data)} bytes", [[image_HWC]])]
    for name, map_HW in images.maps(maps, data, image).items():
        if map_HW.shape != image_HWC.shape[:2]:
            raise InputError(f"{maps[name]} has another size than {image}, whose map it should be")
        columns.append(Column(name, "", [[coloured(map_HW)]]))
    for path in streams:
        stream = images.read(path)
        if (count := len(work.pixels(path))) > 1:
            raise InputError(f"{path} holds {count} pictures, but files of one image are compared")
        shown_HWC = codec.decompress(stream, name=str(path))
        if shown_HWC.shape != image_HWC.shape:
            raise InputError(
                f"{path} holds a picture of {'×'.join(map(str, shown_HWC.shape[:2]))} pixels, but"
                f" {image} has {'×'.join(map(str, image_HWC.shape[:2]))}"
            )
        bpp = 8 * len(stream) / (image_HWC.shape[0] * image_HWC.shape[1])
        columns.append(Column(path.stem, f"{len(stream)} bytes, {bpp:.3g} bpp", [[shown_HWC]]))
    return columns
