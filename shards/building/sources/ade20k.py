"""`ade20k`: scenes of any size with label maps, in the layout of the Scene Parsing Benchmark.

The path is `ADEChallengeData2016.zip`, the folder `ADEChallengeData2016` from it, or the folder
that holds either. Splits: train (`training`, 20,210 images) and val (`validation`, 2,000).

A sample has the image and `label.png`; the classes are 0 for other things and the 150 names of
`objectInfo150.txt`. The full data set ADE20K, with over 3,000 classes, has another layout.

By default the files are stored as they are. With a size, images are scaled to cover it, cropped
around the centre and stored as PNG, and the maps follow by nearest neighbour.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

from shards.building.pictures import pictures
from shards.building.sources import Listed, Source, read_each
from shards.building.sources.archives import Files, open_files
from shards.building.sources.scenes import Scene, encode
from shards.errors import ShardError

SPLITS = {"training": "train", "validation": "val"}
NAMES = "objectInfo150.txt"
OTHER = "other"  # the class of label 0
# The first names of the labels 1 to 150 in `objectInfo150.txt`, for maps that come without it.
CLASSES = [
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane",
    "grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant",
    "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror",
    "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers",
    "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand",
    "path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway",
    "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower", "book",
    "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer",
    "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver",
    "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman",
    "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt",
    "canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket",
    "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan",
    "fan", "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator",
    "glass", "clock", "flag",
]  # fmt: skip
_FOLDER = "ADEChallengeData2016"
_IMAGE = re.compile(r"((?:.*/)?)images/(training|validation)/(\w+)\.jpg")
_LAYOUT = f"{_FOLDER}.zip, of the folder {_FOLDER} from it, or of the folder that holds either"


def ade20k(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the scenes; raises `ShardError` when files are missing."""
    if path is None:
        raise ShardError(f"ade20k needs the path of {_LAYOUT}")
    stored = pictures(size, storage, "original")
    files = open_files(_root(path))
    names = files.names()
    splits = _splits(files, names)
    table = _table(files, names)
    scenes = [scene for split in splits.values() for scene in split]
    content = [table, *(n for scene in scenes for n in (scene.path, scene.maps[0][1]))]
    return Source(
        name="ade20k",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(scenes) for split, scenes in splits.items()},
            "content": files.fingerprint(content),
        },
        transform=stored.transform(),
        splits={split: Listed(scenes) for split, scenes in splits.items()},
        read=partial(
            read_each,
            partial(encode, images=files.path, maps={"label.png": files.path}, stored=stored),
        ),
        classes=_classes(files, table),
    )


def _root(path: Path) -> Path:
    if path.is_dir():
        for name in (_FOLDER, f"{_FOLDER}.zip"):
            if (path / name).exists():
                return path / name
    return path


def _splits(files: Files, names: list[str]) -> dict[str, list[Scene]]:
    """The scenes of each split, sorted by name."""
    there = set(names)
    splits: dict[str, list[Scene]] = {split: [] for split in SPLITS.values()}
    missing = []
    for name in names:
        if (match := _IMAGE.fullmatch(name)) is None:
            continue
        above, folder, key = match.groups()
        label = f"{above}annotations/{folder}/{key}.png"
        if label not in there:
            missing.append(label)
        splits[SPLITS[folder]].append(Scene(name, key, (("label.png", label),)))
    if not any(splits.values()):
        raise ShardError(
            f"{files.path} holds no images such as images/training/ADE_train_00000001.jpg: give "
            f"the path of {_LAYOUT}"
        )
    if missing:
        raise ShardError(
            f"{files.path} lacks {len(missing)} label maps, such as {missing[0]}: unpack or "
            "download it again"
        )
    return {split: scenes for split, scenes in splits.items() if scenes}


def _table(files: Files, names: list[str]) -> str:
    """The name of the table of the classes among the files."""
    name = next((n for n in names if PurePosixPath(n).name == NAMES), None)
    if name is None:
        raise ShardError(f"{files.path} lacks {NAMES}, the names of the classes: put it there")
    return name


def _classes(files: Files, table: str) -> list[str]:
    """The names of the classes by label: `other`, then the last column of each row of the table.

    The columns between the first and the last are not looked at.
    """
    lines = files.read(table).decode("utf-8-sig", "replace").splitlines()
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    if [row[0].strip() for row in rows] != [str(i) for i in range(1, len(rows) + 1)]:
        raise ShardError(f"{table} in {files.path} is not a table of classes 1, 2, ... by its Idx")
    return [OTHER, *(row[-1].strip() for row in rows)]
