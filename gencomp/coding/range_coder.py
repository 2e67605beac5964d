"""A range coder that takes integer frequencies and codes many symbols at a time.

The coder is `constriction`'s range coder (Bamler, 2022) with a state of 64 bits. A symbol's
probability is exactly its frequency f over 2^P, for a stated P of at most 24: the coder is given
2^(24−P)·f − 1 as float64; these weights sum to 2^24 − L, so it scales them by exactly 1 and adds 1
to each. Its own rounding costs about 0.0002 bits a symbol.

The symbols end in an interval of numbers, all of which decode to them; its size is about their
probability. The bytes are the first number of the interval that ends in enough zero bytes, which
are left out: so many that an interval of this size surely holds such a number, or one more where it
happens to hold one. So symbols of probability 2^-B take at least B/8 − 1 bytes, and the length of a
stream bounds what it can hold. Each sequence of symbols has exactly one stream, and a stream that
the encoder would not have written is refused.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

MODEL = constriction.stream.model.Categorical(perfect=False)
_WORD_BYTES = 4
_STATE_BYTES = 8


class Encoder:
    """Codes symbols into bytes, one step after the other."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def put(
        self, symbols_B: Integers, frequencies_BL: Integers, precision: int = PRECISION
    ) -> None:
        """Append B symbols, each coded by its own frequencies.

        Args:
            symbols_B: integers 0..L−1.
            frequencies_BL: integers of at least 1; each row sums to 2^precision.
            precision: 1..24.

        Raises:
            InputError: the frequencies have another sum, or a symbol lies outside the alphabet.
        """
        weights_BL = weights(frequencies_BL, precision)
        count, levels = weights_BL.shape
        if symbols_B.shape != (count,):
            raise InputError(
                f"A step of {count} rows of frequencies codes {count} symbols, not an array of"
                f" shape {symbols_B.shape}."
            )
        if count and not 0 <= int(symbols_B.min()) <= int(symbols_B.max()) < levels:
            raise InputError(
                f"Symbols run from {int(symbols_B.min())} to {int(symbols_B.max())}, allowed are 0"
                f" to {levels - 1}."
            )
        if count and levels > 1:
            self.append(symbols_B.astype(np.int32), weights_BL)

    def append(self, symbols_B: npt.NDArray[np.int32], weights_BL: npt.NDArray[np.float64]) -> None:
        """Append symbols as `put` does, with the weights that `weights` returned."""
        self._encoder.encode(symbols_B, MODEL, weights_BL)

    def data(self) -> bytes:
        """The bytes that stand for all symbols so far."""
        return shortest(self._encoder)

    @property
    def words(self) -> int:
        """The number of 4-byte words that no further symbol changes.

        `data` is no shorter than these.
        """
        return int(self._encoder.pos()[0])


class Decoder:
    """Decodes the symbols from bytes, in the order in which they were put."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._decoder = constriction.stream.queue.RangeDecoder(words(data))
        # Encodes the decoded symbols again, which exposes a stream that no encoder writes.
        self._again = Encoder()

    def take(self, frequencies_BL: Integers, precision: int = PRECISION) -> Integers:
        """The next B symbols, given the frequencies and the precision with which they were put.

        Raises:
            InputError: the frequencies have another sum, or the stream holds no such symbols.
        """
        return self.read(weights(frequencies_BL, precision)).astype(np.int64)

    def read(self, weights_BL: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """The next symbols as `take` gives them, with the weights that `weights` returned."""
        count, levels = weights_BL.shape
        if not count or levels == 1:
            return np.zeros(count, np.int32)
        try:
            symbols_B = self._decoder.decode(MODEL, weights_BL)
        except AssertionError:  # constriction raises it for a state that no symbol leads to
            raise damaged() from None
        self._again.append(symbols_B, weights_BL)
        require_read(self._again.words, self._data)
        return symbols_B

    def finish(self) -> None:
        """Require that the stream holds the symbols that were taken and nothing else.

        Raises:
            InputError: the encoder would have written other bytes for these symbols.
        """
        if self._again.data() != self._data:
            raise damaged()


def shortest(encoder: constriction.stream.queue.RangeEncoder) -> bytes:
    """The bytes that stand for what was encoded; the last state has bytes to spare."""
    stream = encoder.get_compressed().astype(">u4").tobytes()
    position, (low, size) = encoder.pos()
    bits = 8 * (_STATE_BYTES + _WORD_BYTES * position)
    # Every number in [low, low + size) stands for the symbols. The encoder knows only the lowest 64
    # bits of low; its stream is a number in that interval, which gives the higher bits.
    point = int.from_bytes(stream, "big") << (bits - 8 * len(stream))
    low = point - (point - low) % 2 ** (8 * _STATE_BYTES)
    # Numbers of so many bytes lie no further apart than size.
    enough = -(-(bits - (size.bit_length() - 1)) // 8)
    for length in (enough - 1, enough):
        unit = bits - 8 * length
        kept = -(-low >> unit)
        if kept << unit < low + size:
            break
    return kept.to_bytes(length, "big")


def require_read(words: int, data: bytes) -> None:
    """Refuse a stream that was decoded to more than it can hold: the zeros behind it have no end.

    Args:
        words: the number of words, in the stream of the symbols so far, that no further symbol
            changes.
        data: the stream.
    """
    if _WORD_BYTES * words > len(data):
        raise damaged()


def words(data: bytes) -> npt.NDArray[np.uint32]:
    """The words that a decoder reads: those of `data`, followed by zeros."""
    padded = data + bytes(-len(data) % _WORD_BYTES + _STATE_BYTES)
    return np.frombuffer(padded, ">u4").astype(np.uint32)


def damaged() -> InputError:
    """The error for a stream that no encoder writes."""
    return InputError("The encoder never writes this data: it is damaged.")


def weights(frequencies_BL: Integers, precision: int) -> npt.NDArray[np.float64]:
    """The weights that the coder needs for these frequencies.

    Raises:
        InputError: the arguments are not frequencies of that precision.
    """
    if not 1 <= precision <= PRECISION:
        raise InputError(f"A precision of {precision} bits is not one of 1 to {PRECISION}.")
    if frequencies_BL.ndim != 2 or frequencies_BL.dtype.kind not in "iu":
        raise InputError(
            "Frequencies are integers [symbols, levels], not"
            f" {frequencies_BL.dtype} of shape {frequencies_BL.shape}."
        )
    if frequencies_BL.size and int(frequencies_BL.min()) < 1:
        raise InputError(f"A frequency is {int(frequencies_BL.min())}, but it must be at least 1.")
    sums_B = frequencies_BL.sum(axis=1, dtype=np.int64)
    if (wrong_B := sums_B != 1 << precision).any():
        raise InputError(
            f"The frequencies of a symbol sum to {int(sums_B[wrong_B][0])}, but they must sum to"
            f" 2^{precision} = {1 << precision}."
        )
    return ((frequencies_BL.astype(np.int64) << (PRECISION - precision)) - 1).astype(np.float64)
