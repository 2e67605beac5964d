"""`cifar10`: 60,000 colour images of 32×32 pixels, from the python batches that their site ships.

The path is cifar-10-python.tar.gz, the folder cifar-10-batches-py that was unpacked from it, or a
folder that holds one of them. The splits are train (data_batch_1 to 5) and test (test_batch), in
the order of the files. The batches are pickles; no code that they name is run
(`shards.building.sources.pickles`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from shards.building.pictures import pictures
from shards.building.sources import Source, pickles
from shards.building.sources.archives import Files, open_files
from shards.building.sources.arrays import Piece, Rows, checked_labels, planar, read_rows
from shards.errors import ShardError

SPLITS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_NAMES = "batches.meta"
_ARCHIVE = "cifar-10-python.tar.gz"
_COLUMNS = 3 * 32 * 32


class PickledBatch(NamedTuple):
    """A batch inside a folder or an archive, and the sha256 of its bytes."""

    root: Path
    name: str
    content: str

    @property
    def where(self) -> str:
        return f"{self.name} in {self.root}"


def cifar10(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the images.

    Raises `ShardError` when a batch is missing or damaged, or asks for code to be run.
    """
    if path is None:
        raise ShardError(f"cifar10 needs the path of {_ARCHIVE} or of its unpacked folder")
    stored = pictures(size, storage, "png", arrays=True)
    inside = path / _ARCHIVE
    files = open_files(inside if inside.is_file() else path)
    folder = _folder(files)
    batches: dict[str, PickledBatch] = {}
    splits = {}
    for split, names in SPLITS.items():
        counts = []
        for name in names:
            data = files.read(f"{folder}{name}")
            digest = hashlib.sha256(data).hexdigest()
            batches[name] = PickledBatch(files.path, f"{folder}{name}", digest)
            counts.append((name, len(_parsed(data, batches[name].where)[0])))
        splits[split] = Rows(split, tuple(counts))
    return Source(
        name="cifar10",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(rows) for split, rows in splits.items()},
            "content": {name: batch.content for name, batch in batches.items()},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_rows, partial(_load, batches), stored),
        classes=_classes(files, f"{folder}{_NAMES}"),
    )


def _folder(files: Files) -> str:
    """The folder inside `files` that holds all the batches, with its slash."""
    found = files.names()
    needed = [*SPLITS["train"], *SPLITS["test"], _NAMES]
    folders = sorted(
        name.removesuffix(needed[0]) for name in found if PurePosixPath(name).name == needed[0]
    )
    if not folders:
        raise ShardError(
            f"{files.path} holds no data_batch_1: give the path of {_ARCHIVE} or of its folder "
            "cifar-10-batches-py"
        )
    lost = [name for name in needed if f"{folders[0]}{name}" not in found]
    if lost:
        raise ShardError(f"{files.path} lacks {folders[0]}{lost[0]}: unpack or download it again")
    return folders[0]


def _classes(files: Files, name: str) -> list[str]:
    where = f"{name} in {files.path}"
    names = pickles.load(files.read(name), where).get("label_names")
    if not isinstance(names, list) or len(names) != 10:
        raise ShardError(f"{where} does not name ten classes: download it again")
    return [n.decode("latin1") if isinstance(n, bytes) else str(n) for n in names]


def _load(batches: Mapping[str, PickledBatch], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    data, labels = _kept(batches[piece.file])
    return planar(data[piece.start : piece.stop]), labels[piece.start : piece.stop]


@lru_cache(maxsize=1)  # a batch is 31 MB
def _kept(batch: PickledBatch) -> tuple[np.ndarray, np.ndarray]:
    return _parsed(open_files(batch.root).read(batch.name), batch.where)


def _parsed(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The planar pixels, uint8 [n, 3072], and labels, int64 [n], of one batch."""
    content = pickles.load(data, where)
    pixels: Any = content.get("data")
    if (
        not isinstance(pixels, pickles.Array)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (_COLUMNS,)
    ):
        raise ShardError(f"{where} is not a batch of CIFAR-10: it has no rows of {_COLUMNS} bytes")
    try:
        labels = checked_labels(content.get("labels"), pixels.shape[0], 0, 9)
    except ValueError as error:
        raise ShardError(f"{where} is not a batch of CIFAR-10: {error}") from None
    return pixels.numpy(), labels
