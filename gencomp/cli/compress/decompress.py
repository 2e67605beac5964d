"""`gencomp decompress`: compressed files back to images, with the codec of a run."""

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
    """Write a compressed file, or all of a folder, back to PNG images.

    The images of a folder keep sub-folders and names, sub/a.png.gcp as sub/a.png and b.jpg.gcp as
    b.jpg.png. Images that are there already are kept if they are what this command would write.

    Args:
        run: Run whose codec wrote the files.
        stream: Compressed file, or a folder with .gcp files.
        out: PNG file to write, or the folder for them.
        draw: Another number decodes with another draw of the decoder's noise.
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
        return conclude(f"Decompressed to {out}", list(results))
    files.require_place(out, overwrite)
    if out.suffix.lower() != ".png":
        raise InputError(
            f"{out} must end in .png: another format would not keep the decoded pixels"
        )
    done = work.decompress_file(run, checkpoint, draw, False, files.Job(stream, out))
    print(f"{out}: {done.width}×{done.height} pixels")
    return DONE
