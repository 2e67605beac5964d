"""Shared parts of the sources whose data sets are shipped as a few large arrays of pixels.

Their items are known by number alone, so a split of a million images needs no memory; and their
pixels are read a few rows at a time.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np

from shards.building.pictures import Pictures
from shards.building.writer import NewSample
from shards.errors import ShardError

_ROWS_AT_ONCE = 256


class Piece(NamedTuple):
    """The rows [start, stop) of one file; the first of them is item `number` of its split."""

    split: str
    file: str
    start: int
    stop: int
    number: int


@dataclass(frozen=True)
class Rows:
    """The items of a split: all rows of its files, one file after another.

    `files` has the name and the number of rows of each file.
    """

    split: str
    files: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(rows for _, rows in self.files)

    def block(self, start: int, stop: int) -> tuple[Piece, ...]:
        """The items [start, stop), as one piece for each file that holds some of them."""
        pieces = []
        first = 0
        for file, rows in self.files:
            low, high = max(start, first), min(stop, first + rows)
            if low < high:
                pieces.append(Piece(self.split, file, low - first, high - first, low))
            first += rows
        return tuple(pieces)


# A function from a piece to its pixels, uint8 [rows, H, W] or [rows, H, W, 3], and its labels,
# int64 [rows].
Load = Callable[[Piece], tuple[np.ndarray, np.ndarray]]


def read_rows(load: Load, stored: Pictures, block: tuple[Piece, ...]) -> Iterator[NewSample]:
    """Read a block of `Rows`, a few rows at a time.

    A key, such as "train-0000123", is the split and the number of the item in the split. The `read`
    of a source is `partial(read_rows, partial(load, ...), stored)`.
    """
    for piece in block:
        for start in range(piece.start, piece.stop, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, piece.stop)
            first = piece.number + start - piece.start
            pixels, labels = load(piece._replace(start=start, stop=stop, number=first))
            for number, (image, label) in enumerate(
                zip(pixels, labels.tolist(), strict=True), start=first
            ):
                picture = stored.encode_pixels(image)
                yield NewSample(
                    key=f"{piece.split}-{number:07d}",
                    members={picture.ext: picture.data, "cls": str(label).encode()},
                    image_ext=picture.ext,
                    width=picture.width,
                    height=picture.height,
                    label=label,
                    source=piece.file,
                )


class RowStream:
    """Rows of bytes inside a stream; if it is compressed, reading backwards is slow."""

    def __init__(self, stream: BinaryIO, base: int, rows: int, columns: int, where: str) -> None:
        """Use a stream whose first row is at the place `base` and whose rows have `columns` bytes.

        `where` is the name of the stream in messages.
        """
        self._stream = stream
        self._base = base
        self._where = where
        self.rows = rows
        self.columns = columns

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows [start, stop), uint8 [rows, columns]; raises `ShardError` when damaged."""
        size = (stop - start) * self.columns
        try:
            self._stream.seek(self._base + start * self.columns)
            data = self._stream.read(size)
            if stop == self.rows:  # checksums are compared only at the end of a compressed stream
                while self._stream.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ShardError(f"{self._where} is damaged ({error}): download it again") from None
        if len(data) != size:
            raise ShardError(f"{self._where} ends before its row {stop - 1}: download it again")
        return np.frombuffer(data, np.uint8).reshape(-1, self.columns)

    def close(self) -> None:
        self._stream.close()


def fingerprint(rows: RowStream, labels: np.ndarray) -> str:
    """A sha256, in hex, that tells large arrays apart by shape, first rows and all labels."""
    digest = hashlib.sha256(f"{rows.rows}\0{rows.columns}\0".encode())
    digest.update(rows.read(0, min(rows.rows, 16)).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def planar(pixels: np.ndarray) -> np.ndarray:
    """Turn red, green and blue planes, uint8 [n, 3·side·side], into images [n, side, side, 3]."""
    side = planar_side(pixels.shape[1])
    return np.ascontiguousarray(pixels.reshape(-1, 3, side, side).transpose(0, 2, 3, 1))


def planar_side(columns: int) -> int:
    """The side of a square RGB image of `columns` bytes; raises `ValueError` when there is none."""
    side = int(np.sqrt(columns // 3))
    if columns < 3 or 3 * side * side != columns:
        raise ValueError(f"rows of {columns} bytes are no square RGB images")
    return side


def checked_labels(labels: object, rows: int, lowest: int, highest: int) -> np.ndarray:
    """Labels as int64 [rows].

    Raises `ValueError` unless they are whole numbers from lowest to highest.
    """
    numbers = np.asarray(labels)
    if numbers.shape != (rows,) or (rows and numbers.dtype.kind not in "iu"):
        raise ValueError(f"{rows} images have labels of shape {numbers.shape}")
    if rows and not lowest <= numbers.min() <= numbers.max() <= highest:
        raise ValueError(f"its labels are {numbers.min()} to {numbers.max()}")
    return numbers.astype(np.int64)
