"""What the known pixels around a pixel of a label map say of its label.

A map is coded from coarse to fine: of every second row and column of a lattice, the pixels between
are coded in three passes, each of which knows all earlier ones.

    x 1 x 1      x  known before
    2 0 2 0      0  between four known pixels, diagonally
    x 1 x 1      1  between two columns
    2 0 2 0      2  between two rows; all eight neighbours are known

So the pixels of a pass can be coded at once, and the contexts surround a pixel, where a coder that
goes row by row knows one half of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gencomp.coding.tables import Integers

Labels = npt.NDArray[np.int32]

MARGIN = 3  # pixels around a lattice
PASSES = ((1, 1), (0, 1), (1, 0))  # the first row and the first column of each
GUESSES = 4
ORDERS = 5
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_CROSS = ((0, -1), (0, 1), (-1, 0), (1, 0))
_KNIGHTS = ((-1, -2), (-1, 2), (1, -2), (1, 2), (-2, -1), (-2, 1), (2, -1), (2, 1))
# The 16 neighbours (row, column) of each pass, in three rings: 0 to 3, 4 to 11, 12 to 15.
OFFSETS = np.array(
    [
        (
            *_DIAGONAL,
            *((-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (-3, 1), (3, -1), (3, 1)),
            *((-3, -3), (-3, 3), (3, -3), (3, 3)),
        ),
        (*_CROSS, *_KNIGHTS, (0, -3), (0, 3), (-3, 0), (3, 0)),
        (*_CROSS, *_DIAGONAL, *_KNIGHTS),
    ]
)
_RINGS = np.repeat((0, 1, 2), (4, 8, 4))
_WEIGHTS = np.array((4, 1, 1), np.int8)[_RINGS]
# Sums over the neighbours that share a label: moments to the right and downwards, and how many of
# each ring, in decimal digits.
_MOMENTS = (OFFSETS * np.array((4, 3, 2))[_RINGS, None]).transpose(0, 2, 1)
_DIGITS = np.array((100, 10, 1))[_RINGS]


class Surroundings(NamedTuple):
    """What is known of N pixels before they are coded.

    Attributes:
        guesses_GN: the labels around a pixel by weight, the likeliest first; `none` where there are
            fewer.
        contexts_CN: contexts from coarse to fine, the same for patterns that differ only by names
            of labels and by mirroring, but for the last one.
    """

    guesses_GN: Labels
    contexts_CN: npt.NDArray[np.uint64]


def surroundings(
    values_RN: Labels, none: int, turn: int, recent_N: Labels | None = None
) -> Surroundings:
    """The surroundings of pixels.

    Args:
        values_RN: the labels of the 16 neighbours, or `none` where unknown.
        none: a number above all labels.
        turn: the number of the pass.
        recent_N: one more guess, the last one.
    """
    guesses_GN, ranks_RN = _guesses(values_RN, none, recent_N)
    first_RN = ranks_RN == 0
    down_N, right_N = _MOMENTS[turn] @ first_RN
    flags_N = (right_N < 0) + 2 * (down_N < 0)
    if turn == 0:
        flags_N = flags_N + 4 * (abs(down_N) > abs(right_N))
    turned_RN = np.take_along_axis(ranks_RN, _MIRRORS[turn].take(flags_N, axis=1), axis=0)
    pattern_N = np.zeros(values_RN.shape[1], np.uint64)
    for place, rank_N in enumerate(turned_RN):
        pattern_N |= rank_N.astype(np.uint64) << np.uint64(3 * place)
    rings_N = 1000 * (_DIGITS @ first_RN) + _DIGITS @ (ranks_RN == 1)
    near_N = pattern_N & np.uint64((1 << 24) - 1)
    named_N = guesses_GN[0].astype(np.uint64) * np.uint64(none + 1) + guesses_GN[1].astype(
        np.uint64
    )
    contexts = (
        rings_N.astype(np.uint64),
        near_N,
        pattern_N & np.uint64((1 << 36) - 1),
        pattern_N,
        near_N + named_N * np.uint64(0xD6E8FEB86659FD93),
    )
    return Surroundings(guesses_GN, np.stack(contexts))


def _guesses(
    values_RN: Labels, none: int, recent_N: Labels | None
) -> tuple[Labels, npt.NDArray[np.int8]]:
    """The guesses, and the place of each neighbour among them, or `GUESSES` if it has none."""
    weights_RN = np.zeros(values_RN.shape, np.int8)
    for values_N, weight in zip(values_RN, _WEIGHTS, strict=True):
        weights_RN += (values_RN == values_N) * weight
    weights_RN[values_RN == none] = 0
    ranks_RN = np.full(values_RN.shape, GUESSES, np.int8)
    guesses_GN = np.full((GUESSES, values_RN.shape[1]), none, np.int32)
    columns_N = np.arange(values_RN.shape[1])
    for rank in range(GUESSES):
        best_N = weights_RN.argmax(axis=0)
        found_N = weights_RN[best_N, columns_N] > 0
        if not found_N.any():
            break
        guesses_GN[rank, found_N] = values_RN[best_N[found_N], columns_N[found_N]]
        same_RN = (values_RN == guesses_GN[rank]) & found_N
        ranks_RN[same_RN] = rank
        weights_RN[same_RN] = 0
    if recent_N is not None:
        new_N = (guesses_GN != recent_N).all(axis=0) & (recent_N != none)
        place_N = (guesses_GN == none).argmax(axis=0)
        new_N &= guesses_GN[place_N, columns_N] == none
        guesses_GN[place_N[new_N], columns_N[new_N]] = recent_N[new_N]
    return guesses_GN, ranks_RN


def _mirrored(offsets_R2: Integers, flags: int) -> list[int]:
    """The places from which the neighbours come when a pattern is mirrored: by columns, rows or the
    diagonal, as bits 0, 1 and 2 of the flags say."""
    places = {(int(row), int(column)): place for place, (row, column) in enumerate(offsets_R2)}
    found = []
    for place, (row, column) in enumerate(offsets_R2.tolist()):
        if flags & 4:
            row, column = column, row
        mirrored = (-row if flags & 2 else row, -column if flags & 1 else column)
        found.append(places.get(mirrored, place))
    return found


_MIRRORS = np.array(
    [[_mirrored(offsets_R2, flags) for flags in range(8)] for offsets_R2 in OFFSETS]
).transpose(0, 2, 1)
