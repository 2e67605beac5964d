"""`cityscapes`: street scenes of 2048×1024 pixels with label and instance maps.

The path is the folder that holds `leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip`, or
the folders `leftImg8bit` and `gtFine` from them; or the zip or folder of the images itself, with
the other beside it. The splits are the folders train, val and test.

A sample has the image, `label.png` (`*_gtFine_labelIds.png`) and `instance.png`
(`*_gtFine_instanceIds.png`, 16 bits: label id · 1000 + number, or the label id alone). The classes
are the 34 names of the label ids; licence plates (id -1) are not drawn in the maps as shipped.
The maps of the split test are dummies, since its labels are not public: they show only the ego
vehicle and the borders. They are stored as shipped; measure conditional models on val.

Options:

- `instances`: False leaves the instance maps out.
- `labels`: False stores images alone, and gtFine is not needed.

By default the files are stored as they are. With a size, such as 512x1024, images are stored as
PNG, and the maps are resized by nearest neighbour.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from shards.building.pictures import pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.sources.archives import Files, open_files
from shards.building.sources.scenes import Scene, encode
from shards.errors import ShardError

SPLITS = ("train", "val", "test")
CLASSES = [
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground",
    "road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail",
    "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train",
    "motorcycle", "bicycle",
]  # fmt: skip
_MAPS = {"label.png": "labelIds", "instance.png": "instanceIds"}
_IMAGE = re.compile(r"(?:.*/)?(train|val|test)/([^/]+)/([^/]+)_leftImg8bit\.png")
_MAP = re.compile(r"(?:.*/)?((?:train|val|test)/[^/]+/[^/]+_gtFine_(?:labelIds|instanceIds)\.png)")
_LAYOUT = (
    "the folder that holds leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip (or the "
    "folders leftImg8bit and gtFine from them)"
)


def cityscapes(
    path: Path | None,
    *,
    size: str | None = None,
    storage: str | None = None,
    labels: bool = True,
    instances: bool = True,
) -> Source:
    """The source of the scenes; the docstring of the module describes its options.

    Raises `ShardError` when files are missing.
    """
    if path is None:
        raise ShardError(f"cityscapes needs the path of {_LAYOUT}")
    stored = pictures(size, storage, "original")
    images, maps = _parts(path)
    members = ["label.png", "instance.png"] if instances else ["label.png"]
    splits = _splits(images, maps, members if labels else [])
    return Source(
        name="cityscapes",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "labels": labels,
            "instances": labels and instances,
            "images": {split: len(scenes) for split, scenes in splits.items()},
            "content": _content(images, maps, splits),
        },
        transform=stored.transform(),
        splits={split: Listed(scenes) for split, scenes in splits.items()},
        read=partial(
            read_each,
            partial(
                encode, images=images.path, maps=dict.fromkeys(_MAPS, maps.path), stored=stored
            ),
        ),
        classes=CLASSES if labels else [],
    )


def _parts(path: Path) -> tuple[Files, Files]:
    """The files with the images, and the files with the maps, which may be the same files."""
    if path.name.startswith("leftImg8bit") or not path.is_dir():
        folder, images = path.parent, path
    else:
        folder, images = path, _part(path, "leftImg8bit") or path
    return open_files(images), open_files(_part(folder, "gtFine") or images)


def _part(folder: Path, name: str) -> Path | None:
    names = (name, f"{name}_trainvaltest", f"{name}_trainvaltest.zip")
    return next((folder / n for n in names if (folder / n).exists()), None)


def _splits(images: Files, maps: Files, members: list[str]) -> dict[str, list[Scene]]:
    """The scenes of each split, sorted by city, sequence and frame."""
    splits: dict[str, list[Scene]] = {split: [] for split in SPLITS}
    found = {match[1]: n for n in maps.names() if (match := _MAP.fullmatch(n))} if members else {}
    missing = []
    for name in images.names():
        if (match := _IMAGE.fullmatch(name)) is None:
            continue
        split, city, key = match.groups()
        wanted = [(m, f"{split}/{city}/{key}_gtFine_{_MAPS[m]}.png") for m in members]
        missing += [file for _, file in wanted if file not in found]
        there = tuple((member, found[file]) for member, file in wanted if file in found)
        splits[split].append(Scene(name, key, there))
    if not any(splits.values()):
        raise ShardError(
            f"{images.path} holds no images such as train/aachen/aachen_000000_000019_leftImg8bit"
            f".png: give the path of {_LAYOUT}"
        )
    if missing:
        lack = f"{maps.path} lacks {len(missing)} of the maps" if found else "there are no maps"
        raise ShardError(
            f"{lack} of the images in {images.path}, such as {missing[0]}: put gtFine_trainvaltest"
            ".zip or its whole folder gtFine beside the images, or leave maps out by --no-labels"
        )
    return {split: scenes for split, scenes in splits.items() if scenes}


def _content(images: Files, maps: Files, splits: dict[str, list[Scene]]) -> dict[str, str]:
    scenes = [scene for split in splits.values() for scene in split]
    names = [name for scene in scenes for _, name in scene.maps]
    content = {"images": images.fingerprint(scene.path for scene in scenes)}
    return {**content, "maps": maps.fingerprint(names)} if names else content
