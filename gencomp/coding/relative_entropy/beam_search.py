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
    cycle_of,
    first_row,
    grouped,
    hadamard,
    longer,
    pattern_signs,
    patterns_of,
    signs_of,
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
# To draw a row takes as long as to draw so many more values at once.
_WORTH_A_ROW = 5000
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

    def at_once(kind: _Kind, most: int) -> int:
        return _VALUES_AT_ONCE // max(kind.width, most)

    for kind, chunk in _chunks(kinds, pieces, at_once):
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
    of_rows = _of_rows(weights.of_squares_KCW, pool, kind, pieces_C)
    b_NW = np.zeros((len(blocks), width), np.float32)  # N = C · beams
    paths_N, active, now = paths_C, len(blocks), 1
    chosen: list[tuple[Integers, Integers]] = []
    for step, (of_rows_C1R, root_C11, linear_C1W, square_C1W) in enumerate(
        zip(of_rows, weights.roots_KC11, weights.linear_KC1W, weights.square_KC1W, strict=True)
    ):
        if len(of_rows_C1R) < active:
            active = len(of_rows_C1R)
            b_NW, paths_N = b_NW[: active * now], paths_N[: active * now]
        if active < len(blocks):
            root_C11, linear_C1W = root_C11[:active], linear_C1W[:active]
            square_C1W = square_C1W[:active]
        # The weights of the sums at the new time, and their slopes.
        b_CBW = b_NW.reshape(active, now, width)
        bend_CBW = square_C1W * b_CBW
        slope_CBW = bend_CBW + linear_C1W
        weight_CB = np.einsum("cbw,cbw->cb", b_CBW, slope_CBW)
        slope_CBW += bend_CBW
        signs_NW = signs_of(paths_N, width)
        signs_CBW = signs_NW.reshape(active, now, width)
        signs_CBW *= root_C11
        slope_CBW *= signs_CBW
        first = first_row(step, count)
        own_RW = pool.rows_NW[first : first + count]
        grouped_GQR = own_RW.reshape(count, kind.groups, -1).transpose(1, 2, 0)
        moved_GNR = products(slope_CBW.reshape(-1, width), grouped_GQR)
        rest_CBR = weight_CB[..., None] + of_rows_C1R
        place_CB, pattern_CB = _choose(moved_GNR, rest_CBR, patterns, beams)
        parent_N, row_N = np.divmod(place_CB.ravel(), count)
        step_NW = signs_NW.take(parent_N, axis=0)
        step_NW *= own_RW.take(row_N, axis=0)
        index_N = row_N
        if pattern_CB is not None:
            pattern_N = pattern_CB.ravel()
            index_N = row_N * patterns + pattern_N
            step_NGQ = step_NW.reshape(len(step_NW), kind.groups, -1)
            step_NGQ *= pattern_signs(pattern_N, patterns)[..., None]
        step_NW += b_NW.take(parent_N, axis=0)
        b_NW, now = step_NW, place_CB.shape[1]
        paths_N = longer(paths_N.take(parent_N), index_N)
        chosen.append((parent_N, index_N))
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
) -> tuple[Integers, Integers | None]:
    """The best candidates of each block, best first: places in N·R, and patterns if there are."""
    blocks = len(rest_CBR)
    rest_CS = rest_CBR.reshape(blocks, -1)
    if patterns == 1:
        return best_places(moved_GNR.reshape(rest_CS.shape) + rest_CS, beams), None
    # The best candidates lie in the rows whose best candidates are the best.
    top_NR = np.maximum(moved_GNR.max(axis=0), -moved_GNR.min(axis=0))
    place_CB = best_places(top_NR.reshape(rest_CS.shape) + rest_CS, beams)
    moved_GCB = moved_GNR.reshape(len(moved_GNR), -1)[:, place_CB]
    both_CBP = np.stack([moved_GCB, -moved_GCB], axis=-1).transpose(1, 2, 0, 3)
    scores_CBP = both_CBP.reshape(*place_CB.shape, -1) + rest_CS.take(place_CB)[..., None]
    best_CB, pattern_CB = np.divmod(best_places(scores_CBP.reshape(blocks, -1), beams), patterns)
    return place_CB.take(best_CB), pattern_CB


