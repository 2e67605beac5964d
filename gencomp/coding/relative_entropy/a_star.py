"""A* coding of one dimension: AS*, which splits at the sample, and AD*, which splits in the middle.

    sender      a search tree of intervals of the prior; the node with the largest bound comes next;
                its candidate is x ~ p within its interval, with the value ln r(x) + Gumbel noise
    stream      the node of the best candidate: its depth, and left or right at each step
    receiver    follows the path; the interval and the node's own random number give x

The candidates with their Gumbel noise are a Poisson process in another order, so the value is an
exact sample of q = r p. The search ends when no interval can hold a better candidate: for a ratio
with one mode after about D_∞ steps, against exp(D_∞) of `ordered` (Maddison, Tarlow and Minka,
2014; Flamich, Markou and Hernández-Lobato, 2022). The stream has about KL + log2 KL + a few bits.
AS* was proved to be as fast; AD* needs a little less of both, by experience.

Use it for single numbers of several bits. The few bits of overhead are paid for each number, so it
is no replacement for blocks of many dimensions of less than a bit.
"""

from __future__ import annotations

import heapq
import math
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from gencomp.coding import portable
from gencomp.coding.coders import Coder
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.relative_entropy import ratios, zipf
from gencomp.coding.relative_entropy.shared_randomness import NODES, uniforms
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

Split = Literal["sample", "middle"]

MOST_DEPTH = 48

_PRIOR = NormalDist()
_EVEN = np.full(2, 1 << PRECISION - 1, np.int64)


class Found(NamedTuple):
    """What a search has found.

    Attributes:
        node: the number of the best candidate's node: the root is 1, and the children of h are 2h
            and 2h + 1.
        steps: the number of nodes whose candidates were looked at.
    """

    node: int
    steps: int


class _Node(NamedTuple):
    """An interval of the prior's distribution function that is yet to be searched.

    Attributes:
        minus_bound: minus the largest value that a candidate of the interval may have; a heap has
            its smallest entry first.
        number: the number of the node.
        gumbel: the Gumbel noise of its candidate, the largest of the interval.
        low, high: the ends of the interval, 0..1.
        at: its candidate as a value of the distribution function.
    """

    minus_bound: float
    number: int
    gumbel: float
    low: float
    high: float
    at: float


def encode(target: Gaussian, seed: int, split: Split) -> Found:
    """Search a target of one dimension.

    Args:
        target: the target q where its prior is the standard normal distribution, [1].
        seed: the seed of the block.
        split: where intervals are split: at the "sample" (AS*) or in the "middle" (AD*).

    Raises:
        InputError: the target has several dimensions, or its scale is not below 1.
    """
    ratio = _Ratio.of(target)
    best, best_node, steps = -math.inf, 1, 0
    where, noise = _draws(seed, 1, 1)[0]
    gumbel = -math.log(-math.log(noise))
    heap = [_Node(-(gumbel + ratio.largest), 1, gumbel, 0.0, 1.0, where)]
    while heap and best < -heap[0].minus_bound:
        node = heapq.heappop(heap)
        steps += 1
        value = node.gumbel + ratio.log(_quantile(node.at))
        if value > best:
            best, best_node = value, node.number
        if node.number >> MOST_DEPTH:
            continue
        cut = node.at if split == "sample" else _middle(node.low, node.high)
        children = ((node.low, cut), (cut, node.high))
        draws = _draws(seed, 2 * node.number, 2)
        for side, ((low, high), (where, noise)) in enumerate(zip(children, draws, strict=True)):
            bound = ratio.bound(low, high)
            if low < high and best < node.gumbel + bound:
                gumbel = _truncated(math.log(high - low), node.gumbel, noise)
                at, number = _within(low, high, where), 2 * node.number + side
                if best < gumbel + bound:
                    heapq.heappush(heap, _Node(-(gumbel + bound), number, gumbel, low, high, at))
    return Found(best_node, steps)


