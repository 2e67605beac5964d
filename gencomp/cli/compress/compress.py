"""`gencomp compress`, which writes images to compressed files with the codec of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from cluster.compressed_files import places, work
from cluster.compressed_files.processes import require_processes, work_on
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.compress.summary import conclude, followed, sentence
from gencomp.cli.console import progress
from gencomp.errors import InputError
from gencomp.exit_codes import DONE


def compress(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def compress(
        run: tyro.conf.Positional[Path],
        files: tyro.conf.Positional[
            Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE... OUT")]
        ],
        /,
        joint: bool = False,
        checkpoint: Checkpoint = "last",
        overwrite: bool = False,
        processes: int | None = None,
    ) -> int:
        """Write an image, several images, or all images of a folder, to compressed files.

        Several images become one joint file, in which small images cost fewer bytes, in the order
        in which they are named. The images of a folder become files of their own, which keep their
        sub-folders and names: sub/a.png becomes sub/a.png.gcp. Undamaged files of this codec that
        exist already are kept, so the same command goes on where it was stopped. With --joint, the
        images of a folder become one joint file too, in the order of their names.

        Codecs take RGB of 8 bits. Images are turned upright by their orientation tag; grey becomes
        three equal channels, a palette its colours, CMYK plain RGB; of 16 bits the upper 8 are
        kept; transparent pixels are laid over white. Images of 32 bits a channel are refused.

        Some codecs can write the same image in several ways, which every decoder of the run reads:
        --codec.KEY VALUE chooses one, and gencomp compress RUN --help lists the keys.

        Args:
            run: The run whose codec is used, for example a trial of a sweep.
            files: Image files (PNG, JPEG, WebP, ...) of any size, or one folder with images; and
                last the compressed file to write, or the folder for the compressed files.
            joint: Write all images of a folder to one joint file.
            overwrite: Replace files that exist.
            processes: How many processes work on a folder at once; by default as many as its images
                are worth, up to one for each CPU. One process writes a joint file.
        """
        require_processes(processes)
        return _compress(work.Writer(run, checkpoint, writing), files, joint, overwrite, processes)

    return recipe_words.call(compress, own, "gencomp compress", recipe_words.writing_keys)


def _compress(
    writer: work.Writer,
    files: Sequence[Path],
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
        return _folder(writer, folders[0], out, overwrite, processes)
    places.require_stream_name(out)
    places.require_file(out, overwrite)
    if len(sources) > 1 or joint:
        pictures = places.image_files(folders[0]) if folders else sources
        return _joint_file(writer, pictures, out)
    done = work.compress_file(writer, False, places.Job(sources[0], out))
    assert done.file is not None
    print(f"{out}: {sentence(done.file)}")
    return DONE


def _joint_file(writer: work.Writer, sources: Sequence[Path], out: Path) -> int:
    with progress("compressing", "images") as show:
        show(str(out), 0, len(sources))
        content = work.compress_jointly(
            writer, sources, out, lambda count: show(str(out), count, len(sources))
        )
    print(f"{out}: {content.pictures} images in {sentence(content)}")
    return DONE


def _folder(
    writer: work.Writer, folder: Path, out: Path, overwrite: bool, processes: int | None
) -> int:
    places.require_folder(out)
    jobs = places.image_jobs(folder, out)
    writer.opened()
    function = partial(work.compress_file, writer, not overwrite)
    results = followed(
        "compressing", folder, len(jobs), work_on(jobs, function, not overwrite, processes)
    )
    return conclude(f"Compressed to {out}", results)
