"""`imagenet32`: ImageNet downsampled to 32×32 (or 64×64, ...), from the batches of its site.

The path is a folder, or a zip, that holds train_data_batch_1 to train_data_batch_10 and val_data,
as Python pickles or as .npz; they may be unpacked or still in the site's zips. The splits are train
(all ten batches) and val, in the order of the batches; one of the splits may be absent. Labels are
0 to 999, one less than in the files; they follow the list map_clsloc.txt of the same site, which is
not the usual order of ImageNet. The mean image is not looked at. The side of the images is found
from the data: it is 32 for rows of 3072 columns.

No code that a pickle names is run (`shards.building.sources.pickles`). The 1.28 million images are
read in constant memory: a batch's pixels stay in its file and are read a few rows at a time, from
their place in a pickle, or as a stream from an .npz or a zip.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from shards.building.pictures import pictures
from shards.building.sources import Source, pickles
from shards.building.sources.archives import open_files
from shards.building.sources.arrays import (
    Piece,
    Rows,
    RowStream,
    checked_labels,
    fingerprint,
    planar,
    planar_side,
    read_rows,
)
from shards.errors import ShardError

SPLITS = {
    "train": tuple(f"train_data_batch_{i}" for i in range(1, 11)),
    "val": ("val_data",),
}
_FILES = {
    f"{name}{ending}" for names in SPLITS.values() for name in names for ending in ("", ".npz")
}


class Place(NamedTuple):
    """A batch: a file, or a member of a zip; `content` is the batch's `fingerprint`."""

    file: Path
    member: str | None
    content: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.member or self.file.name).name

    @property
    def where(self) -> str:
        return str(self.file) if self.member is None else f"{self.member} in {self.file}"


def imagenet32(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the images.

    Raises `ShardError` when batches are missing or damaged, or ask for code to be run.
    """
    if path is None:
        raise ShardError("imagenet32 needs the path of the folder of its batches")
    stored = pictures(size, storage, "png", arrays=True)
    found = _find(path)
    places: dict[str, Place] = {}
    splits = {}
    columns: dict[int, str] = {}
    for split, names in SPLITS.items():
        counts = []
        for name in _whole(path, split, names, found):
            rows, labels = _open(found[name])
            places[name] = found[name]._replace(content=fingerprint(rows, labels))
            columns.setdefault(rows.columns, places[name].where)
            counts.append((name, rows.rows))
            rows.close()
        if counts:
            splits[split] = Rows(split, tuple(counts))
    if len(columns) > 1:
        raise ShardError(
            f"{' and '.join(columns.values())} hold images of different sizes: give the path of one"
        )
    return Source(
        name="imagenet32",
        parameters={
            "side": planar_side(next(iter(columns))),
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(rows) for split, rows in splits.items()},
            "content": {name: place.content for name, place in places.items()},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_rows, partial(_load, places), stored),
    )


def _whole(
    path: Path, split: str, names: tuple[str, ...], found: Mapping[str, Place]
) -> tuple[str, ...]:
    """The names of a split's batches if all of them were found, or none if none was found.

    Raises `ShardError` when only some of the batches were found.
    """
    lost = [name for name in names if name not in found]
    if lost and len(lost) < len(names):
        raise ShardError(
            f"{path} lacks {', '.join(lost)}: put all {len(names)} batches of {split} there"
        )
    return () if lost else names


def _find(path: Path) -> dict[str, Place]:
    """The batches at `path` by name; an unpacked batch is preferred to one in a zip."""
    found: dict[str, Place] = {}
    for places in (_loose(path), _zipped(path)):
        here: dict[str, Place] = {}
        for place in places:
            name = place.name.removesuffix(".npz")
            if name in here:
                raise ShardError(
                    f"{here[name].where} and {place.where} are the same batch: give the path of "
                    "one of them"
                )
            here[name] = place
        found = here | found
    if not found:
        raise ShardError(
            f"{path} holds no train_data_batch_1 or val_data, pickled or .npz: give the path of "
            "the folder that does"
        )
    return found


def _loose(path: Path) -> Iterator[Place]:
    if path.is_dir():
        for name in open_files(path).names():
            if PurePosixPath(name).name in _FILES:
                yield Place(path / name, None)


def _zipped(path: Path) -> Iterator[Place]:
    names = open_files(path).names() if path.is_dir() else [""]
    for file in (path / name for name in names if not name or name.endswith(".zip")):
        for member in open_files(file).names():
            if PurePosixPath(member).name in _FILES:
                if not zipfile.is_zipfile(file):
                    raise ShardError(f"{file} is no zip: unpack it and give the path of its folder")
                yield Place(file, member)


def _load(places: Mapping[str, Place], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = _opened(places[piece.file], os.getpid())
    return planar(rows.read(piece.start, piece.stop)), labels[piece.start : piece.stop]


@lru_cache(maxsize=1)  # the process is in the key, since forks would share the file's position
def _opened(place: Place, _process: int) -> tuple[RowStream, np.ndarray]:
    return _open(place)


def _open(place: Place) -> tuple[RowStream, np.ndarray]:
    """Open a batch: its pixels as a stream of rows, and its labels, which start at 0, int64."""
    try:
        opened = _open_npz if place.name.endswith(".npz") else _open_pickle
        return opened(_stream(place), place.where)
    except ShardError:
        raise
    except (
        OSError, EOFError, ValueError, KeyError, MemoryError, NotImplementedError, RuntimeError,
        SyntaxError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise ShardError(
            f"{place.where} is not a batch that can be read ({reason}): download it again"
        ) from None


def _stream(place: Place) -> BinaryIO:
    if place.member is None:
        return place.file.open("rb")
    member = open_files(place.file).open(place.member)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, member)))


def _open_npz(stream: BinaryIO, where: str) -> tuple[RowStream, np.ndarray]:
    archive = zipfile.ZipFile(stream)
    with archive.open("labels.npy") as member:
        labels = np.lib.format.read_array(member, allow_pickle=False)
    data = cast(BinaryIO, archive.open("data.npy"))
    if np.lib.format.read_magic(data) == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(data)
    if fortran:
        raise ValueError("its data are in Fortran's order")
    return _checked(data, data.tell(), shape, dtype, labels, where)


def _open_pickle(stream: BinaryIO, where: str) -> tuple[RowStream, np.ndarray]:
    content, place, base = pickles.load_around(stream, "data", where)
    if place is not stream:
        stream.close()
    data, labels = content["data"], content["labels"]
    if isinstance(labels, pickles.Array):
        labels = labels.numpy()
    return _checked(place, base, data.shape, data.dtype, labels, where)


def _checked(
    stream: BinaryIO,
    base: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    labels: object,
    where: str,
) -> tuple[RowStream, np.ndarray]:
    if len(shape) != 2 or dtype != np.uint8:
        raise ValueError(f"its data are {dtype} of the shape {shape}, not rows of bytes")
    rows, columns = shape
    planar_side(columns)
    numbers = checked_labels(labels, rows, 1, 1000) - 1
    return RowStream(stream, base, rows, columns, where), numbers
