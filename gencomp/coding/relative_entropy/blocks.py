"""Blocks: which latents of a layer are coded together.

    ( x_1 … x_D ) ──split──▶ ( block 1 ) … ( block N ) ──merge──▶ ( x_1 … x_D )

The time to code a block grows with its relative entropy times its size, and what is sent beside its
indices costs about 6 bits. So blocks should carry about 100 nats each, however many latents that
takes. The latents are put into an order at random, which both sides draw from the key. Both sides
also know what relative entropy to expect of each latent, a table that comes with the model, and cut
the order into N blocks of equal expected relative entropy. The sender chooses N by the true
relative entropy of its image, and N is sent: this is the scale that adapts to the image.

Everything is computed in integers, so both sides cut alike on every machine.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gencomp.coding.relative_entropy.auxiliary import Floats
from gencomp.coding.relative_entropy.candidates import Rows
from gencomp.coding.relative_entropy.codes import Key
from gencomp.coding.tables import Integers
from gencomp.errors import InputError

NATS = 100.0  # of a block
_MOST_LATENTS = 1 << 14  # of a block, on average; they bound the memory of a search
_UNITS = 1 << 16  # a nat of expected relative entropy, in integers
_MOST_NATS = 1 << 20  # of a latent


def count(nats: float, dimensions: int) -> int:
    """The number of blocks of a layer of D latents with so many nats; none if it has none."""
    if not nats > 0:
        return 0
    return min(max(round(nats / NATS), least(dimensions)), dimensions)


def least(dimensions: int) -> int:
    """The least number of blocks of a layer of D latents that has any."""
    return -(-dimensions // _MOST_LATENTS)


def split(expected_D: Floats, blocks: int, key: Key) -> list[Integers]:
    """The places of the latents of each block, in the order in which they are coded.

    Args:
        expected_D: the relative entropy in nats that is expected of each latent, at least 0.
        blocks: the number N of blocks, 0..D; without blocks no latent is coded.
        key: the key of the layer.

    Raises:
        InputError: the table or the number of blocks is out of range.
    """
    dimensions = len(expected_D)
    if not (np.isfinite(expected_D).all() and (expected_D >= 0).all()):
        raise InputError("The expected relative entropy of a latent is a number of at least 0.")
    if not 0 <= blocks <= dimensions:
        raise InputError(f"A layer of {dimensions} latents has 0 to {dimensions} blocks: {blocks}.")
    if not blocks:
        return []
    order_D = np.argsort(Rows(key).order_words(dimensions), kind="stable")
    # One unit for each latent, so that those without expected relative entropy are spread too.
    units_D = 1 + np.rint(np.minimum(expected_D, _MOST_NATS) * _UNITS).astype(np.int64)
    ends_D = np.cumsum(units_D[order_D])
    # Block n holds the latents whose middle lies in its share of the whole, and at least one.
    doubled_D = 2 * ends_D - units_D[order_D]
    shares = [2 * int(ends_D[-1]) * number // blocks for number in range(1, blocks)]
    cuts = np.searchsorted(doubled_D, shares)
    steps = np.arange(1, blocks)
    cuts = np.maximum.accumulate(np.concatenate([[0], cuts - steps]))[1:] + steps
    cuts = np.minimum(cuts, dimensions - blocks + steps)
    return [order_D[start:stop] for start, stop in pairwise([0, *cuts.tolist(), dimensions])]


def merge(values: list[Floats], places: list[Integers], dimensions: int) -> Floats:
    """The values of the latents of a layer from those of its blocks, [D]; 0 where none is coded."""
    x_D = np.zeros(dimensions)
    for value, place in zip(values, places, strict=True):
        x_D[place] = value
    return x_D