def best_places(scores_CS: Singles, count: int) -> Integers:
    """The places of the largest scores of each row, by score and then by place, [C, count].

    They are counted through all rows, [C·S]. All places, if there are fewer.
    """
    rows, places = scores_CS.shape
    start_C1 = np.arange(0, rows * places, places)[:, None]
    if count < places:
        place_CB = np.argpartition(scores_CS, places - count, axis=1)[:, places - count :]
        place_CB.sort(axis=1)
        place_CB += start_C1
    else:
        place_CB = start_C1 + np.arange(places)
    order_CB = (-scores_CS.take(place_CB)).argsort(axis=1, kind="stable")
    order_CB += np.arange(0, place_CB.size, place_CB.shape[1])[:, None]
    return place_CB.take(order_CB)


class _Weights(NamedTuple):
    """What the log weights of the blocks of a chunk need, step by step.

    Attributes:
        roots_KC11: √v of the pieces.
        linear_KC1W, square_KC1W: the coefficients of the weights at the ends of the pieces.
        of_squares_KCW: the square coefficients times v, by which squares of normal values count.
    """

    roots_KC11: Singles
    linear_KC1W: Singles
    square_KC1W: Singles
    of_squares_KCW: Singles


def _weights(blocks: Sequence[Gaussian], plans: Sequence[Plan], kind: _Kind) -> _Weights:
    mean_CW, scale_CW = (
        np.concatenate([grouped(x_D[None], kind.width, kind.patterns, fill) for x_D in each])
        for each, fill in zip(zip(*blocks, strict=True), (0.0, 1.0), strict=True)
    )
    times_KC = _times(plans)
    parts_KC = _parts(times_KC)
    linear_KCW, square_KCW = auxiliary.coefficients(mean_CW, scale_CW, times_KC[..., None])
    return _Weights(
        np.sqrt(parts_KC).astype(np.float32)[..., None, None],
        linear_KCW.astype(np.float32)[:, :, None],
        square_KCW.astype(np.float32)[:, :, None],
        (square_KCW * parts_KC[..., None]).astype(np.float32),
    )


def _times(plans: Sequence[Plan]) -> Floats:
    """The times of the pieces of blocks, of which the first has the most; 1 after them, [K, C]."""
    times_KC = np.ones((plans[0].pieces, len(plans)))
    for block, own in enumerate(plans):
        times_KC[: own.pieces, block] = schedules.times(*own)
    return times_KC


def _parts(times_KC: Floats) -> Floats:
    """The variances of the pieces that end at the times, [K, C]."""
    parts_KC = times_KC.copy()
    parts_KC[1:] -= times_KC[:-1]
    return parts_KC


def _runs(pieces_C: Integers) -> Iterator[tuple[int, int, int]]:
    """The first step and the end of each run of steps that the same blocks take, and their number.

    Args:
        pieces_C: the numbers of pieces, the largest first.
    """
    first = 0
    for end in np.unique(pieces_C).tolist():
        yield first, end, int(np.count_nonzero(pieces_C >= end))
        first = end


def _of_rows(
    of_squares_KCW: Singles, pool: _Pool, kind: _Kind, pieces_C: Integers
) -> Iterator[Singles]:
    """What the squares of each row add to the weights of the blocks, [C, 1, R], step by step.

    Steps that follow each other without a return to the first rows are one product.
    """
    cycle, rows = cycle_of(kind.rows), kind.rows
    squares_CWR = pool.squares_NW.reshape(-1, rows, kind.width).swapaxes(1, 2)
    for first, end, active in _runs(pieces_C):
        while first < end:
            place = first % cycle
            stop = min(end, first + cycle - place)
            squares_KWR = squares_CWR[place : place + stop - first]
            yield from np.matmul(of_squares_KCW[first:stop, :active], squares_KWR)[:, :, None]
            first = stop


def _pool(rows: Rows, kind: _Kind, steps: int) -> _Pool:
    rows_NW = values_float32(rows.places(kind.width, 0, _rows_of(kind, steps)))
    return _Pool(rows_NW, rows_NW**2)


def _rows_of(kind: _Kind, steps: int) -> int:
    """The number of different rows of so many steps."""
    return min(steps, cycle_of(kind.rows)) * kind.rows


