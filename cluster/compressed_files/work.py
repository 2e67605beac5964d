"""One file at a time: compressed from an image or from many, or decompressed."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, overload

import torch

from cluster.compressed_files import images
from cluster.compressed_files.places import Job
from cluster.compressed_files.sources import codec_between, open_source
from cluster.files import write_bytes
from gencomp.coding import container
from gencomp.coding.noise import first_index
from gencomp.errors import InputError
from gencomp.system import Codec, Picture
from shards.reading.decode import MAX_PIXELS


class Content(NamedTuple):
    """What a compressed file holds, and how long it is.

    Attributes:
        pictures: The number of pictures.
        pixels: The number of pixels of all pictures.
        bytes: The size of the file in bytes.
        code_bits: The number of bits of the code in the file.
        nominal_bits: The number of bits of the code at the method's fixed length; None for a method
            without one.
        part_bits: The number of bits of each part of the code.
    """

    pictures: int
    pixels: int
    bytes: int
    code_bits: int
    nominal_bits: float | None
    part_bits: Mapping[str, int]

    @property
    def container_bits(self) -> int:
        return 8 * self.bytes - self.code_bits


class Done(NamedTuple):
    """One image and its compressed file.

    Attributes:
        height, width: The size of the image in pixels.
        file: What the compressed file holds; None if the image is one of several in a joint file.
        kept: Whether the file to write existed already and was kept.
        conversions: What was done to an image that is not RGB of 8 bits, upright and opaque, before
            it was compressed, in the words of `shards.reading.decode`.
    """

    height: int
    width: int
    file: Content | None
    kept: bool
    conversions: tuple[str, ...] = ()


class Toward(NamedTuple):
    """A point between the decoder of a run and that of another one.

    Attributes:
        run: The directory of the other run, or its model file.
        share: The share of the other run's image, 0..1.
    """

    run: Path
    share: float


class Writer(NamedTuple):
    """A codec that writes files.

    Attributes:
        run: The directory of the run, or a model file.
        checkpoint: The checkpoint of the run, as the command line names it.
        writing: Words that say how files are written, where it is not as the run's recipe says.
        max_pixels: The number of pixels of an image that are decoded at most.
    """

    run: Path
    checkpoint: str
    writing: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS

    def opened(self) -> Codec:
        """The codec, loaded once in a process."""
        return opened(self.run, self.checkpoint, writing=self.writing)


def opened(
    run: Path, checkpoint: str, toward: Toward | None = None, writing: tuple[str, ...] = ()
) -> Codec:
    """The codec of a run, or of a point between two runs, loaded once in a process.

    Args:
        run: The directory of the run, or a model file; so is that of the other run.
        checkpoint: The checkpoint of the run, as the command line names it.
        toward: The other run, whose newest checkpoint is used.
        writing: Words that say how files are written, where it is not as the run's recipe says.

    Raises:
        InputError: There is no run, the run has no such checkpoint, it has no codec, or the two
            runs have none between them.
    """
    return _opened(Path.cwd(), run, checkpoint, toward, writing)


@cache
def _opened(
    here: Path, run: Path, checkpoint: str, toward: Toward | None, writing: tuple[str, ...]
) -> Codec:
    """The codec for `opened`. A relative path is another run in another directory."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # each process has one CPU
    found = open_source(run, checkpoint, writing)
    codec = found.codec()
    recipe = found.recipe()
    if codec is None:
        raise InputError(
            f"run {run} ({recipe.system}/{recipe.stage}) has no codec: its stage makes no code"
        )
    return codec if toward is None else codec_between(found, toward.run, toward.share)


def compress_file(writer: Writer, keep: bool, job: Job) -> Done:
    """Compress one image.

    Args:
        writer: The codec.
        keep: Whether to keep a target that is an undamaged file of this codec; otherwise it is
            replaced.
        job: The image and its compressed file.

    Raises:
        InputError: The image cannot be read, or with `keep` the target exists and is something
            else.
    """
    codec = writer.opened()
    conversions: tuple[str, ...] = ()
    if keep and job.target.exists():
        stream = _whole_stream(codec, job.target)
    else:
        keep = False
        data = images.read(job.source)
        picture, conversions = _picture(job, data, first_index([data]), writer.max_pixels)
        try:
            stream = codec.compress(picture)
        except InputError as error:
            raise InputError(f"{job.source} cannot be compressed: {error}") from None
        write_bytes(job.target, stream)
    found = _done(codec, stream, Job(job.target, job.target), keep)
    return found._replace(conversions=conversions)


def compress_jointly(
    writer: Writer, jobs: Sequence[Job], target: Path, show: Callable[[int], None]
) -> tuple[Content, Counter[str]]:
    """Compress images to one joint file, whole or not at all.

    Gives what the file holds, and counts what was done to images, as in `Done.conversions`.

    Args:
        writer: The codec.
        jobs: The images with their maps, in the order in which the file will hold them.
        target: The joint file, which is replaced if it exists.
        show: A function that is called with the number of images that were read.

    Raises:
        InputError: An image cannot be read or compressed.
    """
    codec = writer.opened()
    pictures = _Pictures(jobs, show, writer.max_pixels)
    try:
        stream = codec.compress_jointly(pictures)
    except InputError as error:
        if (latest := pictures.latest) is None:
            raise
        raise InputError(f"{latest} cannot be compressed: {error}") from None
    write_bytes(target, stream)
    return content(codec, stream), Counter(what for each in pictures.conversions for what in each)


