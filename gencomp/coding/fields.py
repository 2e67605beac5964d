"""The fields of a container's header: variable-length numbers, and a cursor that reads them.

A varint has seven bits a byte, least significant first; the top bit is set on all bytes but the
last. Many of them are written and read at once, without a step of Python for each.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

Integers = npt.NDArray[np.int64]

_MAX_BYTES = 5
# No number of a header has more bits.
MAX_BITS = 7 * _MAX_BYTES


def varints(numbers: Iterable[int] | Integers) -> bytes:
    """Numbers as varints, one after the other.

    Raises:
        InputError: a number has more than 35 bits.
    """
    numbers_N = np.fromiter(numbers, np.int64) if not isinstance(numbers, np.ndarray) else numbers
    most = int(numbers_N.max(initial=0))
    if most >> MAX_BITS:
        raise InputError(f"A container cannot hold a section of {most} bytes.")
    if most < 0x80:
        return numbers_N.astype(np.uint8).tobytes()
    groups_NK = numbers_N[:, None] >> np.arange(0, most.bit_length(), 7)
    # A byte is written if it is the first one or if it, or one after it, is not 0.
    written_NK = groups_NK > 0
    written_NK[:, 0] = True
    bytes_NK = groups_NK.astype(np.uint8) & 0x7F | (groups_NK > 0x7F).astype(np.uint8) << 7
    return bytes_NK[written_NK].tobytes()


class Fields:
    """A cursor in the bytes of a header, which moves forward as fields are read.

    Every method raises `InputError` where the bytes hold no such field.
    """

    def __init__(self, body: bytes, at: int = 0) -> None:
        self._body, self.at = body, at

    @property
    def left(self) -> int:
        """The number of bytes behind the cursor."""
        return len(self._body) - self.at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise malformed()
        self.at += length
        return self._body[self.at - length : self.at]

    def varint(self) -> int:
        number = 0
        for shift in range(0, MAX_BITS, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise malformed()

    def varints(self, count: int) -> Integers:
        """The next numbers, [count]."""
        if not 0 < count <= self.left:
            if count:
                raise malformed()
            return np.zeros(0, np.int64)
        window = min(self.left, _MAX_BYTES * count)
        bytes_K = np.frombuffer(self._body, np.uint8, window, self.at)
        last_N = np.flatnonzero(bytes_K < 0x80)[:count]
        if len(last_N) < count:
            raise malformed()
        self.at += int(last_N[-1]) + 1
        first_N = np.concatenate([[0], last_N[:-1] + 1])
        lengths_N = last_N - first_N + 1
        if int(lengths_N.max()) > _MAX_BYTES:
            raise malformed()
        bytes_K = bytes_K[: int(last_N[-1]) + 1]
        shifts_K = 7 * (np.arange(len(bytes_K)) - np.repeat(first_N, lengths_N))
        return np.add.reduceat((bytes_K & 0x7F).astype(np.int64) << shifts_K, first_N)


def malformed() -> InputError:
    """The error for a header that says what its bytes cannot hold."""
    return InputError("The container's header is damaged: its fields do not fit its length.")
