"""A range coder that takes integer frequencies and codes many symbols at a time.

The coder is `constriction`'s range coder (Bamler, 2022) with a state of 64 bits. A symbol's
probability is exactly its frequency f over 2^P, for a stated P of at most 24: the coder is given
2^(24−P)·f − 1 as float64; these weights sum to 2^24 − L, so it scales them by exactly 1 and adds 1
to each. Its own rounding costs about 0.00013 bits a symbol.

The symbols end in an interval of numbers, all of which decode to them; its size is about their
probability. The bytes are the first number of the interval that ends in enough zero bytes, which
are left out: so many that an interval of this size surely holds such a number, or one more where it
happens to hold one. So symbols of probability 2^-B take at least B/8 − 1 bytes, and the length of a
stream bounds what it can hold. Where symbols are so cheap that this bounds too little, a codec asks
for streams of a least length, which are filled up with zeros. Each sequence of symbols has exactly
one stream, and a stream that the encoder would not have written is refused.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

Weights = npt.NDArray[np.float64]

MODEL = constriction.stream.model.Categorical(perfect=False)
MAX_UNIFORM_LEVELS = 1 << 16
_WORD_BYTES = 4
_STATE_BYTES = 8


class Encoder:
    """Codes symbols into bytes, one step after the other."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def put(self, symbols_B: Integers, frequencies: Integers, precision: int = PRECISION) -> None:
        """Append B symbols.

        Args:
            symbols_B: integers 0..L−1.
            frequencies: integers of at least 1, a row for each symbol [B, L] or one row that all
                symbols share [L]; each row sums to 2^precision.
            precision: 1..24.

        Raises:
            InputError: the frequencies have another sum, or a symbol lies outside the alphabet.
        """
        weights_ = weights(frequencies, precision)
        require_symbols(symbols_B, weights_)
        if len(symbols_B) and weights_.shape[-1] > 1:
            self.append(symbols_B.astype(np.int32), weights_)

    def append(self, symbols_B: npt.NDArray[np.int32], weights_: Weights) -> None:
        """Append symbols as `put` does, with the weights that `weights` returned."""
        self._encoder.encode(symbols_B, *model(weights_))

    def put_uniform(self, symbols_B: Integers, levels: int) -> None:
        """Append B symbols, all of which are equally likely.

        Args:
            symbols_B: integers 0..levels−1.
            levels: 2..65536.

        Raises:
            InputError: a symbol or the number of levels lies outside its range.
        """
        model = _uniform(levels)
        if symbols_B.size and not 0 <= int(symbols_B.min()) <= int(symbols_B.max()) < levels:
            raise InputError(
                f"Symbols run from {int(symbols_B.min())} to {int(symbols_B.max())}, allowed are 0"
                f" to {levels - 1}."
            )
        if symbols_B.size:
            self._encoder.encode(symbols_B.astype(np.int32), model)

    def data(self, least_bytes: int = 0) -> bytes:
        """The bytes that stand for all symbols so far, filled up with zeros to a least number.

        A decoder reads zeros behind the end, so what fills a stream up says nothing.
        """
        return shortest(self._encoder).ljust(least_bytes, b"\0")

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

    def take(
        self, frequencies: Integers, precision: int = PRECISION, count: int | None = None
    ) -> Integers:
        """The next symbols, given the frequencies and the precision with which they were put.

        Args:
            frequencies: a row for each symbol [B, L], or one row that all of them share [L].
            precision: 1..24.
            count: the number B of symbols, where they share a row.

        Raises:
            InputError: the frequencies have another sum, or the stream holds no such symbols.
        """
        weights_ = weights(frequencies, precision)
        many = len(weights_) if count is None else count
        return self.read(weights_, many).astype(np.int64)

    def read(self, weights_: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int32]:
        """The next symbols as `take` gives them, with the weights that `weights` returned."""
        if not count or weights_.shape[-1] == 1:
            return np.zeros(count, np.int32)
        try:
            symbols_B = self._decoder.decode(*decodable(weights_, count))
        except AssertionError:  # constriction raises it for a state that no symbol leads to
            raise damaged() from None
        self._again.append(symbols_B, weights_)
        require_read(self._again.words, self._data)
        return symbols_B

    def take_uniform(self, count: int, levels: int) -> Integers:
        """The next symbols of `put_uniform`, [count].

        A count that the stream cannot hold is refused before any room is taken for it.

        Raises:
            InputError: the number of levels lies outside its range, or the stream holds no such
                symbols.
        """
        model = _uniform(levels)
        if count * (levels.bit_length() - 1) > 8 * (len(self._data) + _STATE_BYTES):
            raise damaged()
        if not count:
            return np.zeros(0, np.int64)
        try:
            symbols_B = self._decoder.decode(model, count)
        except AssertionError:  # as in `take`
            raise damaged() from None
        self._again.put_uniform(symbols_B, levels)
        require_read(self._again.words, self._data)
        return symbols_B.astype(np.int64)

    def finish(self, least_bytes: int = 0) -> None:
        """Require that the stream holds the symbols that were taken and nothing else.

        Args:
            least_bytes: the number of bytes to which the encoder has filled the stream up.

        Raises:
            InputError: the encoder would have written other bytes for these symbols.
        """
        if self._again.data(least_bytes) != self._data:
            raise damaged()


