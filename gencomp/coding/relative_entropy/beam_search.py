"""Relative entropy coding of blocks of Gaussian latents by a beam search over their pieces (iREC).

    ( target N(m, s²) ) ──plan──▶ ( schedule, K ) ──search──▶ ( indices ) ──decode──▶ ( x )

The search keeps the B partial sums b_k with the largest weights q(b_k)/p(b_k). In each step every
beam has n candidates of its own for the next piece; the B best of the n·B new sums are kept, and in
the end the best. For the log weight c·b + e·b² and a candidate a of a beam with signs σ,

    weight(b + σa)  =  a · [σ (c + 2 e b)]  +  a² · e  +  [c · b + e · b²],

which is a product of matrices, because all beams of all blocks have the same rows a. Scores are
float32: they decide what is chosen, and the receiver need not know why. The value is the
receiver's: sums of float64 in the order of the pieces, the same everywhere to the last bit.

Blocks are worked on in chunks, so that memory is bounded whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy import auxiliary, schedules
from gencomp.coding.relative_entropy.auxiliary import Floats
from gencomp.coding.relative_entropy.candidates import (
    Rows,
    Words,
    first_row,
    grouped,
    hadamard,
    longer,
    pattern_signs,
    patterns_of,
    sign_bytes,
    signs_of_bytes,
    ungrouped,
    values,
    values_float32,
    width_of,
)
from gencomp.coding.relative_entropy.codes import (
    MAX_CANDIDATES,
    MAX_PIECES,
    BlockCode,
    Key,
    Settings,
)
from gencomp.coding.tables import Integers
from gencomp.errors import InputError

Singles = npt.NDArray[np.float32]

_CHUNK_SCORES = 1 << 18  # scores that are computed at once: 1 MB, which a processor's cache holds
_VALUES_AT_ONCE = 1 << 20  # coefficients of latents and steps, or values
_NO_PIECES = np.zeros(0, np.int64)


class Plan(NamedTuple):
    """How a block is cut into pieces.

    Attributes:
        schedule: the number of its schedule.
        pieces: the number K of pieces.
    """

    schedule: int
    pieces: int


def plan(blocks: Sequence[Gaussian], settings: Settings) -> list[Plan]:
    """The number of pieces of each block, and its schedule; a block of few nats has no pieces."""
    settings.check()
    for number, block in enumerate(blocks):
        _require_target(number, block)
    pieces = [settings.pieces(auxiliary.kl(*block)) for block in blocks]
    coded = [number for number, count in enumerate(pieces) if count]
    best = schedules.best([blocks[one] for one in coded], [pieces[one] for one in coded])
    chosen = dict(zip(coded, best, strict=True))
    return [Plan(chosen.get(number, 0), count) for number, count in enumerate(pieces)]


def encode(blocks: Sequence[Gaussian], key: Key, settings: Settings) -> list[BlockCode]:
    """Code blocks of standardised latents, whose prior is N(0, 1).

    ( targets ) ──▶ ( codes )

    Args:
        blocks: the targets of the blocks of a layer.
        key: the key of the layer.
        settings: how to search.
    """
    return search(blocks, plan(blocks, settings), key, settings.candidates, settings.beams)


def decode(codes: Sequence[BlockCode], sizes: Sequence[int], key: Key) -> list[Floats]:
    """The values of coded blocks, float64 and the same on every machine.

    ( codes ) ──▶ ( values )

    Args:
        codes: the codes of the blocks of a layer.
        sizes: the number D of latents of each block.
        key: the key of the layer.

    Raises:
        InputError: a code is none that `encode` writes for a block.
    """
    found = [np.zeros(size) for size in sizes]
    kinds = []
    for code, size in zip(codes, sizes, strict=True):
        _require_code(code)
        kinds.append(_kind(code.candidates, size))
    rows, pieces = Rows(key), [len(code.indices) for code in codes]
    paths = rows.empty_paths(len(codes))
    for kind, chunk in _chunks(kinds, pieces, lambda kind, most: _VALUES_AT_ONCE // kind.width):
        x_CW = _sums([codes[block] for block in chunk], paths[chunk], rows, kind)
        for block, x_W in zip(chunk, ungrouped(x_CW, kind.patterns), strict=True):
            found[block] = x_W[: sizes[block]].copy()
    return found


def search(
    blocks: Sequence[Gaussian],
    plans: Sequence[Plan],
    key: Key,
    candidates: int,
    beams: int,
) -> list[BlockCode]:
    """Code blocks by the plans that are given for them; see `encode`.

    Args:
        blocks: the targets of the blocks of a layer.
        plans: the schedule and the number of pieces of each of them.
        key: the key of the layer.
        candidates: the number n of candidates of a piece, 2..65536.
        beams: the number B of beams.

    Raises:
        InputError: a target is no normal distribution, or needs too many pieces.
    """
    for number, (block, own) in enumerate(zip(blocks, plans, strict=True)):
        _require_target(number, block)
        _require_plan(number, own)
    codes = [BlockCode(0, candidates, _NO_PIECES)] * len(blocks)
    rows, pieces = Rows(key), [own.pieces for own in plans]
    paths = rows.empty_paths(len(blocks))
    kinds = [_kind(candidates, len(block.mean_D)) for block in blocks]
    pool, last = None, None

    def at_once(kind: _Kind, most: int) -> int:
        scores = beams * kind.rows * max(1, kind.patterns // 2)
        return min(_CHUNK_SCORES // scores, _VALUES_AT_ONCE // (most * kind.width))

    for kind, chunk in _chunks(kinds, pieces, at_once):
        if pool is None or kind != last:
            pool, last = _pool(rows, kind, pieces[chunk[0]]), kind
        chosen = [blocks[block] for block in chunk], [plans[block] for block in chunk]
        found = _search_chunk(*chosen, paths[chunk], pool, kind, beams)
        for number, indices in zip(chunk, found, strict=True):
            codes[number] = BlockCode(plans[number].schedule, candidates, indices)
    return codes


class _Kind(NamedTuple):
    """What blocks must share to be worked on together.

    Attributes:
        width: the length W of a row.
        patterns: the number P of candidates that share a row.
        rows: the number R of rows of a step; R·P is n, or a little less.
    """

    width: int
    patterns: int
    rows: int

    @property
    def groups(self) -> int:
        return max(1, self.patterns // 2)


class _Pool(NamedTuple):
    """The rows of all steps of a kind of blocks, and their squares."""

    rows_NW: Singles
    squares_NW: Singles


def _kind(candidates: int, dimensions: int) -> _Kind:
    patterns = patterns_of(candidates, dimensions)
    return _Kind(width_of(dimensions), patterns, candidates // patterns)


def _chunks(
    kinds: Sequence[_Kind], pieces: Sequence[int], at_once: Callable[[_Kind, int], int]
) -> Iterator[tuple[_Kind, list[int]]]:
    """The numbers of blocks that are worked on together, those with the most pieces first.

    Args:
        kinds: the kind of each block.
        pieces: the number of pieces of each block; blocks without pieces are left out.
        at_once: how many blocks of a kind and of so many pieces fit.
    """
    order = sorted(range(len(kinds)), key=lambda block: (kinds[block], -pieces[block], block))
    todo = [block for block in order if pieces[block]]
    while todo:
        kind = kinds[todo[0]]
        most = max(1, at_once(kind, pieces[todo[0]]))
        same = [block for block in todo[:most] if kinds[block] == kind]  # the first ones
        yield kind, same
        todo = todo[len(same) :]


def _search_chunk(
    blocks: Sequence[Gaussian],
    plans: Sequence[Plan],
    paths_C: Words,
    pool: _Pool,
    kind: _Kind,
    beams: int,
) -> list[Integers]:
    """The indices of blocks of one kind, of which the first have the most pieces."""
    width, patterns, count = kind
    pieces_C = np.array([own.pieces for own in plans])
    weights = _weights(blocks, plans, kind)
    b_NW = np.zeros((len(blocks), width), np.float32)  # N = C · beams
    paths_N, now = paths_C, 1
    chosen: list[tuple[Integers, Integers]] = []
    for step in range(int(pieces_C[0])):
        active = int(np.count_nonzero(pieces_C > step))
        b_NW, paths_N = b_NW[: active * now], paths_N[: active * now]
        first = first_row(step, count)
        own_RW = pool.rows_NW[first : first + count]
        root_C, linear_CW, square_CW = (x_KC[step, :active] for x_KC in weights[:3])
        # The weights of the sums at the new time, and their slopes.
        b_CBW = b_NW.reshape(active, now, width)
        bend_CBW = square_CW[:, None] * b_CBW
        slope_CBW = bend_CBW + linear_CW[:, None]
        weight_CB = np.einsum("cbw,cbw->cb", b_CBW, slope_CBW)
        slope_CBW += bend_CBW
        signs_NBS = signs_of_bytes().take(sign_bytes(paths_N, width), axis=0)
        signs_CBW = signs_NBS.reshape(active, now, width)
        signs_CBW *= root_C[:, None, None]
        slope_CBW *= signs_CBW
        grouped_GQR = own_RW.reshape(count, kind.groups, -1).transpose(1, 2, 0)
        moved_GNR = products(slope_CBW.reshape(-1, width), grouped_GQR)
        squares_RW = pool.squares_NW[first : first + count]
        of_rows_CR = weights.of_squares_KCW[step, :active] @ squares_RW.T
        rest_CBR = weight_CB[..., None] + of_rows_CR[:, None]
        place_CB, pattern_CB = _choose(moved_GNR, rest_CBR, patterns, beams)
        kept = place_CB.shape[1]
        beam_CB, row_CB = np.divmod(place_CB, count)
        index_CB = row_CB * patterns + pattern_CB
        chosen.append((beam_CB, index_CB))
        parent_N = (np.arange(active)[:, None] * now + beam_CB).ravel()
        step_NW = signs_CBW.reshape(-1, width).take(parent_N, axis=0)
        step_NW *= own_RW.take(row_CB.ravel(), axis=0)
        if patterns > 1:
            step_NGQ = step_NW.reshape(len(step_NW), kind.groups, -1)
            step_NGQ *= pattern_signs(pattern_CB.ravel(), patterns)[..., None]
        step_NW += b_NW.take(parent_N, axis=0)
        b_NW, now = step_NW, kept
        paths_N = longer(paths_N.take(parent_N), index_CB.ravel())
    return _traced(chosen, pieces_C)


def products(slopes_NW: Singles, grouped_GQR: Singles) -> Singles:
    """The products of slopes with the candidates of positive patterns, [G, N, R].

    Those of the negative patterns are their opposites.

    Args:
        slopes_NW: the slopes of the weights at N sums.
        grouped_GQR: the rows, in G groups of Q = W/G coordinates.
    """
    groups, group, _ = grouped_GQR.shape
    slopes_GNQ = slopes_NW.reshape(-1, groups, group).swapaxes(0, 1)
    parts_GNR = np.matmul(slopes_GNQ, grouped_GQR)
    if groups == 1:
        return parts_GNR
    return np.matmul(hadamard(groups), parts_GNR.reshape(groups, -1)).reshape(parts_GNR.shape)


def _choose(
    moved_GNR: Singles, rest_CBR: Singles, patterns: int, beams: int
) -> tuple[Integers, Integers]:
    """The best candidates of each block, best first: places among beams × rows, and patterns."""
    blocks = len(rest_CBR)
    rest_CS = rest_CBR.reshape(blocks, -1)
    if patterns == 1:
        place_CB = best_places(moved_GNR.reshape(rest_CS.shape) + rest_CS, beams)
        return place_CB, np.zeros_like(place_CB)
    # The best candidates lie in the rows whose best candidates are the best.
    top_NR = np.maximum(moved_GNR.max(axis=0), -moved_GNR.min(axis=0))
    place_CB = best_places(top_NR.reshape(rest_CS.shape) + rest_CS, beams)
    of_block = np.arange(blocks)[:, None]
    moved_GCB = moved_GNR.reshape(-1, *rest_CS.shape)[:, of_block, place_CB]
    both_CBP = np.stack([moved_GCB, -moved_GCB], axis=-1).transpose(1, 2, 0, 3)
    scores_CBP = both_CBP.reshape(*place_CB.shape, -1) + rest_CS[of_block, place_CB][..., None]
    best_CB, pattern_CB = np.divmod(best_places(scores_CBP.reshape(blocks, -1), beams), patterns)
    return place_CB[of_block, best_CB], pattern_CB


def best_places(scores_CS: Singles, count: int) -> Integers:
    """The places of the largest scores of each row, by score and then by place, [C, count].

    All places, if there are fewer.
    """
    rows, places = scores_CS.shape
    if count < places:
        place_CB = np.argpartition(scores_CS, places - count, axis=1)[:, places - count :]
        place_CB.sort(axis=1)
    else:
        place_CB = np.broadcast_to(np.arange(places), scores_CS.shape)
    of_row = np.arange(rows)[:, None]
    return place_CB[of_row, (-scores_CS[of_row, place_CB]).argsort(axis=1, kind="stable")]


class _Weights(NamedTuple):
    """What the log weights of the blocks of a chunk need, step by step.

    Attributes:
        roots_KC: √v of the pieces.
        linear_KCW, square_KCW: the coefficients of the weights at the ends of the pieces.
        of_squares_KCW: the square coefficients times v, by which squares of normal values count.
    """

    roots_KC: Singles
    linear_KCW: Singles
    square_KCW: Singles
    of_squares_KCW: Singles


def _weights(blocks: Sequence[Gaussian], plans: Sequence[Plan], kind: _Kind) -> _Weights:
    mean_CW, scale_CW = (
        np.concatenate([grouped(x_D[None], kind.width, kind.patterns, fill) for x_D in each])
        for each, fill in zip(zip(*blocks, strict=True), (0.0, 1.0), strict=True)
    )
    times_CK = np.ones((len(plans), plans[0].pieces))
    for own, times_K in zip(plans, times_CK, strict=True):
        times_K[: own.pieces] = schedules.times(*own)
    parts_KC = np.diff(times_CK, axis=1, prepend=0).T
    weight = auxiliary.log_weight(mean_CW, scale_CW, times_CK.T[..., None])
    return _Weights(
        np.sqrt(parts_KC).astype(np.float32),
        weight.linear.astype(np.float32),
        weight.square.astype(np.float32),
        (weight.square * parts_KC[..., None]).astype(np.float32),
    )


def _pool(rows: Rows, kind: _Kind, steps: int) -> _Pool:
    count = max(first_row(step, kind.rows) for step in range(steps)) + kind.rows
    rows_NW = values_float32(rows.places(kind.width, 0, count))
    return _Pool(rows_NW, rows_NW**2)


def _traced(chosen: Sequence[tuple[Integers, Integers]], pieces_C: Integers) -> list[Integers]:
    """The indices of the best beam of each block, from the parents and indices of each step."""
    blocks = len(pieces_C)
    found_CK = np.zeros((blocks, len(chosen)), np.int64)
    beam_C = np.zeros(blocks, np.int64)  # beams stand in the order of their scores
    for step in range(len(chosen) - 1, -1, -1):
        beams, indices = chosen[step]
        active = np.arange(len(beams))
        own_C = beam_C[: len(beams)]
        found_CK[: len(beams), step] = indices[active, own_C]
        beam_C[: len(beams)] = beams[active, own_C]
    return [found_K[:count].copy() for found_K, count in zip(found_CK, pieces_C, strict=True)]


def _sums(codes: Sequence[BlockCode], paths_C: Words, rows: Rows, kind: _Kind) -> Floats:
    """The sums of the pieces of blocks of one kind, of which the first have the most, [C, W]."""
    x_CW = np.zeros((len(codes), kind.width))
    times = [schedules.times(code.schedule, len(code.indices)) for code in codes]
    roots = [np.sqrt(np.diff(times_K, prepend=0)) for times_K in times]
    for step in range(len(codes[0].indices)):
        own = [code.indices[step] for code in codes if len(code.indices) > step]
        index_A, active = np.array(own, np.int64), len(own)
        row_A, pattern_A = np.divmod(index_A, kind.patterns)
        first = first_row(step, kind.rows)
        places = [rows.places(kind.width, first + row, 1) for row in row_A.tolist()]
        step_AW = values(np.concatenate(places))
        signs_A = signs_of_bytes().take(sign_bytes(paths_C[:active], kind.width), axis=0)
        step_AW *= signs_A.reshape(active, kind.width)
        step_AGQ = step_AW.reshape(active, kind.groups, -1)
        step_AGQ *= pattern_signs(pattern_A, kind.patterns)[..., None]
        step_AW *= np.array([root_K[step] for root_K in roots[:active]])[:, None]
        x_CW[:active] += step_AW
        paths_C = longer(paths_C[:active], index_A)
    return x_CW


def _require_target(number: int, block: Gaussian) -> None:
    mean_D, scale_D = block
    if not (np.isfinite(mean_D).all() and np.isfinite(scale_D).all() and (scale_D > 0).all()):
        raise InputError(
            f"The target of block {number} has a mean that is no number, or a scale that is none"
            " above 0."
        )


def _require_plan(number: int, own: Plan) -> None:
    if own.pieces > MAX_PIECES:
        raise InputError(
            f"Block {number} needs more than {MAX_PIECES} pieces: its posterior is too far from its"
            " prior."
        )


def _require_code(code: BlockCode) -> None:
    if not (2 <= code.candidates <= MAX_CANDIDATES and 0 <= code.schedule < schedules.COUNT):
        raise InputError("A block has a schedule or a number of candidates that does not exist.")
    indices = code.indices
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < code.candidates:
        raise InputError("A block has an index that is none of its candidates.")
    if len(indices) > MAX_PIECES:
        raise InputError(f"A block has {len(indices)} pieces, allowed are {MAX_PIECES}.")
