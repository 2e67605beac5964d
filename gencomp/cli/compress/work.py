"""The work of one process for `gencomp compress` and `gencomp decompress`, file by file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from gencomp.cli.compress import files
from gencomp.cli.console import progress
from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.system import Codec, Picture

# So many files are done in the time that a process takes to start.
_FILES_WORTH_A_PROCESS = 8


class Done(NamedTuple):
    """One compressed file and its image.

    Attributes:
        height, width: The size of the image in pixels.
        bytes: The size of the file in bytes.
        code_bits: The number of bits of the code in the file.
        nominal_bits: The number of bits of the code at the method's fixed length; None for a method
            without one.
        kept: Whether the file to write existed already and was kept.
    """

    height: int
    width: int
    bytes: int
    code_bits: int
    nominal_bits: int | None
    kept: bool

    @property
    def container_bits(self) -> int:
        return 8 * self.bytes - self.code_bits


class Failed(NamedTuple):
    """A file that was not written; the sentence says why."""

    sentence: str


Work = Callable[[files.Job], Done]


@cache
def opened(run: Path, checkpoint: str) -> Codec:
    """The codec of a run, loaded once in a process.

    Args:
        run: The directory of the run.
        checkpoint: The checkpoint of the run, as the command line names it.

    Raises:
        InputError: There is no run, the run has no such checkpoint, or it has no codec.
    """
    import torch

    from cluster.runs import open_run

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # each process has one CPU
    found = open_run(run, checkpoint)
    codec = found.system().codec()
    recipe = found.recipe()
    if codec is None:
        raise InputError(
            f"run {run} ({recipe.system}/{recipe.stage}) has no codec: its stage makes no code"
        )
    return codec


def compress_file(run: Path, checkpoint: str, keep: bool, job: files.Job) -> Done:
    """Compress one image.

    Args:
        run: The directory of the run whose codec is used.
        checkpoint: The checkpoint of the run.
        keep: Whether to keep a target that is an undamaged file of this codec; otherwise it is
            replaced.
        job: The image and its compressed file.

    Raises:
        InputError: The image cannot be read, or with `keep` the target exists and is something
            else.
    """
    from cluster.files import write_bytes

    codec = opened(run, checkpoint)
    if keep and job.target.exists():
        stream = _whole_stream(codec, job.target)
    else:
        keep = False
        image_HWC = files.read_image(job.source)
        try:
            stream = codec.compress(Picture(image_HWC))
        except InputError as error:
            raise InputError(f"{job.source} cannot be compressed: {error}") from None
        write_bytes(job.target, stream)
    return _done(codec, stream, str(job.target), keep)


def decompress_file(
    run: Path, checkpoint: str, draw: int, max_pixels: int, keep: bool, job: files.Job
) -> Done:
    """Decompress one file.

    Args:
        run: The directory of the run whose codec wrote the file.
        checkpoint: The checkpoint of the run.
        draw: The number of the draw of the decoder's noise.
        max_pixels: The number of pixels that are decoded at most.
        keep: Whether to keep a target that is this very image; otherwise it is replaced.
        job: The compressed file and its PNG image.

    Raises:
        InputError: The stream cannot be decoded, or with `keep` the target exists and is something
            else.
    """
    from cluster.files import write_bytes

    codec = opened(run, checkpoint)
    stream = files.read(job.source)
    comes_from = files.origin(codec.codec_id, codec.reader_fingerprint, draw, stream)
    if keep and job.target.exists():
        if not files.is_whole_png(job.target, comes_from):
            raise InputError(
                f"{job.target} exists and is not what {job.source} decodes to with draw {draw}; add"
                " --overwrite to replace it"
            )
        return _done(codec, stream, str(job.source), kept=True)
    image_HWC = codec.decompress(stream, draw=draw, max_pixels=max_pixels, name=str(job.source))
    done = _done(codec, stream, str(job.source), kept=False)
    write_bytes(job.target, files.png(image_HWC, comes_from))
    return done


def processes_for(jobs: Sequence[files.Job], keep: bool, asked: int | None) -> int:
    """The number of processes to start for some files.

    Args:
        jobs: The files to do.
        keep: Whether files that exist are kept, so that they take almost no time.
        asked: The number that the user asks for; None means one for each CPU, but no more than the
            number of files is worth.

    Raises:
        InputError: Less than one process is asked for.
    """
    from shards.pool import usable_cpus

    if asked is not None and asked < 1:
        raise InputError(f"--processes is {asked}, it must be at least 1")
    if asked is None:
        new = sum(not (keep and job.target.exists()) for job in jobs)
        asked = min(usable_cpus(), -(-new // _FILES_WORTH_A_PROCESS))
    return max(1, min(asked, len(jobs)))


def all_files(
    verb: str, folder: Path, work: Work, jobs: Sequence[files.Job], processes: int
) -> Iterator[Done | Failed]:
    """Work on many files at once and show the progress; a bad file does not stop the others.

    Args:
        verb: The verb of the progress display.
        folder: The folder that the progress display names.
        work: The picklable function that works on one file.
        jobs: The files to do.
        processes: The number of processes; 1 means this very process.

    Raises:
        ShardError: A process was killed.
    """
    from shards.pool import in_order

    with progress(verb, "images") as show:
        show(str(folder), 0, len(jobs))
        results = in_order(partial(_attempt, work), jobs, processes, watch=lambda counts: None)
        for number, result in enumerate(results, start=1):
            show(str(folder), number, len(jobs))
            yield result


def _attempt(work: Work, job: files.Job, report: Callable[[int], None]) -> Done | Failed:
    try:
        return work(job)
    except InputError as error:
        return Failed(str(error))


def _whole_stream(codec: Codec, path: Path) -> bytes:
    stream = files.read(path)
    try:
        found = container.unpack(stream)
        container.require_writer(found, codec.codec_id, codec.writer_fingerprint, str(path))
    except InputError as error:
        raise InputError(
            f"{path} exists and is no whole file of this codec ({error}); add --overwrite to"
            " replace it"
        ) from None
    return stream


def _done(codec: Codec, stream: bytes, name: str, kept: bool) -> Done:
    """The result for a stream of one picture.

    Raises:
        InputError: The stream holds several pictures, so no single image file belongs to it.
    """
    members = container.unpack(stream).members
    if len(members) > 1:
        raise InputError(f"{name} holds {len(members)} pictures, a file for this command holds one")
    height, width, _ = members[0]
    nominal_bits = codec.nominal_bits(height, width)
    return Done(height, width, len(stream), codec.code_bits(stream), nominal_bits, kept)
