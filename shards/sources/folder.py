"""`folder`: any folder of images, searched recursively; sub-folders are labels.

Sub-folders named train, val, validation, valid or test at the top are the splits; otherwise a
seeded share of all the files becomes the test split. The first folder below the split's root
names the label. Hidden files are not looked at. Orientation tags are not applied.
"""

from __future__ import annotations

import hashlib
import io
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from shards import decode
from shards.errors import ShardError
from shards.info import Transform
from shards.sources import Source
from shards.writer import NewSample

SPLITS = ("train", "val", "valid", "validation", "test")


class File(NamedTuple):
    """One work item: a file (posix path below the folder), its key and its label."""

    path: str
    key: str
    label: int | None


def folder(root: Path, size: int | None, test_fraction: float, seed: int) -> Source:
    """The source; with `size` the images are resized and stored as PNG, else kept as they are."""
    if not root.is_dir():
        raise ShardError(f"there is no folder {root}")
    if not 0 <= test_fraction <= 1:
        raise ShardError(f"the test fraction is between 0 and 1, not {test_fraction}")
    if size is not None and size < 1:
        raise ShardError(f"the size is at least one pixel, not {size}")
    found = _files(root)
    if not found:
        raise ShardError(f"{root} holds no files")
    own_splits = sorted({p.split("/")[0] for p in found if "/" in p} & set(SPLITS))
    by_split = _own(root, found, own_splits) if own_splits else _drawn(found, test_fraction, seed)
    depth = 1 if own_splits else 0
    classes = sorted({label for path in found if (label := _class(path, depth)) is not None})
    number = {name: i for i, name in enumerate(classes)}
    splits = {
        split: [
            File(path, key, number.get(_class(path, depth) or ""))
            for path, key in zip(paths, _keys(paths), strict=True)
        ]
        for split, paths in by_split.items()
    }
    listing = "\n".join(f"{path}\0{(root / path).stat().st_size}" for path in found)
    draw = {} if own_splits else {"test_fraction": test_fraction, "seed": seed}
    return Source(
        name="folder",
        parameters={
            "size": size,
            **draw,
            "files": len(found),
            "listing": hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest(),
        },
        transform=_transform(size),
        splits=splits,
        encode=partial(encode, root=root, size=size),
        classes=classes,
    )


def encode(file: File, root: Path, size: int | None) -> NewSample:
    """Read one image; `ShardError` that names the file when it is none or damaged."""
    try:
        data = (root / file.path).read_bytes()
        image = decode.open_rgb(data)
        extension = decode.image_format(data)
    except OSError as error:
        raise ShardError(f"{root / file.path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ShardError(
            f"{root / file.path} is not an image that can be read ({error}): move it away or use "
            "--on-error skip"
        ) from None
    if size is not None:
        image = _resize(image, size)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        data, extension = stream.getvalue(), "png"
    members = {extension: data}
    if file.label is not None:
        members["cls"] = str(file.label).encode()
    return NewSample(
        file.key, members, extension, image.width, image.height, file.label, source=file.path
    )


def _transform(size: int | None) -> Transform:
    if size is None:
        return Transform(size=None, geometry="none: as found", storage="original")
    return Transform(
        size=size,
        geometry="shorter side resized (Pillow bilinear with antialiasing), centre crop",
        storage="png",
    )


def _resize(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if width <= height:
        scaled = (size, max(size, size * height // width))
    else:
        scaled = (max(size, size * width // height), size)
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    x, y = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return image.crop((x, y, x + size, y + size))


def _files(root: Path) -> list[str]:
    """All visible files as posix paths below root, sorted."""
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in paths if not any(s.startswith(".") for s in p.parts))


def _own(root: Path, found: list[str], splits: list[str]) -> dict[str, list[str]]:
    strangers = [path for path in found if path.split("/")[0] not in splits]
    if strangers:
        raise ShardError(
            f"{root} has the splits {', '.join(splits)}, and {strangers[0]} is in none of them: "
            "move it"
        )
    return {s: [path for path in found if path.startswith(f"{s}/")] for s in splits}


def _drawn(found: list[str], fraction: float, seed: int) -> dict[str, list[str]]:
    draw = sorted(
        found,
        key=lambda p: hashlib.sha256(f"{seed}/{p}".encode("utf-8", "surrogateescape")).digest(),
    )
    test = set(draw[: round(fraction * len(found))])
    splits = {"train": [p for p in found if p not in test], "test": sorted(test)}
    return {split: paths for split, paths in splits.items() if paths}


def _class(path: str, depth: int) -> str | None:
    parts = path.split("/")
    return parts[depth] if len(parts) > depth + 1 else None


def _keys(paths: list[str]) -> list[str]:
    """WebDataset keys: no dots in the last component, and no two alike."""
    taken: set[str] = set()
    keys = []
    for path in paths:
        parent, _, name = path.rpartition("/")
        stem = Path(name).stem.replace(".", "_")
        base = f"{parent}/{stem}" if parent else stem
        key, n = base, 2
        while key in taken:
            key, n = f"{base}~{n}", n + 1
        taken.add(key)
        keys.append(key)
    return keys