def decompress_file(
    run: Path,
    checkpoint: str,
    toward: Toward | None,
    draw: int,
    max_pixels: int,
    keep: bool,
    job: Job,
) -> Done:
    """Decompress one picture of a file.

    Args:
        run: The directory of the run whose codec wrote the file, or a model file.
        checkpoint: The checkpoint of the run.
        toward: The other run of a point between two runs.
        draw: The number of the draw of the decoder's noise.
        max_pixels: The number of pixels that are decoded at most.
        keep: Whether to keep a target that is this very image; otherwise it is replaced.
        job: The compressed file, the place of the picture in it, and its PNG image.

    Raises:
        InputError: The stream cannot be decoded, or with `keep` the target exists and is something
            else.
    """
    codec = opened(run, checkpoint, toward)
    stream = images.read(job.source)
    comes_from = images.origin(codec.codec_id, codec.reader_fingerprint, draw, stream, job.place)
    if keep and job.target.exists():
        if not images.is_whole_png(job.target, comes_from):
            raise InputError(
                f"{job.target} exists and is not what {job.source} decodes to with draw {draw}; add"
                " --overwrite to replace it"
            )
        return _done(codec, stream, job, kept=True)
    image_HWC = codec.decompress(
        stream, place=job.place or 0, draw=draw, max_pixels=max_pixels, name=str(job.source)
    )
    done = _done(codec, stream, job, kept=False)
    write_bytes(job.target, images.png(image_HWC, comes_from))
    return done


def content(codec: Codec, stream: bytes) -> Content:
    """What a compressed file holds, and how long it is."""
    found = container.unpack(stream)
    members = found.members
    nominal = [codec.nominal_bits(one.height, one.width) for one in members]
    known = [bits for bits in nominal if bits is not None]
    return Content(
        len(members),
        sum(one.height * one.width for one in members),
        len(stream),
        codec.code_bits(stream),
        sum(known) if len(known) == len(nominal) else None,
        container.part_bits(found, codec.parts),
    )


def pixels(stream: Path) -> list[int]:
    """The number of pixels that a compressed file states for each of its pictures.

    Raises:
        InputError: The file cannot be read, or it is no undamaged compressed file.
    """
    data = images.read(stream)
    try:
        members = container.unpack(data).members
    except InputError as error:
        raise InputError(f"{stream} cannot be decoded: {error}") from None
    return [one.height * one.width for one in members]


class _Pictures(Sequence[Picture]):
    """The pictures of image files, each read when it is asked for, so that one is in memory.

    Attributes:
        latest: The file that was read last; None while one is read, as that names itself.
        conversions: What was done to each image, once it was read.
    """

    def __init__(self, jobs: Sequence[Job], show: Callable[[int], None], max_pixels: int) -> None:
        self._jobs, self._show, self._max_pixels = jobs, show, max_pixels
        self.conversions: list[tuple[str, ...]] = [()] * len(jobs)
        self._first = first_index(images.read(job.source) for job in jobs)
        self.latest: Path | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, place: int) -> Picture: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Picture]: ...
    def __getitem__(self, place: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        job, self.latest = self._jobs[place], None
        data = images.read(job.source)
        picture, self.conversions[place] = _picture(
            job, data, self._first + place, self._max_pixels
        )
        self.latest = job.source
        self._show(place + 1)
        return picture


def _picture(job: Job, data: bytes, index: int, max_pixels: int) -> tuple[Picture, tuple[str, ...]]:
    """The picture of an image file with this content and of its maps, and what was done to it."""
    found = images.converted(data, job.source, max_pixels)
    maps = images.maps(job.maps, data, job.source, max_pixels)
    return Picture(found.pixels, maps, index), found.done


def _whole_stream(codec: Codec, path: Path) -> bytes:
    stream = images.read(path)
    try:
        found = container.unpack(stream)
        container.require_writer(found, codec.codec_id, codec.writer_fingerprint, str(path))
    except InputError as error:
        raise InputError(
            f"{path} exists and is no whole file of this codec ({error}); add --overwrite to"
            " replace it"
        ) from None
    return stream


def _done(codec: Codec, stream: bytes, job: Job, kept: bool) -> Done:
    """The result for one picture of a stream.

    Raises:
        InputError: The stream holds several pictures, and the job names none of them.
    """
    members = container.unpack(stream).members
    if job.place is None and len(members) > 1:
        raise InputError(
            f"{job.source} holds {len(members)} pictures, which need a folder of their own:"
            " decompress this file alone"
        )
    height, width = members[job.place or 0][:2]
    return Done(height, width, content(codec, stream) if job.place is None else None, kept)
