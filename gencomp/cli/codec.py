"""`gencomp compress` and `decompress`: images to files and back, with the codec of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tyro

from gencomp.cli import codec_files as files
from gencomp.cli import codec_work as work
from gencomp.cli.console import print_table
from gencomp.coding.noise import require_draw
from gencomp.errors import InputError


def compress(
    run: tyro.conf.Positional[Path],
    image: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    checkpoint: str = "last",
    overwrite: bool = False,
    processes: int | None = None,
) -> int:
    """Write an image, or all images of a folder, to compressed files.

    The files of a folder keep sub-folders and names, sub/a.png as sub/a.png.gcp. Whole files of
    this codec that are there already are kept, so the same command goes on where it was stopped.

    Args:
        run: Run whose codec to use, for example a sweep's trial.
        image: Image file (PNG, JPEG, WebP, ...) of any size, or a folder with images.
        out: Compressed file to write, or the folder for them.
        checkpoint: Checkpoint of the run: last, best (by training.keep_best_metric) or a step.
        overwrite: Replace files that exist.
        processes: How many work side by side on a folder; by default one a CPU.
    """
    if image.is_dir():
        files.require_folder(out)
        jobs = files.image_jobs(image, out)
        count = work.processes_for(jobs, not overwrite, processes)
        work.opened(run, checkpoint)
        function = partial(work.compress_file, run, checkpoint, not overwrite)
        results = work.all_files("compressing", image, function, jobs, count)
        return _report(f"Compressed to {out}", list(results))
    files.require_place(out, overwrite)
    done = work.compress_file(run, checkpoint, False, files.Job(image, out))
    nominal = _nominal([done])
    print(
        f"{out}: {done.bytes} bytes = {done.code_bits} bits of code ({_bpp(done.code_bits, [done])}"
        f" bpp{f'; nominal {done.nominal_bits} bits, {nominal} bpp' if nominal else ''})"
        f" + {done.container_bits} bits of container"
    )
    return 0


def decompress(
    run: tyro.conf.Positional[Path],
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    draw: int = 0,
    checkpoint: str = "last",
    overwrite: bool = False,
    processes: int | None = None,
) -> int:
    """Write a compressed file, or all of a folder, back to PNG images.

    The images of a folder keep sub-folders and names, sub/a.png.gcp as sub/a.png and b.jpg.gcp as
    b.jpg.png. Images that are there already are kept if they are what this command would write.

    Args:
        run: Run whose codec wrote the files.
        stream: Compressed file, or a folder with .gcp files.
        out: PNG file to write, or the folder for them.
        draw: Another number decodes with another draw of the decoder's noise.
        checkpoint: The checkpoint that the files were compressed by, named as for compress.
        overwrite: Replace files that exist.
        processes: How many work side by side on a folder; by default one a CPU.
    """
    require_draw(draw)
    if stream.is_dir():
        files.require_folder(out)
        jobs = files.stream_jobs(stream, out)
        count = work.processes_for(jobs, not overwrite, processes)
        work.opened(run, checkpoint)
        function = partial(work.decompress_file, run, checkpoint, draw, not overwrite)
        results = work.all_files("decompressing", stream, function, jobs, count)
        return _report(f"Decompressed to {out}", list(results))
    files.require_place(out, overwrite)
    if out.suffix.lower() != ".png":
        raise InputError(
            f"{out} must end in .png: another format would not keep the decoded pixels"
        )
    done = work.decompress_file(run, checkpoint, draw, False, files.Job(stream, out))
    print(f"{out}: {done.width}×{done.height} pixels")
    return 0


def _report(title: str, results: Sequence[work.Done | work.Failed]) -> int:
    """Say what became of the files of a folder; 1 if some failed."""
    done = [result for result in results if isinstance(result, work.Done)]
    failed = [result for result in results if isinstance(result, work.Failed)]
    if done:
        columns = {
            "images": f"{len(done)}",
            "there before": f"{sum(one.kept for one in done)}",
            "bytes": f"{sum(one.bytes for one in done)}",
            "bpp nominal": _nominal(done) or "–",
            "bpp of code": _bpp(sum(one.code_bits for one in done), done),
            "bpp of containers": _bpp(sum(one.container_bits for one in done), done),
        }
        print_table(title, list(columns), [list(columns.values())])
    if failed:
        print(f"gencomp: {len(failed)} of {len(results)} images failed:", file=sys.stderr)
        for one in failed:
            print(f"  {one.sentence}", file=sys.stderr)
    return 1 if failed else 0


def _nominal(done: Sequence[work.Done]) -> str:
    """Bits per pixel at the method's fixed length; nothing for a method without one."""
    nominal = [one.nominal_bits for one in done if one.nominal_bits is not None]
    return _bpp(sum(nominal), done) if len(nominal) == len(done) else ""


def _bpp(bits: int, done: Sequence[work.Done]) -> str:
    return f"{bits / sum(one.height * one.width for one in done):.4g}"
