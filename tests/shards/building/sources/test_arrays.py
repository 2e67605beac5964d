"""Items known by number alone, and pickles that are damaged at any place."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.building.sources import pickles
from shards.building.sources.arrays import Rows, planar, planar_side
from shards.errors import ShardError


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 12))
def test_blocks_hold_every_row_once_and_in_order(counts: list[int], size: int) -> None:
    rows = Rows("train", tuple((f"file {i}", count) for i, count in enumerate(counts)))
    assert len(rows) == sum(counts)
    found = []
    for start in range(0, len(rows), size):
        for piece in rows.block(start, min(start + size, len(rows))):
            assert piece.split == "train" and piece.start < piece.stop
            found += [
                (piece.number + row - piece.start, piece.file, row)
                for row in range(piece.start, piece.stop)
            ]
    every = [(f"file {i}", row) for i, count in enumerate(counts) for row in range(count)]
    assert found == [(number, *place) for number, place in enumerate(every)]


@given(st.integers(1, 9))
def test_planes_become_pixels(side: int) -> None:
    image = np.random.default_rng(side).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    rows = np.stack([np.concatenate([x[..., c].ravel() for c in range(3)]) for x in image])
    assert planar_side(rows.shape[1]) == side
    assert np.array_equal(planar(rows), image)


_PICKLE = pickle.dumps({"data": np.zeros((2, 12), np.uint8), "labels": [1, 2], "more": "text"}, 3)


@given(
    st.integers(0, len(_PICKLE) - 1),
    # Not 'r': its four bytes of an address make pickle itself fill as many gigabytes.
    st.binary(min_size=1, max_size=4).filter(lambda data: b"r" not in data),
    st.booleans(),
)
def test_a_damaged_pickle_gives_a_sentence_or_data(at: int, change: bytes, cut: bool) -> None:
    data = _PICKLE[:at] + change + (b"" if cut else _PICKLE[at + len(change) :])
    try:
        content = pickles.load(data, "the file")
    except ShardError as error:
        assert str(error).startswith("the file ")
    else:
        assert isinstance(content, dict)


def test_only_the_named_array_stays_in_the_file() -> None:
    large = np.arange(2 << 20, dtype=np.uint32).view(np.uint8).reshape(-1, 4096)
    data = pickle.dumps({"data": large, "mean": np.arange(4096.0)}, 3)
    content, stream, start = pickles.load_around(io.BytesIO(data), "data", "it")
    stream.seek(start)
    assert stream.read(large.nbytes) == large.tobytes()
    assert np.array_equal(content["mean"].numpy(), np.arange(4096))


def test_other_large_arrays_are_refused() -> None:
    two = {"data": np.zeros(5 << 20, np.uint8), "more": np.zeros(6 << 20, np.uint8)}
    with pytest.raises(ShardError, match="it is not such a batch: it has other large arrays"):
        pickles.load_around(io.BytesIO(pickle.dumps(two, 3)), "data", "it")
    with pytest.raises(ShardError, match="it has no array 'rows'"):
        pickles.load_around(io.BytesIO(pickle.dumps({"data": [1]}, 3)), "rows", "it")
