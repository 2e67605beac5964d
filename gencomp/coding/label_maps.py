"""An adaptive context coder for maps of ids: labels, instances, masks; without loss, in integers.

The ids that a map has come first. The map follows from coarse to fine, in the passes of
`gencomp.coding.label_contexts`: where all neighbours share one id, one bit says that the pixel has
it too, which costs next to nothing; elsewhere bits ask for one neighbour's id after the other, with
probabilities that adapt to the patterns of the map (`gencomp.coding.adaptive_bits`); an id that no
neighbour has is coded by how often it was new before. All pixels of a part of a pass are coded at
once, so there is no Python for a single pixel.

A second map may be coded given a first one, such as instances given labels: pixels where the first
map has other ids then say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gencomp.coding.adaptive_bits import (
    BITS,
    ONE,
    AdaptiveBits,
    BitReader,
    Bits,
    BitWriter,
    leaning,
)
from gencomp.coding.label_contexts import (
    GUESSES,
    MARGIN,
    OFFSETS,
    ORDERS,
    PASSES,
    Labels,
    Surroundings,
    surroundings,
)
from gencomp.coding.range_coder import damaged
from gencomp.coding.tables import Integers
from gencomp.errors import InputError

MAX_CLASSES = 1 << 16
_AT_ONCE = 1 << 14  # pixels of a pass, to bound memory
_LEAST_PART = 32  # pixels that are coded by the same counts
_GROWTH = 128  # parts grow by one for so many pixels that were coded
_SAME = ONE - ONE // 512  # the probability that a pixel is like all its neighbours, to begin with
_LIKELY = (ONE * 7 // 10, *[ONE * 6 // 10] * (GUESSES - 1))  # that of each guess, likewise
_BLOCK = 256  # ids


class Code(Protocol):
    """Writes or reads bits, given the probabilities of 1; returns the bits."""

    def __call__(self, bits_N: Bits | None, ones_N: Integers) -> Bits: ...


def encode(
    map_HW: npt.NDArray[np.integer],
    classes: int,
    known_HW: Bits | None = None,
    given_HW: npt.NDArray[np.integer] | None = None,
) -> bytes:
    """Encode a map.

    Args:
        map_HW: ids 0..classes−1.
        classes: the number of ids that maps may have, 1..65536; a binary mask has 2.
        known_HW: the pixels that are coded; None for all. The decoder needs it too.
        given_HW: another map whose borders the borders of this map follow; the
            decoder needs it too.

    Raises:
        InputError: the arguments do not fit.
    """
    height, width = _require_map(map_HW)
    known_HW = _known(known_HW, height, width)
    given_HW = _given(given_HW, height, width)
    _require_classes(classes)
    values = map_HW[known_HW]
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < classes:
        raise InputError(
            f"The ids of a map run from {int(values.min())} to {int(values.max())}, allowed are 0"
            f" to {classes - 1}."
        )
    if not values.size or classes == 1:
        return b""
    writer = BitWriter()
    there = np.zeros(classes, bool)
    there[values] = True
    ids_K = _code_ids(there, classes, writer.code)
    if len(ids_K) > 1:
        places = np.zeros(classes, np.int64)
        places[ids_K] = np.arange(len(ids_K))
        truth_HW = np.where(known_HW, places[np.where(known_HW, map_HW, ids_K[0])], len(ids_K))
        _Walk(len(ids_K), known_HW, given_HW, writer.code).run(truth_HW.astype(_type(len(ids_K))))
    return writer.data()


def decode(
    data: bytes,
    height: int,
    width: int,
    classes: int,
    known_HW: Bits | None = None,
    given_HW: npt.NDArray[np.integer] | None = None,
) -> Integers:
    """Decode a map, int64 [H, W]; pixels that are not known are 0. The inverse of `encode`.

    Raises:
        InputError: `encode` writes other data for every map, or the arguments do not fit.
    """
    if height < 1 or width < 1:
        raise InputError(f"A map has at least one pixel, not {height}x{width}.")
    known_HW = _known(known_HW, height, width)
    given_HW = _given(given_HW, height, width)
    _require_classes(classes)
    map_HW = np.zeros((height, width), np.int64)
    if classes == 1 or not known_HW.any():
        if data:
            raise damaged()
        return map_HW
    reader = BitReader(data)
    ids_K = _code_ids(None, classes, reader.code)
    if len(ids_K) > 1:
        places_HW = _Walk(len(ids_K), known_HW, given_HW, reader.code).run(None)
        map_HW[known_HW] = ids_K[places_HW[known_HW]]
    else:
        map_HW[known_HW] = ids_K[0]
    reader.finish()
    return map_HW


class _Walk:
    """The way through a map, which is the same for encoder and decoder.

    Args:
        count: the number K of ids, at least 2; in here ids are 0..K−1, and K stands for none.
        known_HW: the pixels that are coded.
        given_HW: places of the ids of another map, or None.
        code: writes or reads bits.
    """

    def __init__(self, count: int, known_HW: Bits, given_HW: Labels | None, code: Code) -> None:
        self._type, self._none, self._known_HW, self._given_HW, self._code = (
            _type(count),
            count,
            known_HW,
            given_HW,
            code,
        )
        size_bits = min(max(known_HW.size.bit_length() - 2, 8), 20)
        self._bits = AdaptiveBits(ORDERS, size_bits)
        self._same = np.zeros((2, len(PASSES), count), np.int64)
        self._new = _NewIds(count, code)
        self._recent: Labels | None = None
        if given_HW is not None:
            self._recent = np.full(int(given_HW.max()) + 1, count, self._type)
        self._coded = 0

    def run(self, truth_HW: Labels | None) -> Labels:
        """Code the map `truth_HW`, or the one of the stream if it is None, and return it."""
        map_HW = np.full(self._known_HW.shape, self._none, self._type)
        if self._known_HW[0, 0]:
            truth_N = None if truth_HW is None else truth_HW[0, :1]
            map_HW[0, 0] = self._new.run(truth_N, np.full((1, 1), self._none, self._type))[0]
        stride = 1 << (max(map_HW.shape) - 1).bit_length() >> 1
        while stride:
            for turn in range(len(PASSES)):
                self._pass(map_HW, truth_HW, turn, stride)
            stride >>= 1
        return map_HW

    def _pass(self, map_HW: Labels, truth_HW: Labels | None, turn: int, stride: int) -> None:
        """Code one pass of a lattice of every `stride`-th row and column."""
        lattice_YX = _lattice(map_HW, self._none, stride)
        given_YX = None if self._given_HW is None else _lattice(self._given_HW, -1, stride)
        for rows, columns in _parts(map_HW.shape, turn, stride):
            values_RN = _around(lattice_YX, rows, columns, turn)
            if given_YX is not None:
                here_N = given_YX[rows + MARGIN, columns + MARGIN].ravel()
                values_RN[_around(given_YX, rows, columns, turn) != here_N] = self._none
            pixels_N = (rows * (stride * map_HW.shape[1]) + columns * stride).ravel()
            known_N = self._known_HW.take(pixels_N)
            if not known_N.all():
                pixels_N, values_RN = pixels_N[known_N], values_RN[:, known_N]
            truth_N = None if truth_HW is None else truth_HW.take(pixels_N)
            map_HW.put(pixels_N, self._part(truth_N, values_RN, turn, pixels_N))

    def _part(
        self, truth_N: Labels | None, values_RN: Labels, turn: int, pixels_N: Integers
    ) -> Labels:
        """Code pixels that have these neighbours, and return their ids."""
        alike_N = (values_RN == values_RN[0]).all(axis=0) & (values_RN[0] != self._none)
        alike, other = np.flatnonzero(alike_N), np.flatnonzero(~alike_N)
        tried_GN = np.full((GUESSES, len(pixels_N)), self._none, self._type)
        found_N = np.full(len(pixels_N), self._none, self._type)
        tried_GN[0, alike] = values_RN[0, alike]
        found_N[alike] = self._alike(_at(truth_N, alike), tried_GN[0, alike], turn)
        recent_N = None if self._recent is None else self._recent_of(pixels_N[other])
        around = surroundings(values_RN[:, other], self._none, turn, recent_N)
        tried_GN[:, other] = around.guesses_GN
        found_N[other] = self._asked(_at(truth_N, other), around, turn)
        new = np.flatnonzero(found_N == self._none)
        found_N[new] = self._new.run(_at(truth_N, new), tried_GN[:, new])
        if self._recent is not None and self._given_HW is not None:
            self._recent[self._given_HW.take(pixels_N)] = found_N
        return found_N

    def _recent_of(self, pixels_N: Integers) -> Labels | None:
        """The id that was coded last where the other map has the same id."""
        if self._recent is None or self._given_HW is None:
            return None
        return self._recent.take(self._given_HW.take(pixels_N))

    def _alike(self, truth_N: Labels | None, shared_N: Labels, turn: int) -> Labels:
        """Code whether pixels have the id that all their neighbours share."""
        (seen_K, same_K), weight = self._same[:, turn], 16
        every = leaning(seen_K.sum(keepdims=True), same_K.sum(keepdims=True), _SAME, weight)
        chance_K = np.clip(leaning(seen_K, same_K, every, weight), 1, ONE - 1)
        wanted_N = None if truth_N is None else truth_N == shared_N
        bits_N = self._code(wanted_N, chance_K.take(shared_N))
        np.add.at(seen_K, shared_N, 1)
        np.add.at(same_K, shared_N[bits_N], 1)
        return np.where(bits_N, shared_N, self._none)

    def _asked(self, truth_N: Labels | None, around: Surroundings, turn: int) -> Labels:
        """Code which of their guesses pixels have."""
        found_N = np.full(around.guesses_GN.shape[1], self._none, self._type)
        for rank, guesses_N in enumerate(around.guesses_GN):
            left = np.flatnonzero((found_N == self._none) & (guesses_N != self._none))
            asked = np.uint64((1 + turn + len(PASSES) * rank) << 56)
            cells_CN = self._bits.cells(around.contexts_CN[:, left] + asked)
            start = 0
            while start < len(left):
                part = slice(start, start + _LEAST_PART + self._coded // _GROWTH)
                chosen, cells = left[part], cells_CN[:, part]
                wanted_N = None if truth_N is None else truth_N[chosen] == guesses_N[chosen]
                bits_N = self._code(wanted_N, self._bits.probabilities(cells, _LIKELY[rank]))
                self._bits.count(cells, bits_N)
                found_N[chosen[bits_N]] = guesses_N[chosen[bits_N]]
                self._coded += len(chosen)
                start += len(chosen)
        return found_N


class _NewIds:
    """Codes ids that no neighbour has, by how often they were new before.

    Each bit halves the ids that are left.
    """

    def __init__(self, count: int, code: Code) -> None:
        self._depth = (count - 1).bit_length()
        self._count, self._code, self._coded = count, code, 0
        self._seen = np.zeros(count, np.int64)

    def run(self, truth_N: Labels | None, tried_GN: Labels) -> Labels:
        """Code ids, of which some were tried before: `count` stands for none of them."""
        found_N = np.empty(tried_GN.shape[1], tried_GN.dtype)
        start = 0
        while start < len(found_N):
            part = slice(start, start + _LEAST_PART + self._coded // _GROWTH)
            found_N[part] = self._part(_at(truth_N, part), tried_GN[:, part])
            np.add.at(self._seen, found_N[part], 1)
            start, self._coded = part.stop, self._coded + len(found_N[part])
        return found_N

    def _part(self, truth_N: Labels | None, tried_GN: Labels) -> Labels:
        # An id is worth one half before it was seen, and nothing where it was tried.
        worth_K = np.append(2 * self._seen + 1, 0)
        below = np.zeros((1 << self._depth) + 1, np.int64)
        np.cumsum(worth_K[:-1], out=below[1 : self._count + 1])
        below[self._count + 1 :] = below[self._count]
        tried_GN = tried_GN[(tried_GN != self._count).any(axis=1)]
        worth_GN = worth_K[tried_GN]
        low_N = np.zeros(tried_GN.shape[1], np.int64)
        for depth in reversed(range(self._depth)):
            middle_N, high_N = low_N + (1 << depth), low_N + (2 << depth)
            upper_GN = (tried_GN >= middle_N) & (tried_GN < high_N)
            lower_GN = (tried_GN >= low_N) & (tried_GN < middle_N)
            upper_N = below[high_N] - below[middle_N] - (worth_GN * upper_GN).sum(axis=0)
            lower_N = below[middle_N] - below[low_N] - (worth_GN * lower_GN).sum(axis=0)
            ones_N = (upper_N << BITS) // np.maximum(upper_N + lower_N, 1)
            wanted_N = None if truth_N is None else truth_N >= middle_N
            bits_N = self._code(wanted_N, np.clip(ones_N, 1, ONE - 1))
            low_N[bits_N] = middle_N[bits_N]
        if int(low_N.max(initial=0)) >= self._count:
            raise damaged()
        return low_N.astype(_type(self._count))


def _lattice(map_HW: Labels, outside: int, stride: int) -> Labels:
    """Every `stride`-th row and column of a map, with a margin."""
    return np.pad(map_HW[::stride, ::stride], MARGIN, constant_values=outside)


def _parts(shape: tuple[int, ...], turn: int, stride: int) -> Iterator[tuple[Integers, Integers]]:
    """The rows [Y, 1] and columns [X] of a pass in a lattice, some rows at a time.

    Args:
        shape: height and width of the map.
        turn: the number of the pass.
        stride: that of the lattice.
    """
    height, width = -(-shape[0] // stride), -(-shape[1] // stride)
    rows, columns = np.arange(PASSES[turn][0], height, 2), np.arange(PASSES[turn][1], width, 2)
    step = max(1, _AT_ONCE // max(len(columns), 1))
    for start in range(0, len(rows) if len(columns) else 0, step):
        yield rows[start : start + step, None], columns


def _around(lattice_YX: Labels, rows: Integers, columns: Integers, turn: int) -> Labels:
    """The 16 neighbours of each pixel of a part, [16, N]."""
    found = np.empty((len(OFFSETS[turn]), len(rows), len(columns)), lattice_YX.dtype)
    top, left = int(rows[0, 0]) + MARGIN, int(columns[0]) + MARGIN
    for place, (down, right) in enumerate(OFFSETS[turn].tolist()):
        first, second = top + down, left + right
        found[place] = lattice_YX[
            first : first + 2 * len(rows) - 1 : 2, second : second + 2 * len(columns) - 1 : 2
        ]
    return found.reshape(len(found), -1)


def _code_ids(there: Bits | None, classes: int, code: Code) -> Integers:
    """Code which ids a map has: how many, in which blocks of 256, and which of these."""
    count = None if there is None else int(there.sum()) - 1
    ids = _code_number(count, (classes - 1).bit_length(), code) + 1
    size, blocks = min(classes, _BLOCK), -(-classes // _BLOCK)
    block_B = np.zeros(1, np.int64)
    if blocks > 1:
        there_B = None if there is None else np.asarray(_blocks(there, blocks).any(axis=1))
        chance = np.full(blocks, min(max(ids * ONE // (2 * blocks), ONE // 64), ONE * 3 // 4))
        block_B = np.flatnonzero(code(there_B, chance))
    room = max(len(block_B) * size, 1)
    there_I = None if there is None else _blocks(there, blocks)[block_B, :size].ravel()
    chance = np.full(len(block_B) * size, min(max(ids * ONE // room, 1), ONE - 1))
    found = np.flatnonzero(code(there_I, chance))
    ids_K = block_B[found // size] * _BLOCK + found % size
    if len(ids_K) != ids or ids_K.max(initial=0) >= classes:
        raise damaged()
    return ids_K


def _blocks(there: Bits, blocks: int) -> Bits:
    return np.pad(there, (0, blocks * _BLOCK - len(there))).reshape(blocks, _BLOCK)


def _code_number(number: int | None, bits: int, code: Code) -> int:
    """Code a number of at most so many bits, with even chances."""
    places = np.arange(bits)
    wanted = None if number is None else (number >> places & 1).astype(bool)
    return int((code(wanted, np.full(bits, ONE // 2)).astype(np.int64) << places).sum())


def _type(count: int) -> type[np.unsignedinteger]:
    """The type of ids 0..count, the last of which stands for none."""
    return np.uint8 if count < 1 << 8 else np.uint16 if count < 1 << 16 else np.uint32


def _at(values_N: Labels | None, chosen: Integers | slice) -> Labels | None:
    return None if values_N is None else values_N[chosen]


def _require_map(map_HW: npt.NDArray[np.integer]) -> tuple[int, int]:
    if map_HW.ndim != 2 or map_HW.dtype.kind not in "iu" or not map_HW.size:
        raise InputError(
            "A map is an array of integers [height, width], not"
            f" {map_HW.dtype} of shape {map_HW.shape}."
        )
    return map_HW.shape


def _require_classes(classes: int) -> None:
    if not 1 <= classes <= MAX_CLASSES:
        raise InputError(f"A map has 1 to {MAX_CLASSES} classes, not {classes}.")


def _known(known_HW: Bits | None, height: int, width: int) -> Bits:
    if known_HW is None:
        return np.ones((height, width), bool)
    if known_HW.shape != (height, width) or known_HW.dtype != bool:
        raise InputError(
            f"The known pixels of a map of {height}x{width} pixels are booleans of that shape, not"
            f" {known_HW.dtype} of shape {known_HW.shape}."
        )
    return known_HW


def _given(given_HW: npt.NDArray[np.integer] | None, height: int, width: int) -> Labels | None:
    """The places of a given map's ids among them, so that any ids take little memory."""
    if given_HW is None:
        return None
    if _require_map(given_HW) != (height, width):
        raise InputError(
            f"The given map has the shape {given_HW.shape}, and the map that is coded has"
            f" {height}x{width} pixels."
        )
    places = np.unique(given_HW, return_inverse=True)[1]
    return places.reshape(height, width).astype(np.int32)
