"""What one process does for `gencomp compress` and `decompress`: a file there, a file back."""

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

# Fewer files than this a process are done before it has started.
_FILES_WORTH_A_PROCESS = 8


class Done(NamedTuple):
    """One compressed file and its image.

    Attributes:
        height, width: of the image.
        bytes: of the file.
        code_bits: of the code in it.
        nominal_bits: of the code at the method's fixed length; None for a method without one.
        kept: the file to write was there already.
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
    """A file that was not written, and why."""

    sentence: str


Work = Callable[[files.Job], Done]


@cache
def opened(run: Path, checkpoint: str) -> Codec:
    """The codec of a run, loaded once in a process.

    Args:
        run: the directory of the run.
        checkpoint: which of its checkpoints, as the command line names it.

    Raises:
        InputError: no run, no such checkpoint, or a run without a codec.
    """
    import torch

    from cluster.runs import open_run

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # one process a CPU
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
        run: whose codec to use.
        checkpoint: which of its checkpoints.
        keep: leave the target alone if it is a whole file of this codec; else it is replaced.
        job: the image and its compressed file.

    Raises:
        InputError: no readable image, or the target exists and is something else.
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


def decompress_file(run: Path, checkpoint: str, draw: int, keep: bool, job: files.Job) -> Done:
    """Decompress one file.

    Args:
        run: whose codec wrote it.
        checkpoint: which of its checkpoints.
        draw: of the decoder's noise.
        keep: leave the target alone if it is this very image; else it is replaced.
        job: the compressed file and its PNG image.

    Raises:
        InputError: the stream cannot be decoded, or the target exists and is something else.
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
    image_HWC = codec.decompress(stream, draw=draw, name=str(job.source))
    done = _done(codec, stream, str(job.source), kept=False)
    write_bytes(job.target, files.png(image_HWC, comes_from))
    return done


def processes_for(jobs: Sequence[files.Job], keep: bool, asked: int | None) -> int:
    """How many processes to start for files.

    Args:
        jobs: files to do.
        keep: files that exist cost next to nothing.
        asked: what the user wants; None: one a CPU, as far as the files are worth one.

    Raises:
        InputError: less than one is asked for.
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
    """Do many files side by side and show how far it is; a bad one does not stop the others.

    Args:
        verb: for the display.
        folder: for the display.
        work: picklable.
        jobs: files to do.
        processes: how many; 1 means this very process.

    Raises:
        ShardError: a process was killed.
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
    """
    Raises:
        InputError: a stream of several pictures, for which there is no one image file.
    """
    members = container.unpack(stream).members
    if len(members) > 1:
        raise InputError(f"{name} holds {len(members)} pictures, a file for this command holds one")
    height, width, _ = members[0]
    nominal_bits = codec.nominal_bits(height, width)
    return Done(height, width, len(stream), codec.code_bits(stream), nominal_bits, kept)
