"""`mnist`, `fashion-mnist`: 28×28 grey images in ten classes, from their four idx files.

The path is the folder of train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte
and t10k-labels-idx1-ubyte, each with or without .gz; or a folder in which torchvision keeps them
(MNIST/raw, FashionMNIST/raw). The splits are train and test, in the order of the files. Images are
stored as grey PNG.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.building.pictures import pictures
from shards.building.sources import Source
from shards.building.sources.arrays import Piece, Rows, checked_labels, read_rows
from shards.errors import ShardError

SPLITS = {"train": "train", "test": "t10k"}  # the splits, and their names in the file names
DIGITS = [str(digit) for digit in range(10)]
CLOTHES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
]  # fmt: skip


class Pair(NamedTuple):
    """The two files of a split, and the sha256 of their content."""

    images: Path
    labels: Path
    content: str = ""


def mnist(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the digits; raises `ShardError` when a file is missing or damaged."""
    return _source("mnist", "MNIST", DIGITS, path, size, storage)


def fashion_mnist(
    path: Path | None, *, size: str | None = None, storage: str | None = None
) -> Source:
    """The source of Fashion-MNIST, whose files have the names of MNIST's.

    Raises `ShardError` when a file is missing or damaged.
    """
    return _source("fashion-mnist", "FashionMNIST", CLOTHES, path, size, storage)


def _source(
    name: str,
    folder: str,
    classes: list[str],
    path: Path | None,
    size: str | None,
    storage: str | None,
) -> Source:
    if path is None:
        raise ShardError(f"{name} needs the path of the folder of its four idx files")
    stored = pictures(size, storage, "png", arrays=True)
    splits = {}
    pairs = {}
    for split, prefix in SPLITS.items():
        pair = Pair(
            _file(path, folder, f"{prefix}-images", "idx3-ubyte"),
            _file(path, folder, f"{prefix}-labels", "idx1-ubyte"),
        )
        images, labels = _read(pair)
        digest = hashlib.sha256(np.array(images.shape, ">u4").tobytes())
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
        file = f"{prefix}-images-idx3-ubyte"
        pairs[file] = pair._replace(content=digest.hexdigest())
        splits[split] = Rows(split, ((file, len(images)),))
    return Source(
        name=name,
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(rows) for split, rows in splits.items()},
            "content": {file: pair.content for file, pair in pairs.items()},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_rows, partial(_load, pairs), stored),
        classes=classes,
    )


def _file(path: Path, folder: str, stem: str, kind: str) -> Path:
    """The path of one of the four files; in some copies, a dot stands before the kind."""
    for place in (path, path / "raw", path / folder / "raw"):
        for name in (f"{stem}-{kind}", f"{stem}.{kind}", f"{stem}-{kind}.gz", f"{stem}.{kind}.gz"):
            if (place / name).is_file():
                return place / name
    if not path.is_dir():
        raise ShardError(f"there is no folder {path}")
    raise ShardError(
        f"{path} lacks {stem}-{kind}.gz: all four idx files of the data set must be in it"
    )


def _load(pairs: Mapping[str, Pair], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _kept(pairs[piece.file])
    return images[piece.start : piece.stop], labels[piece.start : piece.stop]


def _read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The images, uint8 [n, H, W], and the labels, int64 [n]."""
    images = _read_idx(pair.images, 3)
    try:
        return images, checked_labels(_read_idx(pair.labels, 1), len(images), 0, 9)
    except ShardError:
        raise
    except ValueError as error:
        raise ShardError(
            f"{pair.labels} does not belong to {pair.images} ({error}): download both again"
        ) from None


_kept = lru_cache(maxsize=len(SPLITS))(_read)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of bytes.

    The file holds 0, 0, the type 8 and the number of dimensions, then the lengths of the
    dimensions, then the data.
    """
    magic = bytes([0, 0, 8, dimensions])
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ShardError(f"{path} cannot be read ({error}): download it again") from None
    start = 4 + 4 * dimensions
    if data[:4] != magic or len(data) < start:
        raise ShardError(
            f"{path} is not such an idx file (it starts with {data[:4].hex(' ')}, not "
            f"{magic.hex(' ')}): download it again"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if math.prod(shape) != len(data) - start:
        raise ShardError(
            f"{path} should hold {' x '.join(map(str, shape))} bytes and holds "
            f"{len(data) - start}: download it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
