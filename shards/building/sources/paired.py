"""`folder` with maps: images and, in folders or archives of their own, maps of their pixels.

A map has the path of its image below its own root, with any extension: images/a/b.jpg has the
label map labels/a/b.png. Splits are made as by `folder`; sub-folders give no labels.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from shards.building.pictures import Pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.sources.archives import Files, above_splits, open_files, wrapping
from shards.building.sources.class_names import class_names
from shards.building.sources.scenes import Scene, encode
from shards.errors import ShardError
from shards.info import LABEL, Skipped
from shards.reading import decode


def paired(
    images: Files,
    wrap: str,
    by_split: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    stored: Pictures,
    roots: Mapping[str, Path],
    names: str | None,
    more: Mapping[str, Any],
) -> Source:
    """The source of images with maps.

    Args:
        images: The files of the images.
        wrap: The folder with its slash that all images lie in, or ''.
        by_split: The names of the images of each split, below that folder.
        keys: The WebDataset key of each image.
        stored: How images are stored.
        roots: The folder or archive of each map.
        names: Where the names of the classes come from, as `class_names` takes it.
        more: Further parameters for dataset.json.

    A file without a map is a stray of the source. Raises `ShardError` when a map is not clear.
    """
    classes = class_names(names) if names is not None else []
    if classes and LABEL not in roots:
        raise ShardError(f"class names name the ids of the map {LABEL!r}: give its folder too")
    maps = {name: open_files(root) for name, root in roots.items()}
    found = {name: _by_stem(files, by_split) for name, files in maps.items()}
    splits: dict[str, Listed] = {}
    used: dict[str, list[str]] = {name: [] for name in maps}
    strays: list[Skipped] = []
    for split, chosen in by_split.items():
        scenes = []
        for image in chosen:
            if lost := [name for name in maps if _stem(image) not in found[name]]:
                reason = _lacking(maps[lost[0]].path, lost[0], image)
                strays.append(Skipped(path=f"{wrap}{image}", reason=reason))
                continue
            own = [(name, found[name][_stem(image)]) for name in maps]
            for name, file in own:
                used[name].append(file)
            members = tuple((f"{name}.png", file) for name, file in own)
            scenes.append(Scene(f"{wrap}{image}", keys[image], members))
        splits[split] = Listed(scenes)
    read = partial(
        encode,
        images=images.path,
        maps={f"{name}.png": files.path for name, files in maps.items()},
        stored=stored,
        limits={f"{LABEL}.png": len(classes)} if classes else {},
    )
    return Source(
        name="folder",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            **more,
            "maps": {name: files.fingerprint(used[name]) for name, files in maps.items()},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_each, read),
        classes=classes,
        maps=[f"{name}.png" for name in maps],
        strays=strays,
    )


def _by_stem(files: Files, splits: Container[str]) -> dict[str, str]:
    """The file of each path without its extension; of several files, the one that is an image."""
    found: dict[str, str] = {}
    names = files.names()
    wrap = "" if files.path.is_dir() else above_splits(names, splits) or wrapping(names, splits)
    for name in names:
        stem = _stem(name.removeprefix(wrap))
        other = found.setdefault(stem, name)
        if other == name or not decode.has_image_ending(name):
            continue
        if decode.has_image_ending(other):
            raise ShardError(f"{files.path} holds {other} and {name}: one of them is enough")
        found[stem] = name
    return found


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _lacking(root: Path, name: str, image: str) -> str:
    return (
        f"{root} lacks the {name} map of {image}: it must be named {_stem(image)}.png; or leave "
        f"{image} out with --on-error skip"
    )
