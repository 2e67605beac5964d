"""`gencomp decompress`, which writes compressed files back to images with the codec of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.compress import files, work
from gencomp.cli.compress.summary import conclude
from gencomp.coding.noise import require_draw
from gencomp.errors import InputError
from gencomp.exit_codes import DONE


def decompress(
    run: tyro.conf.Positional[Path],
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    draw: int = 0,
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
        overwrite: Replace files that exist.
        processes: How many processes work on a folder at once; by default one for each CPU.
    """
    require_draw(draw)
    if stream.is_dir():
        files.require_folder(out)
        jobs = files.stream_jobs(stream, out)
        count = work.processes_for(jobs, not overwrite, processes)
        work.opened(run, checkpoint)
        function = partial(work.decompress_file, run, checkpoint, draw, not overwrite)
        results = work.all_files("decompressing", stream, function, jobs, count)
        return conclude(f"Decompressed to {out}", list(results))
    files.require_place(out, overwrite)
    if out.suffix.lower() != ".png":
        raise InputError(
            f"{out} must end in .png: another format would not keep the decoded pixels"
        )
    done = work.decompress_file(run, checkpoint, draw, False, files.Job(stream, out))
    print(f"{out}: {done.width}×{done.height} pixels")
    return DONE
