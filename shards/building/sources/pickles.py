"""Read the pickles of published data sets without running anything that they ask for.

A pickle is a program, which may call functions by name. Only the few names that a pickled numpy
array needs are answered, each by a function of this module: not even numpy's own unpickling sees
the file. So a pickle can give only dicts, lists, tuples, numbers, text, bytes and arrays of
numbers.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from typing import Any, BinaryIO, Protocol

import numpy as np

from shards.errors import ShardError

_LARGE = 4 << 20
_NUMBERS = re.compile(r"[uif][1248]")


class Array:
    """A pickled numpy array; its bytes are kept as they are in the file."""

    shape: tuple[int, ...] = ()
    dtype = np.dtype(np.uint8)
    data: bytes = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Kind) or not isinstance(data, bytes):
            raise ValueError("an array that is not one of numbers")
        if not all(isinstance(length, int) and length >= 0 for length in shape):
            raise ValueError(f"an array of shape {shape}")
        if fortran and len(shape) > 1:
            raise ValueError("an array in Fortran's order")
        if int(np.prod(shape, dtype=object)) * kind.dtype.itemsize != len(data):
            raise ValueError(f"an array of shape {shape} in {len(data)} bytes")
        self.shape, self.dtype, self.data = tuple(shape), kind.dtype, data

    def numpy(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


class _Kind:
    """The stand-in for `numpy.dtype`: a pickle calls it with a code, then sets its byte order."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        if not _NUMBERS.fullmatch(self.code):
            raise ValueError(f"an array of the type {self.code!r}")

    order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|"):
            raise ValueError(f"an array of the byte order {order!r}")
        self.order = order

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.code)


def _array(*_: object) -> Array:
    return Array()


def _latin1(text: str, encoding: str) -> bytes:
    """The bytes that Python 3 has pickled as text so that Python 2 can read them."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_ANSWERS = {
    "numpy.ndarray": Array,
    "numpy.dtype": _Kind,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "_codecs.encode": _latin1,
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: _Readable, where: str) -> None:
        super().__init__(stream, encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (answer := _ANSWERS.get(f"{module}.{name}")) is not None:
            return answer
        raise ShardError(
            f"{self._where} asks for {module}.{name}, which no array of pixels needs, so it is not "
            "read: download the file from its own site"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("an object outside the file")


class _PassingBy:
    """A stream whose long byte strings are skipped: `pickle` gets them with undefined content."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read = stream.read
        self.readline = stream.readline
        self.passed: list[tuple[int, int]] = []

    def readinto(self, buffer: memoryview) -> int:
        if len(buffer) < _LARGE:
            return self._stream.readinto(buffer)  # type: ignore[attr-defined]
        start = self._stream.tell()
        end = self._stream.seek(len(buffer), os.SEEK_CUR)
        self.passed.append((start, end))
        return len(buffer)


def load(data: bytes, where: str) -> dict[str, Any]:
    """The dict that a pickle holds, with text for its keys and `Array` for its arrays.

    `where` is the name of the pickle in messages. Raises `ShardError` when the pickle is damaged or
    asks for anything else.
    """
    return _load(io.BytesIO(data), where)


def load_around(stream: BinaryIO, name: str, where: str) -> tuple[dict[str, Any], BinaryIO, int]:
    """Load a pickle as `load` does, but leave the bytes of its array `name` in the file.

    That array may be of any size. Returns the dict, in which the `data` of that array must not be
    used, and the stream and the place in the stream where the array's bytes begin.
    """
    passing = _PassingBy(stream)
    content = _load(passing, where)
    array = content.get(name)
    if not isinstance(array, Array):
        raise ShardError(f"{where} is not such a batch: it has no array {name!r}")
    if not passing.passed:  # the array is small, or Python 2 wrote it
        return content, io.BytesIO(array.data), 0
    end = passing.passed[-1][1]
    start = end - len(array.data)
    if any(first < start for first, _ in passing.passed):
        raise ShardError(f"{where} is not such a batch: it has other large arrays than {name!r}")
    return content, stream, start


def _load(stream: _Readable, where: str) -> dict[str, Any]:
    try:
        content = _Unpickler(stream, where).load()
        if not isinstance(content, dict):
            raise ValueError("no dict")
        return {
            k.decode("ascii") if isinstance(k, bytes) else str(k): v for k, v in content.items()
        }
    except ShardError:
        raise
    except Exception as error:  # a damaged pickle may raise any error, says the manual of pickle
        reason = str(error) or type(error).__name__
        raise ShardError(
            f"{where} is damaged or no pickle of arrays ({reason}): download it again"
        ) from None
