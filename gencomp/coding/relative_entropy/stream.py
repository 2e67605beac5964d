"""The range coder of all that is sent of latents: blocks, pieces, schedules and indices.

    ( blocks of each layer ) ──▶ ( candidates ) ──▶ ( pieces ) ──▶ ( schedules ) ──▶ ( indices )

Indices are equally likely. The other numbers have no fixed law, so each is coded by counts that
start from a rough guess and adapt to the blocks before it. Blocks are small, and so must be the
bits beside their indices: about 4 for the number of pieces and 1 or 2 for the schedule. Pass all
layers of an image at once, so that the counts adapt over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from gencomp.coding.coders import Coder, conditioned, in_turn, stepwise
from gencomp.coding.range_coder import Decoder, Encoder, damaged
from gencomp.coding.relative_entropy import schedules
from gencomp.coding.relative_entropy.blocks import least
from gencomp.coding.relative_entropy.codes import (
    EFFORTS,
    MAX_CANDIDATES,
    MAX_PIECES,
    BlockCode,
)
from gencomp.coding.tables import Integers, frequencies
from gencomp.errors import InputError

A = TypeVar("A")
B = TypeVar("B")

# The numbers of candidates of the efforts, which are cheaper to send than others.
USUAL_CANDIDATES = tuple(settings.candidates for settings in EFFORTS.values())

_TYPICAL_BITS = 155  # of the indices of a block: about 100 nats and 7 % more
_MOST_BITS = 17  # of the number of blocks of a layer, and of pieces beyond the usual
# A number that was seen makes its neighbours more likely too.
_KERNEL = np.array([4, 8, 16, 32, 64, 32, 16, 8, 4])
_ALONE = np.array([128])
_GUESS = 256  # about the weight of the first guess of the number of pieces


def coder(dimensions: Sequence[int]) -> Coder[list[list[BlockCode]]]:
    """The coder of the blocks of all layers of an image.

        ( blocks of layer 1 … L ) ──▶ ( codes of all of them )

    Args:
        dimensions: the number of latents of each layer. It has no block, or at most one for each
            latent and at least one for each 16,384.

    Raises:
        InputError: when it encodes, blocks of an image have different numbers of candidates, or a
            number is out of range.
    """

    def apart(layers: list[list[BlockCode]]) -> tuple[Integers, list[BlockCode]]:
        counts_L = np.array([len(layer) for layer in layers], np.int64)
        if len(layers) != len(dimensions) or not _fit(counts_L, dimensions):
            raise InputError(
                f"Layers of {list(dimensions)} latents have no {counts_L.tolist()} blocks."
            )
        return counts_L, [code for layer in layers for code in layer]

    def nested(value: tuple[Integers, list[BlockCode]]) -> list[list[BlockCode]]:
        ends = [0, *np.cumsum(value[0]).tolist()]
        return [value[1][start:stop] for start, stop in pairwise(ends)]

    def blocks(counts_L: Integers) -> Coder[list[BlockCode]]:
        if not _fit(counts_L, dimensions):
            raise damaged()
        return _blocks(int(counts_L.sum()))

    return _mapped(conditioned(_numbers(len(dimensions)), blocks), apart, nested)


def _fit(counts_L: Integers, dimensions: Sequence[int]) -> bool:
    """Whether layers of so many latents may have so many blocks.

    Blocks that are larger than any that a sender cuts would let a short stream ask for much work.
    """
    return all(
        blocks == 0 or least(latents) <= blocks <= latents
        for blocks, latents in zip(counts_L.tolist(), dimensions, strict=True)
    )


def _blocks(count: int) -> Coder[list[BlockCode]]:
    """The codes of so many blocks, which have one number of candidates.

    ( candidates ) ──▶ ( pieces ) ──▶ ( schedules ) ──▶ ( indices )
    """
    if not count:
        return _mapped(in_turn(), lambda codes: (), lambda nothing: [])

    def apart(codes: list[BlockCode]) -> tuple[Any, ...]:
        candidates = codes[0].candidates
        if any(code.candidates != candidates for code in codes):
            raise InputError("The blocks of an image must have the same number of candidates.")
        pieces_B = np.array([len(code.indices) for code in codes], np.int64)
        ids = [code.schedule for code in codes if len(code.indices)]
        indices = [code.indices for code in codes]
        return candidates, (pieces_B, (np.array(ids, np.int64), np.concatenate(indices)))

    def joined(value: tuple[Any, ...]) -> list[BlockCode]:
        candidates, (pieces_B, (ids, indices)) = value
        schedules_B = np.zeros(len(pieces_B), np.int64)
        schedules_B[pieces_B > 0] = ids
        parts = np.split(indices, np.cumsum(pieces_B)[:-1])
        return [
            BlockCode(int(schedule), candidates, part)
            for schedule, part in zip(schedules_B, parts, strict=True)
        ]

    def indices(pieces_B: Integers, candidates: int) -> Coder[Any]:
        known = np.ones(schedules.COUNT, np.int64)
        ids = _adaptive(int(np.count_nonzero(pieces_B)), known, _ALONE)
        return in_turn(ids, _uniform(int(pieces_B.sum()), candidates))

    def pieces(candidates: int) -> Coder[Any]:
        return conditioned(
            _pieces(count, candidates), lambda pieces_B: indices(pieces_B, candidates)
        )

    return _mapped(conditioned(_candidates(), pieces), apart, joined)


def _candidates() -> Coder[int]:
    """One of the usual numbers of candidates, or any from 2 to 65,536 in 18 bits."""
    other = len(USUAL_CANDIDATES)

    def encode(encoder: Encoder, candidates: int) -> None:
        usual = candidates in USUAL_CANDIDATES
        choice = USUAL_CANDIDATES.index(candidates) if usual else other
        encoder.put_uniform(np.array([choice]), other + 1)
        if not usual:
            encoder.put_uniform(np.array([candidates - 1]), MAX_CANDIDATES)

    def decode(decoder: Decoder) -> int:
        choice = int(decoder.take_uniform(1, other + 1)[0])
        if choice < other:
            return USUAL_CANDIDATES[choice]
        candidates = 1 + int(decoder.take_uniform(1, MAX_CANDIDATES)[0])
        if candidates < 2:
            raise damaged()
        return candidates

    return Coder(encode, decode)


def _pieces(count: int, candidates: int) -> Coder[Integers]:
    """The numbers of pieces of so many blocks, which are likely to have about 100 nats each."""
    # log2 of the number of candidates in eighths, rounded up, from integers.
    eighths = (candidates**8 - 1).bit_length()
    typical = max(2, 8 * _TYPICAL_BITS // eighths)
    numbers = np.arange(4 * typical)
    guess = 1 + _GUESS * typical // (typical**2 + 9 * (numbers - typical) ** 2)
    return _mapped(
        conditioned(
            _adaptive(count, np.append(guess, 1), _KERNEL),
            lambda low_B: _numbers(int(np.count_nonzero(low_B == len(numbers)))),
        ),
        lambda pieces_B: (
            np.minimum(pieces_B, len(numbers)),
            pieces_B[pieces_B >= len(numbers)] - len(numbers),
        ),
        lambda value: _with_rest(value[0], value[1], len(numbers)),
    )


def _with_rest(low_B: Integers, rest: Integers, most: int) -> Integers:
    found_B = low_B.copy()
    found_B[low_B == most] += rest
    if (found_B > MAX_PIECES).any():
        raise damaged()
    return found_B


def _numbers(count: int) -> Coder[Integers]:
    """Numbers below 2^17 of any size: the number of their bits adapts, and the bits do not."""
    lengths = _adaptive(count, np.ones(_MOST_BITS + 1, np.int64), _KERNEL)

    def encode(encoder: Encoder, numbers_N: Integers) -> None:
        if numbers_N.size and int(numbers_N.max()) >> _MOST_BITS:
            raise InputError(f"A layer has at most {(1 << _MOST_BITS) - 1} blocks.")
        bits_N = np.frexp(numbers_N.astype(np.float64))[1].astype(np.int64)  # exact
        lengths.encode(encoder, bits_N)
        for bits in range(2, _MOST_BITS + 1):
            low = numbers_N[bits_N == bits] - (1 << bits - 1)
            encoder.put_uniform(low, 1 << bits - 1)

    def decode(decoder: Decoder) -> Integers:
        bits_N = lengths.decode(decoder)
        numbers_N = np.minimum(bits_N, 1)
        for bits in range(2, _MOST_BITS + 1):
            chosen_N = bits_N == bits
            low = decoder.take_uniform(int(np.count_nonzero(chosen_N)), 1 << bits - 1)
            numbers_N[chosen_N] = low + (1 << bits - 1)
        return numbers_N

    return Coder(encode, decode)


def _uniform(count: int, levels: int) -> Coder[Integers]:
    return Coder(
        lambda encoder, symbols_N: encoder.put_uniform(symbols_N, levels),
        lambda decoder: decoder.take_uniform(count, levels),
    )


def _adaptive(count: int, guess_L: Integers, kernel: Integers) -> Coder[Integers]:
    """Symbols whose counts start from a guess; each symbol counts for its neighbours too.

        ( x_1 ) ──▶ ( x_2 | x_1 ) ──▶ …

    Args:
        count: the number of symbols.
        guess_L: the counts of the L levels before the first symbol.
        kernel: what a symbol adds to the counts around it; its middle is for itself.
    """
    ends = list(_ends(count))
    reach = len(kernel) // 2

    def rows(state: tuple[int, Integers]) -> Integers:
        step, counts_L = state
        return np.repeat(frequencies(counts_L[None]), ends[step + 1] - ends[step], axis=0)

    def after(state: tuple[int, Integers], symbols_B: Integers) -> tuple[int, Integers]:
        step, counts_L = state
        seen_L = np.bincount(symbols_B, minlength=len(counts_L))
        spread_L = np.convolve(seen_L, kernel)[reach : reach + len(counts_L)]
        return step + 1, counts_L + spread_L

    steps = stepwise(len(ends) - 1, (0, guess_L), rows, after)
    return _mapped(
        steps,
        lambda symbols_N: np.split(symbols_N, ends[1:-1]) if count else [],
        lambda parts: np.concatenate([*parts, np.zeros(0, np.int64)]),
    )


def _ends(count: int) -> Iterator[int]:
    """The ends of the steps of so many symbols, of one and a sixteenth of those before it."""
    end = 0
    yield end
    while end < count:
        end = min(count, end + 1 + end // 16)
        yield end


def _mapped(coder: Coder[A], to: Callable[[B], A], back: Callable[[A], B]) -> Coder[B]:
    """A coder of values that are another coder's values in another form."""
    return Coder(
        lambda encoder, value: coder.encode(encoder, to(value)),
        lambda decoder: back(coder.decode(decoder)),
    )
