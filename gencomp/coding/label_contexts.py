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

Labels = npt.NDArray[np.integer]  # of the fewest bits

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
_WEIGHTS = np.repeat((4, 1), (4, 8)).astype(np.int8)  # of the inner two rings
# Sums over the neighbours that share a label: moments to the right and downwards, and how many of
# each ring, in decimal digits.
_MOMENTS = (OFFSETS * np.array((4, 3, 2))[_RINGS, None]).transpose(0, 2, 1)
_RANK_BITS = 3
_APART = np.uint64(0xD6E8FEB86659FD93)  # odd, so that the product of a number has no other factor
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
    mirrors_RN = _MIRRORS[turn].take(flags_N, axis=1)
    pattern_N = np.zeros(values_RN.shape[1], np.uint64)
    for place, rank_N in enumerate(np.take_along_axis(ranks_RN, mirrors_RN, axis=0)):
        pattern_N |= rank_N.astype(np.uint64) << np.uint64(_RANK_BITS * place)
    rings_N = 1000 * (_DIGITS @ first_RN) + _DIGITS @ (ranks_RN == 1)
    named_N = guesses_GN[0].astype(np.uint64) * np.uint64(none + 1) + guesses_GN[1]
    four_N, eight_N = (pattern_N & np.uint64((1 << _RANK_BITS * n) - 1) for n in (4, 8))
    contexts = rings_N.astype(np.uint64), four_N, eight_N, pattern_N, four_N + named_N * _APART
    return Surroundings(guesses_GN, np.stack(contexts))


def _guesses(
    values_RN: Labels, none: int, recent_N: Labels | None
) -> tuple[Labels, npt.NDArray[np.int8]]:
    """The guesses, and the place of each neighbour among them, or `GUESSES` if it has none."""
    near_RN = values_RN[: len(_WEIGHTS)]
    weights_RN = np.zeros(near_RN.shape, np.int8)
    for values_N, weight in zip(near_RN, _WEIGHTS, strict=True):
        weights_RN += (near_RN == values_N) * weight
    weights_RN[near_RN == none] = 0
    ranks_RN = np.full(values_RN.shape, GUESSES, np.int8)
    guesses_GN = np.full((GUESSES, values_RN.shape[1]), none, values_RN.dtype)
    left = np.arange(values_RN.shape[1])  # the pixels with further guesses
    for rank in range(GUESSES):
        more_N = weights_RN.any(axis=0)
        left, weights_RN = left[more_N], weights_RN[:, more_N]
        if not len(left):
            break
        values_RM = values_RN[:, left]
        best_M = values_RM[weights_RN.argmax(axis=0), np.arange(len(left))]
        guesses_GN[rank, left] = best_M
        same_RM = values_RM == best_M
        ranks_RN[:, left] = np.where(same_RM, np.int8(rank), ranks_RN[:, left])
        weights_RN[same_RM[: len(weights_RN)]] = 0
    if recent_N is not None:
        new_N = (guesses_GN != recent_N).all(axis=0) & (recent_N != none)
        place_N = (guesses_GN == none).argmax(axis=0)
        columns_N = np.arange(len(recent_N))
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


# [turn, 12, flags]: only the inner two rings form patterns.
_MIRRORS = np.array(
    [[_mirrored(offsets_R2, flags)[:12] for flags in range(8)] for offsets_R2 in OFFSETS]
).transpose(0, 2, 1)
