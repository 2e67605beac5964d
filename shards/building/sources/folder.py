"""`folder`, `kodak`, `clic`: image files of any sizes, in a folder or an archive.

Each file's bytes are kept as they are unless a size or a storage is asked for; then orientation
tags are applied. Hidden files and `__MACOSX` are not looked at.

`folder` reads any images, searched recursively. Folders named train, val, validation, valid or test
at the top are the splits; without them, a seeded fraction of all the files becomes the test split.
The first folder below the split's root names the label. If all files of an archive lie in one
folder, that folder is passed over; the folder that holds the splits may also lie deeper. Files that
are no images or lie beside the splits end a build, or are left out and named if it skips errors.

Options: `test_images`, the number of images in the test split, or `test_fraction`, their fraction
(0.1 by default; 0 for no test split); and `seed`, the seed of the draw. Files of more than
`max_pixels` pixels are refused. With `maps`, such as label=LABELS, each image has a map of its path
below LABELS, and sub-folders give no labels (see `paired`); `class_names` names the ids of the map
`label`.

`kodak` reads the 24 photographs kodim01.png to kodim24.png, which are all in the split test. Other
files there, and files of `clic` that are no PNG, are passed over and counted in dataset.json.

`clic` reads the PNG files of CLIC, the Challenge on Learned Image Compression. The path is one of
its zips (professional_train_2020.zip, mobile_valid_2020.zip, CLIC2020Professional_test.zip, ...),
one of the folders that these unpack to, or a folder that holds several of them. The split of an
image is the word train, valid or test in the name of the nearest folder or zip that has one; its
label is the word professional or mobile, found in the same way.

Codecs are measured on Kodak and CLIC, so these images are stored without loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, passed_over, read_each, stored_picture
from shards.building.sources.archives import Files, above_splits, open_files, wrapping
from shards.building.sources.draw import drawn
from shards.building.sources.paired import paired
from shards.building.writer import NewSample
from shards.errors import ShardError
from shards.info import Skipped
from shards.reading import decode
from shards.reading.maps import parse_maps
from shards.tars import is_meta

SPLITS = ("train", "val", "valid", "validation", "test")
TEST_FRACTION = 0.1
_KODAK = tuple(f"kodim{number:02d}.png" for number in range(1, 25))
_CLIC_SPLIT = re.compile(r"(?<![a-z])(train|valid|test)(?![a-z])")
_CLIC_TRACK = re.compile(r"professional|mobile")


class File(NamedTuple):
    """One work item: a file (posix path) below a folder or in an archive, its key and label."""

    root: str
    path: str
    key: str
    label: int | None


def folder(
    path: Path | None,
    *,
    size: str | None = None,
    storage: str | None = None,
    test_images: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
    maps: Sequence[str] = (),
    class_names: str | None = None,
    max_pixels: int = decode.MAX_PIXELS,
) -> Source:
    """The source of any images; the docstring of the module describes its options.

    Raises `ShardError` when there are no files, and for wrong options.
    """
    if path is None:
        raise ShardError("the source folder needs the path of a folder or an archive of images")
    stored = pictures(size, storage, "original", max_pixels=max_pixels)
    files = open_files(path)
    found = files.names()
    if not found:
        raise ShardError(f"{path} holds no files")
    asked = (test_images, test_fraction) != (None, None)
    above = _above(path, found, asked)
    names = [name.removeprefix(above) for name in found if name.startswith(above)]
    strays = [name for name in found if not name.startswith(above)]
    strays += [f"{above}{name}" for name in names if _unread(name)]
    names = [name for name in names if not _unread(name)]
    own = sorted({name.split("/")[0] for name in names if "/" in name} & set(SPLITS))
    if own and asked:
        raise ShardError(
            f"{path} has the splits {', '.join(own)}: leave test images and fraction out"
        )
    draw: dict[str, Any] = {}
    if own:
        by_split = _own(names, own)
        strays += [f"{above}{name}" for name in names if name.split("/")[0] not in own]
        names = [name for chosen in by_split.values() for name in chosen]
    else:
        by_split, draw = _drawn(path, names, test_images, test_fraction, seed)
    if class_names is not None and not maps:
        raise ShardError("class names name the ids of label maps: give --maps label=LABELS too")
    more = {**draw, "files": len(found), "listing": files.fingerprint(found)}
    if max_pixels != decode.MAX_PIXELS:
        more["max_pixels"] = max_pixels
    if maps:
        keys = dict(zip(names, _keys(names), strict=True))
        roots = parse_maps(maps)
        source = paired(files, above, by_split, keys, stored, roots, class_names, more)
        return replace(source, strays=[*_strays(path, strays, own), *source.strays])
    depth = 1 if own else 0
    classes = sorted({label for name in names if (label := _class(name, depth)) is not None})
    splits = {
        split: _items([(str(path), f"{above}{n}", n, _class(n, depth)) for n in chosen], classes)
        for split, chosen in by_split.items()
    }
    source = _source("folder", stored, splits, classes, more)
    return replace(source, strays=_strays(path, strays, own))


def kodak(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the Kodak photographs; raises `ShardError` unless all of them are there."""
    if path is None:
        raise ShardError("kodak needs the path of the folder of kodim01.png to kodim24.png")
    stored = _lossless("kodak", size, storage)
    files = open_files(path)
    by_name: dict[str, str] = {}
    found = files.names()
    for name in found:
        if (other := by_name.setdefault(PurePosixPath(name).name.lower(), name)) != name:
            raise ShardError(f"{path} holds {other} and {name}: one of them is enough")
    if lost := [name for name in _KODAK if name not in by_name]:
        raise ShardError(
            f"{path} lacks {len(lost)} of the 24 photographs of Kodak, {lost[0]} first: put them "
            "there, or build a part of them with the source folder"
        )
    items = _items([(str(path), by_name[name], name, None) for name in _KODAK], [])
    more = {"listing": files.fingerprint(by_name[name] for name in _KODAK)}
    source = _source("kodak", stored, {"test": items}, [], more)
    others = sorted(set(found) - {by_name[name] for name in _KODAK})
    return replace(source, passed_over=passed_over(path.name, others, "photographs of Kodak"))