def _uniform(levels: int) -> constriction.stream.model.Uniform:
    """The model of equally likely levels; each has a probability within 0.4 % of the others'."""
    if not 2 <= levels <= MAX_UNIFORM_LEVELS:
        raise InputError(f"{levels} equal levels are not 2 to {MAX_UNIFORM_LEVELS}.")
    return constriction.stream.model.Uniform(levels)


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


def weights(frequencies: Integers, precision: int) -> Weights:
    """The weights that the coder needs for these frequencies, in the same shape.

    Raises:
        InputError: the arguments are not frequencies of that precision.
    """
    if not 1 <= precision <= PRECISION:
        raise InputError(f"A precision of {precision} bits is not one of 1 to {PRECISION}.")
    if frequencies.ndim not in (1, 2) or frequencies.dtype.kind not in "iu":
        raise InputError(
            "Frequencies are integers [symbols, levels] or [levels], not"
            f" {frequencies.dtype} of shape {frequencies.shape}."
        )
    if frequencies.size and int(frequencies.min()) < 1:
        raise InputError(f"A frequency is {int(frequencies.min())}, but it must be at least 1.")
    sums = np.atleast_1d(frequencies.sum(axis=-1, dtype=np.int64))
    if (wrong := sums != 1 << precision).any():
        raise InputError(
            f"The frequencies of a symbol sum to {int(sums[wrong][0])}, but they must sum to"
            f" 2^{precision} = {1 << precision}."
        )
    return ((frequencies.astype(np.int64) << (PRECISION - precision)) - 1).astype(np.float64)


def require_symbols(symbols_B: Integers, weights_: Weights) -> None:
    """Refuse symbols that these weights do not belong to.

    Raises:
        InputError: there are more or fewer rows than symbols, or a symbol is out of range.
    """
    levels = weights_.shape[-1]
    if symbols_B.ndim != 1 or (weights_.ndim == 2 and len(symbols_B) != len(weights_)):
        raise InputError(
            f"A step of {len(weights_)} rows of frequencies codes {len(weights_)} symbols, not an"
            f" array of shape {symbols_B.shape}."
        )
    if len(symbols_B) and not 0 <= int(symbols_B.min()) <= int(symbols_B.max()) < levels:
        raise InputError(
            f"Symbols run from {int(symbols_B.min())} to {int(symbols_B.max())}, allowed are 0"
            f" to {levels - 1}."
        )


def model(weights_: Weights) -> tuple[Any, ...]:
    """The weights as constriction takes them to encode: a row for each symbol, or one for all.

    Both mean the same, and one row for all is faster.
    """
    if weights_.ndim == 2:
        return MODEL, weights_
    return (constriction.stream.model.Categorical(weights_, perfect=False),)


def decodable(weights_: Weights, count: int) -> tuple[Any, ...]:
    """The weights as constriction takes them to decode so many symbols."""
    return model(weights_) if weights_.ndim == 2 else (*model(weights_), count)
