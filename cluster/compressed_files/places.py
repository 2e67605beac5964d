"""The names of images and of compressed files, and whether a file may be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gencomp.errors import InputError
from shards.reading import decode

SUFFIX = ".gcp"
_IMAGE_ENDINGS = frozenset(f".{ending}" for ending in decode.EXTENSIONS | decode.RARE_EXTENSIONS)


class Job(NamedTuple):
    """A file to read, and the file to write for it.

    Attributes:
        source, target: The two files.
        place: The place of the picture in a joint file; None for a file of one picture.
        pixels: The number of pixels of the picture, where it is known without reading the source.
        maps: The files of the image's maps, by name.
    """

    source: Path
    target: Path
    place: int | None = None
    pixels: int | None = None
    maps: Mapping[str, Path] = {}


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, sorted by their names.

    Raises:
        InputError: The folder holds no images.
    """
    names = [name for name in _below(folder) if name.suffix.lower() in _IMAGE_ENDINGS]
    if not names:
        raise InputError(f"{folder} holds no images ({', '.join(sorted(_IMAGE_ENDINGS))})")
    return [folder / name for name in names]


def image_jobs(folder: Path, out: Path, maps: Mapping[str, Path]) -> list[Job]:
    """A job for each image file below a folder: sub/a.png is written to sub/a.png.gcp.

    Args:
        folder: The folder of the images.
        out: The folder of the compressed files.
        maps: The folders of their maps by name.

    Raises:
        InputError: The folder holds no images, or a map is missing.
    """
    return [
        Job(
            image,
            out / f"{image.relative_to(folder)}{SUFFIX}",
            maps=maps_of(image, maps, folder),
        )
        for image in image_files(folder)
    ]


def other_files(folder: Path, jobs: Sequence[Job]) -> list[Path]:
    """The visible files below a folder that no job reads or writes, sorted by their names.

    Maps and compressed files beside the images are read or written by commands, so they are not
    among them.
    """
    used = {job.source for job in jobs} | {job.target for job in jobs}
    used |= {file for job in jobs for file in job.maps.values()}
    return [
        folder / name
        for name in _below(folder)
        if folder / name not in used
        and name.suffix.lower() != SUFFIX
        and not any(part.startswith(".") for part in name.parts)
    ]


def maps_of(image: Path, maps: Mapping[str, Path], folder: Path | None = None) -> dict[str, Path]:
    """The files of an image's maps, by name.

    A map of sub/a.jpg is sub/a.png below the folder of these maps.

    Args:
        image: The image.
        maps: For each name, the folder of the maps, or the map itself if there is one image alone.
        folder: The folder from which the image's path counts; None for the image's name alone.

    Raises:
        InputError: A map is missing.
    """
    path = image.relative_to(folder) if folder else Path(image.name)
    found = {}
    for name, root in maps.items():
        found[name] = root / path.with_suffix(".png") if root.is_dir() else root
        if not found[name].is_file():
            raise InputError(f"the map {name} of {image} is missing: there is no {found[name]}")
    return found


def require_known(maps: Mapping[str, Path], names: Sequence[str]) -> None:
    """Raise `InputError` for a map that the codec, which uses maps of these names, does not use."""
    for name in maps:
        if name not in names:
            used = f"uses {', '.join(names)}" if names else "uses none"
            raise InputError(f"--maps names the map {name}, but this codec {used}")


def require_own_maps(jobs: Sequence[Job]) -> None:
    """Raise `InputError` if two images have the same map."""
    owners: dict[Path, Path] = {}
    for job in jobs:
        for file in job.maps.values():
            if (other := owners.setdefault(file, job.source)) != job.source:
                raise InputError(
                    f"{other} and {job.source} would both have the map {file}: compress them one by"
                    " one, or give one folder of images"
                )


def require_folders(maps: Mapping[str, Path]) -> None:
    """Raise `InputError` unless the maps of many images lie in folders."""
    for name, root in maps.items():
        if not root.is_dir():
            raise InputError(
                f"--maps {name}={root} is not a folder, but many images need a folder of maps with"
                " their names"
            )


def stream_jobs(folder: Path, out: Path) -> list[Job]:
    """A job for each compressed file below a folder: sub/a.png.gcp is written to sub/a.png.

    Raises:
        InputError: The folder holds no compressed files, or two of them would become one image.
    """
    names = [name for name in _below(folder) if name.suffix.lower() == SUFFIX]
    if not names:
        raise InputError(f"{folder} holds no compressed files ({SUFFIX})")
    sources: dict[Path, Path] = {}
    for name in names:
        inner = name.with_suffix("")
        image = inner if inner.suffix.lower() == ".png" else inner.with_name(f"{inner.name}.png")
        if image in sources:
            raise InputError(
                f"{folder / sources[image]} and {folder / name} would both become {image}: rename"
                " one"
            )
        sources[image] = name
    return [Job(folder / name, out / image) for image, name in sources.items()]


def picture_jobs(stream: Path, pixels: Sequence[int], out: Path) -> list[Job]:
    """A job for each picture of a joint file; those of 1,000 are written to 000.png ... 999.png.

    Args:
        stream: The joint file.
        pixels: The number of pixels of each of its pictures.
        out: The folder for the images.
    """
    digits = len(str(len(pixels) - 1))
    return [
        Job(stream, out / f"{place:0{digits}}.png", place, count)
        for place, count in enumerate(pixels)
    ]


def require_file(path: Path, overwrite: bool) -> None:
    """Raise `InputError` for a file that exists, and for a place where no file can be made."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, but one file is to be written")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; add --overwrite to replace it")
    _require_parent(path)


def require_stream_name(path: Path) -> None:
    """Raise `InputError` for the name of an image: a forgotten name would replace an image."""
    if path.suffix.lower() in _IMAGE_ENDINGS:
        raise InputError(f"{path} is the name of an image; end the compressed file in {SUFFIX}")


def require_folder(path: Path) -> None:
    """Raise `InputError` for a path where no folder can be made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, but many files need a folder to go to")
    _require_parent(path)


def _below(folder: Path) -> Sequence[Path]:
    """The files below a folder, relative to it, sorted; hidden ones left out."""
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if not path.name.startswith(".") and path.is_file()
    )


def _require_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"the directory {path.parent} does not exist")
