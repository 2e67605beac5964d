"""`gencomp compress`, which writes images to compressed files by a run or a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from cluster.compressed_files import places, work
from cluster.compressed_files.processes import require_processes, work_on
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint, require_max_pixels
from gencomp.cli.compress.summary import (
    conclude,
    followed,
    print_left_out,
    sentence,
)
from gencomp.cli.console import print_conversions, progress
from gencomp.errors import InputError
from gencomp.exit_codes import DONE
from shards.reading.decode import MAX_PIXELS
from shards.reading.maps import parse_maps


def compress(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def compress(
        run: tyro.conf.Positional[Path],
        files: tyro.conf.Positional[
            Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE... OUT")]
        ],
        /,
        maps: tuple[str, ...] = (),
        joint: bool = False,
        checkpoint: Checkpoint = "last",
        overwrite: bool = False,
        max_pixels: int = MAX_PIXELS,
        processes: int | None = None,
    ) -> int:
        """Write an image, several images, or all images of a folder, to compressed files.

        Several images become one joint file, in which small images cost fewer bytes, in the order
        in which they are named. The images of a folder become files of their own, which keep their
        sub-folders and names: sub/a.png becomes sub/a.png.gcp. Undamaged files of this codec that
        exist already are kept, so the same command goes on where it was stopped; after a change of
        images, maps or --codec, add --overwrite. With --joint, the
        images of a folder become one joint file too, in the order of their names. Files whose names
        do not end like those of images are left out, counted and named.

        Codecs take RGB of 8 bits. Images are turned upright by their orientation tag; grey becomes
        three equal channels, a palette its colours, CMYK plain RGB; of 16 bits the upper 8 are
        kept; transparent pixels are laid over white; where the orientation tag cannot be read,
        the image is taken as stored. The command says what was done to how many images. Images of
        32 bits a channel and files of several pages or frames are refused.

        Some codecs need maps of an image's pixels, such as its labels: --maps label=LABELS.png for
        one image, and --maps label=LABELS with a folder of files of the same names for several. A
        map is a grey PNG or one with a palette, whose values are ids.

        Some codecs can write the same image in several ways, which every decoder of the run reads:
        --codec.KEY VALUE chooses one, and gencomp compress RUN --help lists the keys.

        Args:
            run: The run whose codec is used, for example a trial of a sweep; or a model file, which
                gencomp export writes.
            files: Image files (PNG, JPEG, WebP, ...) of any size, or one folder with images; and
                last the compressed file to write, or the folder for the compressed files.
            maps: For codecs that need maps of the pixels, NAME=PATH of each.
            joint: Write all images of a folder to one joint file.
            overwrite: Replace files that exist.
            max_pixels: The number of pixels of an image that are decoded at most; a file that
                claims more is refused before any work.
            processes: How many processes work on a folder at once; by default as many as its images
                are worth, up to one for each CPU. One process writes a joint file.
        """
        require_processes(processes)
        require_max_pixels(max_pixels)
        writer = work.Writer(run, checkpoint, writing, max_pixels)
        roots = parse_maps(maps)
        if roots:
            places.require_known(roots, writer.opened().maps)
        return _compress(writer, files, roots, joint, overwrite, processes)

    return recipe_words.call(compress, own, "gencomp compress", recipe_words.writing_keys)


def _compress(
    writer: work.Writer,
    files: Sequence[Path],
    maps: Mapping[str, Path],
    joint: bool,
    overwrite: bool,
    processes: int | None,
) -> int:
    if len(files) < 2:
        missing = "OUT" if files else "IMAGE, OUT"
        raise InputError(f"missing {missing}; see gencomp compress --help")
    *sources, out = files
    folders = [path for path in sources if path.is_dir()]
    if folders and len(sources) > 1:
        raise InputError(f"{folders[0]} is a folder: name image files, or one folder alone")
    if folders and not joint:
        return _folder(writer, folders[0], out, maps, overwrite, processes)
    places.require_stream_name(out)
    places.require_file(out, overwrite)
    if len(sources) > 1 or joint:
        places.require_folders(maps)
        folder = folders[0] if folders else None
        pictures = places.image_files(folder) if folder else sources
        jobs = [places.Job(one, out, maps=places.maps_of(one, maps, folder)) for one in pictures]
        places.require_own_maps(jobs)
        if folder is not None:
            _print_left_out(folder, jobs)
        return _joint_file(writer, jobs, out)
    job = places.Job(sources[0], out, maps=places.maps_of(sources[0], maps))
    done = work.compress_file(writer, False, job)
    assert done.file is not None
    print(f"{out}: {sentence(done.file)}")
    for what in done.conversions:
        print(f"{sources[0]}: {what}")
    return DONE


def _joint_file(writer: work.Writer, jobs: Sequence[places.Job], out: Path) -> int:
    with progress("compressing", "images") as show:
        show(str(out), 0, len(jobs))
        content, conversions = work.compress_jointly(
            writer, jobs, out, lambda count: show(str(out), count, len(jobs))
        )
    print(f"{out}: {content.pictures} images in {sentence(content)}")
    print_conversions(conversions, content.pictures)
    return DONE


def _folder(
    writer: work.Writer,
    folder: Path,
    out: Path,
    maps: Mapping[str, Path],
    overwrite: bool,
    processes: int | None,
) -> int:
    places.require_folder(out)
    places.require_folders(maps)
    jobs = places.image_jobs(folder, out, maps)
    writer.opened()
    _print_left_out(folder, jobs)
    function = partial(work.compress_file, writer, not overwrite)
    results = followed(
        "compressing", folder, len(jobs), work_on(jobs, function, not overwrite, processes)
    )
    return conclude(f"Compressed to {out}", results)


def _print_left_out(folder: Path, jobs: Sequence[places.Job]) -> None:
    print_left_out(places.other_files(folder, jobs), "the ending of an image that can be read")