def clic(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the images of CLIC.

    Raises `ShardError` when the split of an image is not clear, and when an image is there twice.
    """
    if path is None:
        raise ShardError("clic needs the path of its zips or of the folders that they unpack to")
    stored = _lossless("clic", size, storage)
    listings = {}
    others: list[Skipped] = []
    by_split: dict[str, list[tuple[str, str, str, str | None]]] = {}
    places: dict[tuple[str, str], str] = {}
    for files in _roots(path):
        names = files.names()
        found = [name for name in names if name.lower().endswith(".png")]
        more = [name for name in names if not name.lower().endswith((".png", ".zip"))]
        others += passed_over(_below(path, files.path, ""), more, "PNG files")
        for name in found:
            where = _below(path, files.path, name)
            split, track = _clic_names(path, where)
            key = f"{track}/{PurePosixPath(name).name}" if track else PurePosixPath(name).name
            if (other := places.setdefault((split, key), where)) != where:
                raise ShardError(f"{path} holds {other} and {where}: one of them is enough")
            by_split.setdefault(split, []).append((str(files.path), name, key, track))
        if found:
            listings[_below(path, files.path, "")] = files.fingerprint(found)
    if not by_split:
        raise ShardError(f"{path} holds no PNG file, nor a zip of some")
    classes = sorted({t for chosen in by_split.values() for *_, t in chosen if t is not None})
    splits: dict[str, Listed] = {
        split: _items(sorted(by_split[split], key=lambda entry: entry[2]), classes)
        for split in ("train", "valid", "test")
        if split in by_split
    }
    source = _source("clic", stored, splits, classes, {"listings": listings})
    return replace(source, passed_over=others)


def encode(file: File, stored: Pictures) -> NewSample:
    """Read one image; raises a `ShardError` that names the file when it is no image or damaged."""
    root = Path(file.root)
    data = open_files(root).read(file.path)
    picture = stored_picture(stored, data, f"{file.path} in {root}")
    members = {picture.ext: picture.data}
    if file.label is not None:
        members["cls"] = str(file.label).encode()
    return NewSample(
        file.key, members, picture.ext, picture.width, picture.height, file.label,
        source=file.path, done=picture.done,
    )  # fmt: skip


def _source(
    name: str,
    stored: Pictures,
    splits: dict[str, Listed],
    classes: list[str],
    more: dict[str, Any],
) -> Source:
    return Source(
        name=name,
        parameters={"size": stored.size, "storage": stored.storage, **more},
        transform=stored.transform(),
        splits=splits,
        read=partial(read_each, partial(encode, stored=stored)),
        classes=classes,
    )


def _items(entries: Sequence[tuple[str, str, str, str | None]], classes: Sequence[str]) -> Listed:
    """Work items from entries (root, path in it, name to make the key from, class)."""
    number = {name: i for i, name in enumerate(classes)}
    keys = _keys([name for _, _, name, _ in entries])
    return Listed(
        [
            File(root, path, key, None if label is None else number[label])
            for (root, path, _, label), key in zip(entries, keys, strict=True)
        ]
    )


def _lossless(name: str, size: str | None, storage: str | None) -> Pictures:
    stored = pictures(size, storage, "original")
    if stored.storage.startswith("jpeg"):
        raise ShardError(
            f"{name} is what codecs are measured on, and {stored.storage} would change it: choose "
            "the storage original, png or webp"
        )
    return stored


def _above(path: Path, names: list[str], asked: bool) -> str:
    """The folder with its slash that is passed over, or ''.

    `asked` says that a test split is to be drawn, so that no splits are looked for further down.
    Raises `ShardError` when `path` is a folder and its splits lie in a folder below it.
    """
    images = (name for name in names if decode.has_image_ending(name))
    deep = "" if asked else above_splits(images, SPLITS)
    if not path.is_dir():
        return deep or wrapping(names, SPLITS)
    if deep:
        raise ShardError(
            f"{path} has its splits in the folder {deep.rstrip('/')}: give the path "
            f"{path / deep}, or draw a test split of all images with --test-fraction"
        )
    return ""


def _unread(name: str) -> bool:
    """Whether a file is an image by its name, but in a folder that WebDataset does not read."""
    return is_meta(PurePosixPath(name).parent.as_posix()) and decode.has_image_ending(name)


def _own(names: list[str], splits: list[str]) -> dict[str, list[str]]:
    return {s: [name for name in names if name.startswith(f"{s}/")] for s in splits}


def _strays(path: Path, names: list[str], splits: list[str]) -> list[Skipped]:
    return [Skipped(path=name, reason=_stray(path, name, splits)) for name in sorted(names)]


def _stray(path: Path, name: str, splits: list[str]) -> str:
    if _unread(name):
        return (
            f"{path} holds {name}, and WebDataset reads no folder whose name begins and ends with "
            "two underscores: rename the folder, or leave it out with --on-error skip"
        )
    return (
        f"{path} has the splits {', '.join(splits)}, and {name} is in none of them: move it, or "
        "leave it out with --on-error skip"
    )


def _drawn(
    path: Path, names: list[str], images: int | None, fraction: float | None, seed: int
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The drawn splits, and the parameters of the draw."""
    if images is not None and fraction is not None:
        raise ShardError("the test split has a number of images or a fraction of them, not both")
    draw: dict[str, Any] = {"test_images": images, "seed": seed}
    if images is None:
        fraction = TEST_FRACTION if fraction is None else fraction
        if not 0 <= fraction <= 1:
            raise ShardError(f"the test fraction is between 0 and 1, not {fraction}")
        images, draw = round(fraction * len(names)), {"test_fraction": fraction, "seed": seed}
    elif not 1 <= images < len(names):
        raise ShardError(
            f"a test split of {images} images cannot be drawn from the {len(names)} files of {path}"
        )
    test = [name for _, name in drawn(names, images, seed)] if images else []
    held = set(test)
    splits = {"train": [name for name in names if name not in held], "test": test}
    return {split: chosen for split, chosen in splits.items() if chosen}, draw


def _class(name: str, depth: int) -> str | None:
    parts = name.split("/")
    return parts[depth] if len(parts) > depth + 1 else None


def _keys(names: list[str]) -> list[str]:
    """WebDataset keys for the names; all keys differ, and their last components have no dots."""
    taken: set[str] = set()
    keys = []
    for name in names:
        path = PurePosixPath(name)
        base = (path.parent / path.stem.replace(".", "_")).as_posix()
        key, n = base, 2
        while key in taken:
            key, n = f"{base}~{n}", n + 1
        taken.add(key)
        keys.append(key)
    return keys


def _roots(path: Path) -> list[Files]:
    """The files of a folder and of the zips in it, or of one archive."""
    files = open_files(path)
    if not path.is_dir():
        return [files]
    return [files, *(open_files(path / name) for name in files.names() if name.endswith(".zip"))]


def _below(path: Path, root: Path, name: str) -> str:
    """The path of a file of CLIC as the user sees it: below `path`, including the file's zip."""
    return (root.relative_to(path.parent) / name).as_posix()


def _clic_names(path: Path, where: str) -> tuple[str, str | None]:
    """The split and the track of a file, from the names of its folders and its zip."""
    above = list(reversed(where.lower().split("/")[:-1]))
    splits = (match[1] for part in above if (match := _CLIC_SPLIT.search(part)))
    tracks = (match[0] for part in above if (match := _CLIC_TRACK.search(part)))
    if (split := next(splits, None)) is None:
        raise ShardError(
            f"{where} in {path} does not say its split: a folder or zip above it must have train, "
            "valid or test in its name"
        )
    return split, next(tracks, None)
