"""`gencomp compress`, which writes images to compressed files with the codec of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import tyro

from gencomp.cli.arguments import Checkpoint
from gencomp.cli.compress import files, work
from gencomp.cli.compress.summary import bpp, conclude, nominal_bpp
from gencomp.exit_codes import DONE


def compress(
    run: tyro.conf.Positional[Path],
    image: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
    processes: int | None = None,
) -> int:
    """Write an image, or all images of a folder, to compressed files.

    The files of a folder keep their sub-folders and names: sub/a.png becomes sub/a.png.gcp.
    Undamaged files of this codec that exist already are kept, so the same command goes on where it
    was stopped.

    Args:
        run: The run whose codec is used, for example a trial of a sweep.
        image: An image file (PNG, JPEG, WebP, ...) of any size, or a folder with images.
        out: The compressed file to write, or the folder for the compressed files.
        overwrite: Replace files that exist.
        processes: How many processes work on a folder at once; by default one for each CPU.
    """
    if image.is_dir():
        files.require_folder(out)
        jobs = files.image_jobs(image, out)
        count = work.processes_for(jobs, not overwrite, processes)
        work.opened(run, checkpoint)
        function = partial(work.compress_file, run, checkpoint, not overwrite)
        results = work.all_files("compressing", image, function, jobs, count)
        return conclude(f"Compressed to {out}", list(results))
    files.require_place(out, overwrite)
    done = work.compress_file(run, checkpoint, False, files.Job(image, out))
    nominal = nominal_bpp([done])
    print(
        f"{out}: {done.bytes} bytes = {done.code_bits} bits of code ({bpp(done.code_bits, [done])}"
        f" bpp{f'; nominal {done.nominal_bits} bits, {nominal} bpp' if nominal else ''})"
        f" + {done.container_bits} bits of container"
    )
    return DONE