def decode(node: int, seed: int, split: Split) -> float:
    """The value of the candidate of a node.

    Raises:
        InputError: a search finds no such node.
    """
    depth = node.bit_length() - 1
    if not 0 <= depth <= MOST_DEPTH:
        raise InputError(f"A search tree has {MOST_DEPTH} levels at most, not {depth}.")
    low, high = 0.0, 1.0
    for level in range(depth - 1, -1, -1):
        ancestor = node >> level + 1
        if split == "sample":
            cut = _within(low, high, _draws(seed, ancestor, 1)[0][0])
        else:
            cut = _middle(low, high)
        low, high = (cut, high) if node >> level & 1 else (low, cut)
    at = _within(low, high, _draws(seed, node, 1)[0][0])
    return float(portable.normal_quantile(np.array([at]))[0])


def coder(count: int, depth: float) -> Coder[Integers]:
    """The coder of the nodes of `count` searches: a Zipf code of the depths, then the paths.

    Args:
        count: the number of nodes.
        depth: the depth that is expected, in bits; about the divergence.
    """
    row = zipf.frequencies(MOST_DEPTH + 1, float(np.log2(depth + 1)))

    def encode(encoder: Encoder, nodes_B: Integers) -> None:
        depths_B = np.array([int(node).bit_length() - 1 for node in nodes_B], np.int64)
        encoder.put(depths_B, row)
        for level in range(MOST_DEPTH):
            deeper_A = depths_B > level
            encoder.put(nodes_B[deeper_A] >> depths_B[deeper_A] - level - 1 & 1, _EVEN)

    def decode(decoder: Decoder) -> Integers:
        depths_B = decoder.take(row, count=count)
        nodes_B = np.ones(count, np.int64)
        for level in range(MOST_DEPTH):
            deeper_A = depths_B > level
            bits_A = decoder.take(_EVEN, count=int(deeper_A.sum()))
            nodes_B[deeper_A] = 2 * nodes_B[deeper_A] + bits_A
        return nodes_B

    return Coder(encode, decode)


class _Ratio(NamedTuple):
    """The density ratio of a target of one dimension.

    Attributes:
        mean, scale: those of the target.
        largest: the largest ln r.
        mode: where it is, as a value of the prior's distribution function.
    """

    mean: float
    scale: float
    largest: float
    mode: float

    @classmethod
    def of(cls, target: Gaussian) -> _Ratio:
        if len(target.mean_D) != 1:
            raise InputError(f"A* coding takes one dimension, not {len(target.mean_D)}.")
        mean, scale = float(target.mean_D[0]), float(target.scale_D[0])
        largest = ratios.supremum(target)
        return cls(mean, scale, largest, _PRIOR.cdf(mean / (1 - scale**2)))

    def log(self, x: float) -> float:
        """ln r(x)."""
        return (x**2 - ((x - self.mean) / self.scale) ** 2) / 2 - math.log(self.scale)

    def bound(self, low: float, high: float) -> float:
        """The largest ln r within an interval of the distribution function."""
        if low <= self.mode <= high:
            return self.largest
        return self.log(_quantile(high if high < self.mode else low))


def _draws(seed: int, node: int, count: int) -> list[list[float]]:
    """The two random numbers of some nodes: for the candidate and for its Gumbel noise."""
    found: list[list[float]] = uniforms(seed, node, count, NODES).tolist()
    return found


def _within(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _middle(low: float, high: float) -> float:
    return low + (high - low) * 0.5


def _quantile(u: float) -> float:
    """The prior's quantile, for a search that only the sender makes."""
    return _PRIOR.inv_cdf(min(max(u, 2.0**-60), 1 - 2.0**-53))


def _truncated(location: float, most: float, u: float) -> float:
    """A Gumbel variable with a location that is at most `most`, for a uniform u."""
    return location - math.log(math.exp(location - most) - math.log(u))
