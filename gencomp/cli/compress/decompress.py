"""`gencomp decompress`, which writes compressed files back to images by a run or a model file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import tyro

from cluster.compressed_files import images, places, work
from cluster.compressed_files.places import Job
from cluster.compressed_files.processes import require_processes, work_on
from gencomp.cli.arguments import Checkpoint, require_max_pixels
from gencomp.cli.compress.summary import conclude, followed, print_left_out
from gencomp.coding.container import MAX_PIXELS
from gencomp.coding.noise import require_draw
from gencomp.errors import InputError
from gencomp.exit_codes import DONE


def decompress(
    run: tyro.conf.Positional[Path],
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    place: int | None = None,
    draw: int = 0,
    toward: Path | None = None,
    share: float = 0.5,
    max_pixels: int = MAX_PIXELS,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
    processes: int | None = None,
) -> int:
    """Write a compressed file, or all compressed files of a folder, back to PNG images.

    The pictures of a joint file go to a folder and are named by their numbers: those of a thousand
    are 000.png to 999.png. The images of a folder keep their sub-folders and names: sub/a.png.gcp
    becomes sub/a.png, and b.jpg.gcp becomes b.jpg.png. An image that exists already is kept if this
    command would write the same image. Other files of the folder are left out, counted and named.

    Args:
        run: The run whose codec wrote the files, or a model file, which gencomp export writes.
        stream: A compressed file, or a folder with .gcp files.
        out: The PNG file to write, or the folder for the images.
        place: The number, from 0, of the picture of a joint file that is written alone.
        draw: The number of the draw of the decoder's noise; each number gives another draw.
        toward: Another run or model file whose decoder reads the same files, to show images between
            those of the two decoders.
        share: The share of the other run's image, from 0 to 1; 0 is the image of the first run.
        max_pixels: The number of pixels of an image that are decoded at most; a file that claims
            more is refused before any work.
        overwrite: Replace files that exist.
        processes: How many processes work on many images at once; by default as many as they are
            worth, up to one for each CPU.
    """
    require_draw(draw)
    require_max_pixels(max_pixels)
    require_processes(processes)
    if not 0 <= share <= 1:
        raise InputError(f"--share is {share:g}, it must be from 0 to 1")
    between = None if toward is None else work.Toward(toward, share)
    function = partial(work.decompress_file, run, checkpoint, between, draw, max_pixels)
    if joint := not stream.is_dir():
        stated = work.pixels(stream)
        if place is not None or len(stated) == 1:
            return _one(function, overwrite, Job(stream, out, place))
        if out.suffix.lower() == ".png":
            raise InputError(
                f"{stream} holds {len(stated)} pictures: name a folder for them, or choose one by"
                " --place"
            )
        if max(stated) > max_pixels:
            raise InputError(
                f"{stream} claims a picture of {max(stated)} pixels, which is more than the limit"
                f" of {max_pixels}; raise --max-pixels for it, or choose another one by --place"
            )
        jobs = places.picture_jobs(stream, stated, out)
    else:
        if place is not None:
            raise InputError(f"--place chooses a picture of one file, but {stream} is a folder")
        jobs = places.stream_jobs(stream, out)
    places.require_folder(out)
    codec = work.opened(run, checkpoint, between)
    if not joint:
        print_left_out(places.other_files(stream, jobs), f"the ending {places.SUFFIX}")
    results = work_on(jobs, partial(function, not overwrite), not overwrite, processes)
    found = followed("decompressing", stream, len(jobs), results)
    file = work.content(codec, images.read(stream)) if joint else None
    return conclude(f"Decompressed to {out}", found, file)


def _one(function: Callable[[bool, Job], work.Done], overwrite: bool, job: Job) -> int:
    places.require_file(job.target, overwrite)
    if job.target.suffix.lower() != ".png":
        raise InputError(
            f"{job.target} must end in .png: another format would not keep the decoded pixels"
        )
    done = function(False, job)
    print(f"{job.target}: {done.width}×{done.height} pixels")
    return DONE
