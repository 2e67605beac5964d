"""`coco_stuff`: the images of COCO with the label maps of COCO-Stuff, things and stuff together.

The path is the folder that holds `train2017.zip`, `val2017.zip` (or one of them) and
`stuffthingmaps_trainval2017.zip`, or the folders from them, and `labels.txt`, the names of the
labels. Splits: train (118,287 images) and val (5,000).

A sample has the image and `label.png` as published: 0 to 181 are the labels 1 to 182 of
`labels.txt`, and 255 is unlabeled; the ids between are not used, and are named so.

By default the files are stored as they are. With a size, images are scaled to cover it, cropped
around the centre and stored as PNG, and the maps follow by nearest neighbour.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shards.building.pictures import Pictures, pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.sources.archives import Files, open_files
from shards.building.sources.scenes import Scene
from shards.building.sources.scenes import encode as encode_scene
from shards.building.writer import NewSample
from shards.errors import ShardError

SPLITS = {"train2017": "train", "val2017": "val"}
MAPS = "stuffthingmaps_trainval2017"
NAMES = "labels.txt"
LABELS = 182
UNLABELED = 255
_ROW = re.compile(r"(\d+):\s*(.+)")
_LAYOUT = (
    f"the folder of train2017.zip, val2017.zip and {MAPS}.zip (or the folders from them) and"
    f" {NAMES}"
)


class Image(NamedTuple):
    """One work item: an image with its map, and the folder or archive that the image lies in."""

    path: str
    root: str
    scene: Scene


def coco_stuff(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the images; raises `ShardError` when files are missing."""
    if path is None or not path.is_dir():
        raise ShardError(f"coco_stuff needs the path of {_LAYOUT}")
    stored = pictures(size, storage, "original")
    maps = _part(path, MAPS)
    if maps is None:
        raise ShardError(f"{path} lacks {MAPS}.zip, the label maps: give the path of {_LAYOUT}")
    of_map = {"/".join(name.split("/")[-2:]): name for name in maps.names()}
    splits: dict[str, Listed] = {}
    content: dict[str, str] = {}
    used: list[str] = []
    for folder, split in SPLITS.items():
        if (files := _part(path, folder)) is None:
            continue
        names = [name for name in files.names() if name.endswith(".jpg")]
        items = [_item(name, folder, files, of_map, maps) for name in names]
        used += [name for item in items for _, name in item.scene.maps]
        content[folder] = files.fingerprint(names)
        splits[split] = Listed(items)
    if not any(len(items) for items in splits.values()):
        raise ShardError(f"{path} holds no images in train2017 or val2017: give {_LAYOUT}")
    return Source(
        name="coco_stuff",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(items) for split, items in splits.items()},
            "content": {**content, "maps": maps.fingerprint(used)},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_each, partial(encode, maps=maps.path, stored=stored)),
        classes=_classes(path / NAMES),
    )


def encode(image: Image, maps: Path, stored: Pictures) -> NewSample:
    """Read an image and its map; raises `ShardError` as `scenes.encode` does."""
    return encode_scene(image.scene, Path(image.root), {"label.png": maps}, stored)


def _part(folder: Path, name: str) -> Files | None:
    there = (folder / n for n in (name, f"{name}.zip") if (folder / n).exists())
    return next((open_files(path) for path in there), None)


def _item(name: str, folder: str, files: Files, of_map: dict[str, str], maps: Files) -> Image:
    key = PurePosixPath(name).stem
    if (label := of_map.get(f"{folder}/{key}.png")) is None:
        raise ShardError(f"{maps.path} lacks the label map {folder}/{key}.png: download it again")
    return Image(name, str(files.path), Scene(name, key, (("label.png", label),)))


def _classes(table: Path) -> list[str]:
    """The names by id of the maps, which is one less than the label in the table."""
    try:
        rows = [_ROW.fullmatch(line.strip()) for line in table.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ShardError(
            f"{table} is missing or no text: it names the labels, and lies beside the maps in the"
            " repository of COCO-Stuff"
        ) from None
    names = {int(row[1]): row[2] for row in rows if row is not None}
    if sorted(names) != list(range(LABELS + 1)):
        raise ShardError(
            f"{table} does not name the labels 0 to {LABELS}, one a line as '1: person'"
        )
    unused = [f"unused {number}" for number in range(LABELS, UNLABELED)]
    return [*(names[label] for label in range(1, LABELS + 1)), *unused, names[0]]
