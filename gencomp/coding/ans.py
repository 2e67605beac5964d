"""A stack of symbols: what is pushed last is popped first, and popping what was never pushed draws.

    push   ( stack, x ) ──▶ ( stack )     the stack grows by −log2 p(x) bits
    pop    ( stack ) ──▶ ( stack, x )     the inverse: the stack shrinks by as much, and x comes out

The stack is one large number, coded by asymmetric numeral systems (Duda, 2013) with a state of 64
bits and words of 32 bits, as `constriction` implements them (Bamler, 2022). Its bits look random,
so symbols that are popped with probabilities other than those they were pushed with are a sample of
these probabilities, and pushing them back restores the bits. A symbol's probability is exactly its
frequency over 2^P, as in `gencomp.coding.range_coder`.

A new stack stands on *initial bits*, from which the first samples are drawn: words of Philox that
every reader can compute, as many as are popped. Words of them that were never reached are left out
of the stream. Above them may lie words that the sender wants to *carry*: they serve as initial bits
too, and a reader who has popped everything finds them again. Below them only words of Philox
remain, and two such words, 64 bits, remain above them, or the stream was damaged.
"""

from __future__ import annotations

import constriction
import numpy as np
import numpy.typing as npt

from gencomp.coding.dither import philox
from gencomp.coding.range_coder import damaged, decodable, model, require_symbols, weights
from gencomp.coding.tables import PRECISION, Integers

Words = npt.NDArray[np.uint32]

_WORD_BITS = 32
_WORD_BYTES = 4
# The state of the coder, which comes last in the stream.
_HEAD_WORDS = 2
_KEY = (0x62697473, 0x6261636B)
_NO_WORDS: Words = np.zeros(0, np.uint32)
_AnsCoder = constriction.stream.stack.AnsCoder


class Stack:
    """A stack on initial bits, which are supplied as they are needed.

    Args:
        carried: words that are popped before all other initial words but the two in the state.
    """

    def __init__(self, carried: Words = _NO_WORDS) -> None:
        above = np.concatenate([_initial(0, _HEAD_WORDS), carried])
        self._coder = _AnsCoder(above[::-1].copy())
        self._is_readers = False
        self._supplied = 0  # words of Philox below the carried ones
        self._untouched = len(carried)

    @classmethod
    def read(cls, data: bytes) -> Stack:
        """The stack of a reader, from what `data` has returned to the sender.

        Raises:
            InputError: no stack has these bytes.
        """
        if not data or data[-1] == 0:
            raise damaged()
        stack = cls()
        stack._coder = _AnsCoder(_words(data))
        stack._is_readers = True
        return stack

    def push(self, symbols_B: Integers, frequencies: Integers, precision: int = PRECISION) -> None:
        """Push symbols, the last one first, so that `pop` returns them in their order.

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
            self._coder.encode_reverse(symbols_B.astype(np.int32), *model(weights_))

    def pop(
        self, frequencies: Integers, precision: int = PRECISION, count: int | None = None
    ) -> Integers:
        """Pop symbols; the inverse of `push` with the same frequencies.

        Args:
            frequencies: a row for each symbol [B, L], or one row that all of them share [L].
            precision: 1..24.
            count: the number B of symbols, where they share a row.

        Raises:
            InputError: the frequencies have another sum, or the stack of a reader is exhausted.
        """
        weights_ = weights(frequencies, precision)
        many = len(weights_) if count is None else count
        if not many or weights_.shape[-1] == 1:
            return np.zeros(many, np.int64)
        if not self._is_readers:
            self._supply(many * PRECISION)
        symbols_B = self._coder.decode(*decodable(weights_, many))
        self._untouched = min(self._untouched, self._below())
        if self._coder.num_words() < _HEAD_WORDS:
            raise damaged()
        return symbols_B.astype(np.int64)

    def data(self) -> bytes:
        """The bytes of the stack, without the words of Philox that nothing has reached."""
        words = self._coder.get_compressed()[min(self._untouched, self._supplied) :]
        return bytes(words.astype("<u4").tobytes().rstrip(b"\0"))

    def remaining(self) -> Words:
        """The words below the state, the topmost first."""
        words: Words = self._coder.get_compressed()[::-1]
        return words[_HEAD_WORDS:]

    def require(self, bits: float) -> None:
        """Refuse to go on with a reader's stack that holds fewer bits.

        Raises:
            InputError: the stack is exhausted before so many bits are popped.
        """
        if _WORD_BITS * self._coder.num_words() < bits:
            raise damaged()

    def finish(self, carried: int = 0) -> None:
        """Require that a reader has popped everything.

        Args:
            carried: the number of words that the sender carried.

        Raises:
            InputError: something else than the initial words remains: the stream is damaged.
        """
        words = np.delete(self._coder.get_compressed()[::-1], _HEAD_WORDS + np.arange(carried))
        if len(words) < _HEAD_WORDS or (words != _initial(0, len(words))).any():
            raise damaged()

    def _below(self) -> int:
        """The number of words below the state."""
        return int(self._coder.num_words()) - _HEAD_WORDS

    def _supply(self, bits: int) -> None:
        """Put more initial words below the stack, unless it has so many bits below its state."""
        missing = -(-bits // _WORD_BITS) - self._below()
        if missing > 0:
            added = _initial(_HEAD_WORDS + self._supplied, missing)
            self._coder = _AnsCoder(np.concatenate([added[::-1], self._coder.get_compressed()]))
            self._supplied += missing
            self._untouched += missing


def pseudorandom_words(key: tuple[int, int], first: int, count: int) -> Words:
    """Words `first`, `first` + 1, … of Philox under a key, uint32 [count]."""
    blocks = np.arange(first // 4, -(-(first + count) // 4), dtype=np.uint64)
    counters = np.zeros((len(blocks), 4), np.uint64)
    counters[:, 0] = blocks
    skipped = first % 4
    return philox(counters, key).ravel()[skipped : skipped + count].astype(np.uint32)


def _initial(first: int, count: int) -> Words:
    """Initial words, in the order in which they are popped; word 0 is not zero."""
    return pseudorandom_words(_KEY, first, count)


def _words(data: bytes) -> Words:
    return np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), "<u4").astype(np.uint32)
