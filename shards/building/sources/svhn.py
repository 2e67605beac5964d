"""`svhn`: house numbers cropped to 32×32 colour pixels, from MATLAB files as their site ships them.

The path is the folder of train_32x32.mat, test_32x32.mat and, if wanted, extra_32x32.mat. The
splits are train, test and extra, in the order of the files. In the files the digit 0 has the label
10; here it has the label 0.

The pixels are read as a stream, since the pixels of `extra` take 1.6 GB when they are unpacked.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from shards.building.pictures import pictures
from shards.building.sources import Source
from shards.building.sources.arrays import (
    Piece,
    Rows,
    RowStream,
    checked_labels,
    fingerprint,
    read_rows,
)
from shards.errors import ShardError

SPLITS = ("train", "test", "extra")
_COLUMNS = 32 * 32 * 3
# Numbers of MATLAB's level 5 MAT-file format: types of data elements, and the class of an array.
_INT32, _UINT32, _UINT8, _MATRIX, _COMPRESSED = 5, 6, 2, 14, 15
_UINT8_CLASS = 9


class MatFile(NamedTuple):
    """A file of SVHN; `content` is its `fingerprint`."""

    path: Path
    content: str


def svhn(path: Path | None, *, size: str | None = None, storage: str | None = None) -> Source:
    """The source of the digits; raises `ShardError` for a missing, damaged or other file."""
    if path is None:
        raise ShardError("svhn needs the path of the folder of train_32x32.mat and test_32x32.mat")
    stored = pictures(size, storage, "png", arrays=True)
    files = {}
    splits = {}
    for split in SPLITS:
        file = path / f"{split}_32x32.mat"
        if not file.is_file():
            if split == "extra":
                continue
            raise ShardError(f"there is no {file}: the path of svhn is the folder that holds it")
        rows, labels = _open(file)
        files[file.name] = MatFile(file, fingerprint(rows, labels))
        splits[split] = Rows(split, ((file.name, rows.rows),))
        rows.close()
    return Source(
        name="svhn",
        parameters={
            "size": stored.size,
            "storage": stored.storage,
            "images": {split: len(rows) for split, rows in splits.items()},
            "content": {name: file.content for name, file in files.items()},
        },
        transform=stored.transform(),
        splits=splits,
        read=partial(read_rows, partial(_load, files), stored),
        classes=[str(digit) for digit in range(10)],
    )


def _load(files: Mapping[str, MatFile], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = _opened(files[piece.file], os.getpid())
    data = rows.read(piece.start, piece.stop)
    # In MATLAB the first index runs fastest: X[row, column, channel, image].
    pixels = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 3, 2, 1))
    return pixels, labels[piece.start : piece.stop]


@lru_cache(maxsize=1)  # the process is in the key, since forks would share the file's position
def _opened(file: MatFile, _process: int) -> tuple[RowStream, np.ndarray]:
    return _open(file.path)


def _open(path: Path) -> tuple[RowStream, np.ndarray]:
    """The pixels as a stream with a row of 3072 bytes for each image, and the digits, int64."""
    labels = _labels(path)
    stream, base = _pixels(path, len(labels))
    return RowStream(stream, base, len(labels), _COLUMNS, f"X in {path}"), labels


def _labels(path: Path) -> np.ndarray:
    """The digits of a file, int64 [n]."""
    from scipy.io import loadmat

    try:
        found = np.asarray(loadmat(path, variable_names=["y"])["y"]).reshape(-1)
        return checked_labels(found.astype(np.int64), len(found), 1, 10) % 10
    except Exception as error:  # scipy may raise any error on a damaged file
        raise ShardError(
            f"{path} is not a MATLAB file of SVHN that can be read ({_reason(error)}): download it "
            "again"
        ) from None


def _pixels(path: Path, count: int) -> tuple[BinaryIO, int]:
    """A stream, and the place in it where the bytes of `X` begin, uint8 [32, 32, 3, count]."""
    file = path.open("rb")
    try:
        for stream in _arrays(file):
            name, kind, shape = _header(stream)
            if name != "X":
                continue
            if kind != _UINT8_CLASS or shape != (32, 32, 3, count):
                raise ValueError(f"its X has the shape {shape}, and there are {count} labels")
            element, size, data = _tag(stream)
            if element != _UINT8 or data is not None or size != count * _COLUMNS:
                raise ValueError(f"its X is not stored as {count * _COLUMNS} bytes")
            return stream, stream.tell()
        raise ValueError("it has no X")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        file.close()
        raise ShardError(
            f"{path} is not a MATLAB file of SVHN that can be read ({_reason(error)}): download it "
            "again"
        ) from None


def _arrays(file: BinaryIO) -> Iterator[BinaryIO]:
    """A stream for each array of the file; its position is just inside the array's element."""
    head = file.read(128)
    if len(head) < 128 or head[124:] != b"\x00\x01IM":
        raise ValueError("it is not of level 5 in little-endian order")
    end = file.seek(0, os.SEEK_END)
    place = 128
    while place < end:
        file.seek(place)
        element, size = struct.unpack("<II", file.read(8))
        if place + 8 + size > end:
            raise ValueError(f"it ends after {end} bytes, within an array")
        if element == _COMPRESSED:
            stream = cast(BinaryIO, io.BufferedReader(_Inflated(file, place + 8, size)))
            if _tag(stream)[0] == _MATRIX:
                yield stream
        elif element == _MATRIX:
            yield file
        place += 8 + size


def _header(stream: BinaryIO) -> tuple[str, int, tuple[int, ...]]:
    """The name, the class and the shape of the array that the stream is in."""
    flags = struct.unpack("<8B", _element(stream, _UINT32))
    sizes = _element(stream, _INT32)
    name = _element(stream, None).decode("latin1")
    return name, flags[0], struct.unpack(f"<{len(sizes) // 4}i", sizes)


def _element(stream: BinaryIO, wanted: int | None) -> bytes:
    """The bytes of a short element, which is padded to 8 bytes in the file."""
    element, size, data = _tag(stream)
    if wanted not in (None, element) or size > 1024:
        raise ValueError(f"an element of type {element} and {size} bytes in an array's head")
    return stream.read(size + -size % 8)[:size] if data is None else data


def _tag(stream: BinaryIO) -> tuple[int, int, bytes | None]:
    """The type and the size of the next element, and its bytes if they lie within the tag."""
    tag = stream.read(8)
    element, size = struct.unpack("<II", tag)
    if element >> 16:
        element, size = element & 0xFFFF, element >> 16
        return element, size, tag[4 : 4 + size]
    return element, size, None


class _Inflated(io.RawIOBase):
    """The content of a compressed element of a file; going back unpacks it from its start."""

    def __init__(self, file: BinaryIO, place: int, size: int) -> None:
        self._file = file
        self._place = place
        self._size = size
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(self._place)
        self._left = self._size
        self._zlib = zlib.decompressobj()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only seeks from the start")
        if offset < self._position:
            self._rewind()
        waste = bytearray(1 << 16)
        while self._position < offset:
            if not self.readinto(memoryview(waste)[: offset - self._position]):
                break
        return self._position

    def readinto(self, buffer: Any) -> int:
        while not self._zlib.eof:
            data = self._zlib.unconsumed_tail
            if not data:
                data = self._file.read(min(self._left, 1 << 16))
                self._left -= len(data)
            out = self._zlib.decompress(data, len(buffer))
            if out:
                buffer[: len(out)] = out
                self._position += len(out)
                return len(out)
            if not data:
                raise EOFError("a compressed array that is cut off")
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