def _traced(chosen: Sequence[tuple[Integers, Integers]], pieces_C: Integers) -> list[Integers]:
    """The indices of the best beam of each block, from the parents and indices of each step.

    Args:
        chosen: for each step, the place among the sums before it that each new sum comes from, and
            its index; the sums of a block follow each other, the best first.
        pieces_C: the numbers of pieces, the largest first.
    """
    found_KC = np.zeros((len(chosen), len(pieces_C)), np.int64)
    place_C = np.zeros(0, np.int64)
    for first, end, active in reversed(list(_runs(pieces_C))):
        beams = len(chosen[end - 1][0]) // active
        place_C = np.append(place_C, np.arange(len(place_C), active) * beams)
        for step in range(end - 1, first - 1, -1):
            parent_N, index_N = chosen[step]
            found_KC[step, :active] = index_N.take(place_C)
            place_C = parent_N.take(place_C)
    return [found_KC[:count, block].copy() for block, count in enumerate(pieces_C.tolist())]


def _sums(codes: Sequence[BlockCode], paths_C: Words, rows: Rows, kind: _Kind) -> Floats:
    """The sums of the pieces of blocks of one kind, of which the first have the most, [C, W]."""
    x_CW = np.zeros((len(codes), kind.width))
    pieces_C = np.array([len(code.indices) for code in codes])
    plans = [Plan(code.schedule, len(code.indices)) for code in codes]
    root_KC = np.sqrt(_parts(_times(plans)))
    index_KC = np.zeros(root_KC.shape, np.int64)
    for block, code in enumerate(codes):
        index_KC[: len(code.indices), block] = code.indices
    first_K1 = np.array([[first_row(step, kind.rows)] for step in range(len(index_KC))])
    row_KC, pattern_KC = np.divmod(index_KC, kind.patterns)
    drawn = _drawer(rows, kind, len(index_KC), int(pieces_C.sum()))
    for first, end, active in _runs(pieces_C):
        at_once = max(1, _VALUES_AT_ONCE // (active * kind.width))
        for start in range(first, end, at_once):
            part = slice(start, min(end, start + at_once)), slice(active)
            paths_KC = _paths(paths_C[:active], index_KC[part])
            step_NW = values(drawn((first_K1[part[0]] + row_KC[part]).ravel()))
            step_NW *= signs_of(paths_KC[:-1].ravel(), kind.width)
            if kind.patterns > 1:
                step_NGQ = step_NW.reshape(len(step_NW), kind.groups, -1)
                step_NGQ *= pattern_signs(pattern_KC[part].ravel(), kind.patterns)[..., None]
            step_NW *= root_KC[part].reshape(-1, 1)
            for step_CW in step_NW.reshape(-1, active, kind.width):
                x_CW[:active] += step_CW  # the order of the pieces is part of the format
            paths_C = paths_KC[-1]
    return x_CW


def _paths(paths_C: Words, index_KC: Integers) -> Words:
    """The names of paths before each index, and after the last one, [K + 1, C]."""
    paths_KC = np.empty((len(index_KC) + 1, len(paths_C)), np.uint64)
    paths_KC[0] = paths_C
    for step, index_C in enumerate(index_KC):
        paths_KC[step + 1] = longer(paths_KC[step], index_C)
    return paths_KC


def _drawer(
    rows: Rows, kind: _Kind, steps: int, wanted: int
) -> Callable[[Integers], npt.NDArray[np.uint16]]:
    """A function that gives the places of the values of rows, [N, W], from their numbers, [N].

    All rows of the steps are drawn at once if they are few enough, and if that takes less time than
    to draw those that are wanted one by one.
    """
    # Indices that no search finds, because n is no multiple of P, lie in the row after the last.
    count = _rows_of(kind, steps) + 1
    if count * kind.width <= min(_VALUES_AT_ONCE, wanted * (kind.width + _WORTH_A_ROW)):
        all_RW = rows.places(kind.width, 0, count)
        return lambda row_N: all_RW.take(row_N, axis=0)
    return lambda row_N: np.concatenate([rows.places(kind.width, row, 1) for row in row_N.tolist()])


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
