"""Integer statistics of a code, from which an entropy coder takes its probabilities.

The N symbols of one code are coded in order. The distribution of symbol i depends on the values of
up to P earlier symbols, its *parents*; this is a Bayesian network, and for P = 1 a tree as in Chow
and Liu (1968). For every symbol and every combination of its parents' values, its *context*, the
tables hold how often each level occurred in training images. Everything is an integer, so encoder
and decoder agree on every machine.

Parents are chosen greedily by the bits that they save over the training images, as long as the
saving exceeds the cost of naming the parent and of learning the additional counts (the minimum
description length of Rissanen, 1978).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

Integers = npt.NDArray[np.int64]

# The coder's probabilities are multiples of 2^-PRECISION.
PRECISION = 24
# So much of the probability is shared evenly by all levels, whatever the counts are. It costs at
# most 0.0014 bits a symbol, and no symbol of two or more levels is cheaper than 0.0007 bits: the
# size of a file bounds the number of symbols that it can hold.
_EVEN = 1 << (PRECISION - 10)
MIN_BITS = 0.0007
_MAX_CONTEXTS = 16
# So many images would count one level at most: frequencies are computed without overflow.
_MOST_COUNTS = 1 << 29
# Parents are chosen among the most informative _CANDIDATES of the _REACH symbols before.
_REACH = 2048
_CANDIDATES = 40


@dataclass(frozen=True)
class Tables:
    """Statistics of a code of N symbols.

    Attributes:
        back_NP: how far each symbol's parents lie before it; zeros at the front stand for parents
            that it lacks.
        counts_NCL: the number of times that each level occurred in each context. A context is the
            number whose digits in base L are the parents' values, the first being the most
            significant; it is 0 without parents.
    """

    back_NP: Integers
    counts_NCL: Integers

    def __post_init__(self) -> None:
        """Refuse statistics that no code can have, which would break a coder later.

        Raises:
            InputError: a parent does not lie before its symbol, or a count is out of range.
        """
        places_N1 = np.arange(len(self.back_NP))[:, None]
        if (self.back_NP < 0).any() or (self.back_NP > places_N1).any():
            raise InputError("The tables of the code name a symbol that does not come before.")
        if (self.counts_NCL < 0).any() or (self.counts_NCL > _MOST_COUNTS).any():
            raise InputError(f"The tables of the code have counts outside 0 to {_MOST_COUNTS}.")

    @property
    def levels(self) -> int:
        return self.counts_NCL.shape[2]

    @property
    def count(self) -> int:
        """The number of symbols N in a code."""
        return self.counts_NCL.shape[0]

    def contexts(self, symbols_TN: Integers) -> Integers:
        """The context of every symbol of T codes, [T, N]."""
        found_TN = np.zeros_like(symbols_TN)
        for back_N in self.back_NP.T:
            values_TN = np.where(back_N > 0, symbols_TN[:, np.arange(self.count) - back_N], 0)
            found_TN = found_TN * self.levels + values_TN
        return found_TN


def empty(count: int, levels: int) -> Tables:
    """Tables without any counts, for which all levels are equally likely."""
    parents = max_parents(levels)
    return Tables(
        np.zeros((count, parents), np.int64),
        np.zeros((count, levels**parents, levels), np.int64),
    )


def max_parents(levels: int) -> int:
    """The largest P that makes at most 16 contexts: 4 for two levels, 0 for more than 16."""
    parents = 0
    while levels ** (parents + 1) <= _MAX_CONTEXTS:
        parents += 1
    return parents


def fit(symbols_SN: Integers, levels: int) -> Tables:
    """Choose the parents and count the levels over the codes of S images.

    Args:
        symbols_SN: integers 0..levels−1.
        levels: the size L of the alphabet.
    """
    samples, count = symbols_SN.shape
    tables = empty(count, levels)
    most = max_parents(levels)
    if samples and most:
        symbols_NS = np.ascontiguousarray(symbols_SN.T)
        for place, candidates_K in enumerate(_candidates(symbols_NS, levels)):
            chosen = _choose_parents(symbols_NS, place, candidates_K, levels, most)
            tables.back_NP[place, most - len(chosen) :] = [place - parent for parent in chosen]
    contexts_SN = tables.contexts(symbols_SN)
    np.add.at(tables.counts_NCL, (np.arange(count), contexts_SN, symbols_SN), 1)
    return tables


def frequencies(counts_xL: Integers) -> Integers:
    """Integers of at least 1 in proportion to the counts, which sum to 2^PRECISION, [..., L].

    One half is added to every count (Krichevsky and Trofimov, 1981), and 2^-10 of the probability
    is shared evenly.
    """
    levels = counts_xL.shape[-1]
    least = max(1, _EVEN // levels)
    doubled_xL = np.cumsum(2 * counts_xL + 1, axis=-1)
    edges_xL = doubled_xL * ((1 << PRECISION) - least * levels) // doubled_xL[..., -1:]
    return np.diff(edges_xL, axis=-1, prepend=0) + least


def _choose_parents(
    symbols_NS: Integers, place: int, candidates_K: Integers, levels: int, most: int
) -> list[int]:
    samples = symbols_NS.shape[1]
    chosen: list[int] = []
    context_S = np.zeros(samples, np.int64)
    entropy = float(_conditional_entropies(context_S[None], symbols_NS[place], 1, levels)[0])
    while len(chosen) < most and len(candidates_K):
        contexts = levels ** (len(chosen) + 1)
        contexts_KS = context_S * levels + symbols_NS[candidates_K]
        entropies_K = _conditional_entropies(contexts_KS, symbols_NS[place], contexts, levels)
        best = int(entropies_K.argmin())
        new_counts = (contexts - contexts // levels) * (levels - 1)
        bits = new_counts * np.log2(samples) / 2 + np.log2(len(candidates_K))
        if (entropy - entropies_K[best]) * samples <= bits:
            break
        entropy = float(entropies_K[best])
        chosen.append(int(candidates_K[best]))
        context_S = contexts_KS[best]
        candidates_K = np.delete(candidates_K, best)
    return chosen


def _candidates(symbols_NS: Integers, levels: int) -> Iterator[Integers]:
    """The earlier places that, each alone, tell the most about a symbol, for each place in turn."""
    count = len(symbols_NS)
    block = max(1, 256 // levels**2)  # places at a time, to bound memory
    is_level_LNS = np.stack([symbols_NS == level for level in range(levels)]).astype(np.float32)
    for start in range(0, count, block):
        stop = min(start + block, count)
        first = max(0, start - _REACH)
        # Counts of pairs as products of indicators: exact in float32 up to 2^24 samples.
        joint_LLBK = np.einsum(
            "abs,cks->acbk",
            is_level_LNS[:, start:stop],
            is_level_LNS[:, first:stop],
            optimize=True,
        ).astype(np.float64)
        # The mutual information up to terms that do not depend on the candidate.
        told_BK = _plogp(joint_LLBK).sum((0, 1)) - _plogp(joint_LLBK.sum(0)).sum(0)
        for place in range(start, stop):
            before_K = told_BK[place - start, : place - first]
            yield first + np.argsort(-before_K, kind="stable")[:_CANDIDATES]


def _conditional_entropies(
    contexts_KS: Integers, own_S: Integers, contexts: int, levels: int
) -> npt.NDArray[np.float64]:
    """The entropy of a symbol given each of K candidate contexts, in bits, [K]."""
    candidates, samples = contexts_KS.shape
    cells_KS = (np.arange(candidates)[:, None] * contexts + contexts_KS) * levels + own_S
    counts_KCL = np.bincount(cells_KS.ravel(), minlength=candidates * contexts * levels).reshape(
        candidates, contexts, levels
    )
    inner_K = _plogp(counts_KCL).sum((1, 2))
    return (_plogp(counts_KCL.sum(2)).sum(1) - inner_K) / samples


def _plogp(counts: npt.NDArray[np.float64] | Integers) -> npt.NDArray[np.float64]:
    return np.asarray(counts * np.log2(np.maximum(counts, 1)), np.float64)
