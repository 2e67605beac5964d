"""`gencomp decompress`, which writes compressed files back to images with the codec of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.compress import files, work
from gencomp.cli.compress.summary import conclude
from gencomp.coding.container import MAX_PIXELS
from gencomp.coding.noise import require_draw
from gencomp.errors import InputError
from gencomp.exit_codes import DONE


def decompress(
    run: tyro.conf.Positional[Path],
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    draw: int = 0,
    max_pixels: int = MAX_PIXELS,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
    processes: int | None = None,
) -> int:
    """Write a compressed file, or all compressed files of a folder, back to PNG images.

    The images of a folder keep their sub-folders and names: sub/a.png.gcp becomes sub/a.png, and
    b.jpg.gcp becomes b.jpg.png. An image that exists already is kept if this command would write
    the same image.

    Args:
        run: The run whose codec wrote the files.
        stream: A compressed file, or a folder with .gcp files.
        out: The PNG file to write, or the folder for the images.
        draw: The number of the draw of the decoder's noise; each number gives another draw.
        max_pixels: The number of pixels of an image that are decoded at most; a file that claims
            more is refused before any work.
        overwrite: Replace files that exist.
        processes: How many processes work on a folder at once; by default one for each CPU.
    """
    require_draw(draw)
    if max_pixels < 1:
        raise InputError(f"--max-pixels is {max_pixels}, it must be at least 1")
    if stream.is_dir():
        files.require_folder(out)
        jobs = files.stream_jobs(stream, out)
        count = work.processes_for(jobs, not overwrite, processes)
        work.opened(run, checkpoint)
        function = partial(work.decompress_file, run, checkpoint, draw, max_pixels, not overwrite)
        results = work.all_files("decompressing", stream, function, jobs, count)
        return conclude(f"Decompressed to {out}", list(results))
    files.require_place(out, overwrite)
    if out.suffix.lower() != ".png":
        raise InputError(
            f"{out} must end in .png: another format would not keep the decoded pixels"
        )
    done = work.decompress_file(run, checkpoint, draw, max_pixels, False, files.Job(stream, out))
    print(f"{out}: {done.width}×{done.height} pixels")
    return DONE
