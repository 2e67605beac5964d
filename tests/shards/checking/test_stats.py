"""`stats` agrees with numpy to the last digit, whatever the processes."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.building.build import build
from shards.checking.stats import PERCENTILES, _counted, _moments, _percentiles, stats
from shards.errors import ShardError
from shards.reading.reader import ShardSet
from tests.shards.handmade import make_set, noise, sample
from tests.shards.object_server import LOCAL, FolderServer


@pytest.fixture
def scenes(tmp_path: Path) -> ShardSet:
    """Images of two sizes with maps of 8 and 16 bits, two labels and none; another split."""
    rng = np.random.default_rng(7)
    train = []
    for i in range(11):
        height, width = (6, 9) if i % 3 else (4, 5)
        train.append(
            sample(
                f"k{i}",
                noise(i, height, width),
                label=None if i == 4 else i % 2,
                maps={
                    "label": rng.integers(0, 5, (height, width)).astype(np.uint8),
                    "instance": rng.integers(0, 1 << 16, (height, width)).astype(np.uint16),
                },
            )
        )
    maps = {"label": np.full((1, 1), 9, np.uint8), "instance": np.full((1, 1), 8, np.uint16)}
    val = [sample("v", np.full((1, 1, 3), 255, np.uint8), maps=maps)]
    return make_set(tmp_path / "set", {"train": train, "val": val}, shard_size=4)


def test_against_numpy(scenes: ShardSet) -> None:
    info, found = stats(scenes.path)
    assert info == scenes.info and list(found) == ["train", "val"]
    split, one = scenes.split("train"), found["train"]
    samples = split.read_many(np.arange(len(split)))
    pixels = np.concatenate([s.image.reshape(-1, 3) for s in samples])
    assert one.samples == 11 and one.pixels == len(pixels)
    assert one.bytes == sum(p.stat().st_size for p in scenes.path.glob("train-*.tar"))
    np.testing.assert_allclose(one.mean, pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(one.variance, pixels.var(axis=0), rtol=1e-12)
    assert one.sizes == {(5, 4): 4, (9, 6): 7}
    assert one.labels == {-1: 1, 0: 5, 1: 5}
    for name in ("label", "instance"):
        assert one.maps[name] == Counter(v for s in samples for v in s.maps[name].ravel().tolist())
    assert found["val"].maps == {"label": {9: 1}, "instance": {8: 1}}
    assert found["val"].mean == (255.0, 255.0, 255.0) and found["val"].variance == (0.0, 0.0, 0.0)


def test_processes_and_place_do_not_matter(scenes: ShardSet) -> None:
    alone = stats(scenes.path)
    assert stats(scenes.path, processes=2) == alone
    with FolderServer(Path(scenes.path)) as server:
        assert stats(f"http://{LOCAL}:{server.port}") == alone


def test_progress(scenes: ShardSet) -> None:
    seen: list[tuple[str, int, int]] = []
    stats(scenes.path, progress=lambda *state: seen.append(state))
    assert ("samples", 4, 12) in seen and seen[-1] == ("samples", 12, 12)


def test_json(scenes: ShardSet) -> None:
    _, found = stats(scenes.path)
    content = json.loads(json.dumps(found["train"].as_json()))
    assert content["sizes"] == {"5x4": 4, "9x6": 7}
    assert content["labels"] == {"-1": 1, "0": 5, "1": 5}
    assert content["mean"] == list(found["train"].mean)
    assert sum(content["maps"]["label"].values()) == content["pixels"]


def test_a_built_set(tmp_path: Path, images: Path) -> None:
    options = {"size": "8", "test_fraction": 0.0}
    made = build("folder", tmp_path / "set", path=images, options=options)
    pixels = np.stack([s.image for s in made.split("train").read_many(np.arange(13))])
    _, by_split = stats(made.path)
    found = by_split["train"]
    assert np.allclose(found.mean, pixels.reshape(-1, 3).mean(axis=0))
    assert found.sizes == {(8, 8): 13} and found.labels == {-1: 1, 0: 6, 1: 6}
    assert found.maps == {}


def test_a_corrupt_sample(photo_set: Path) -> None:
    path = photo_set / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-000000.tar, key .* has changed"):
        stats(photo_set)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60))
def test_moments_are_exact(levels: list[int]) -> None:
    mean, variance = _moments(np.bincount(levels, minlength=256).tolist())
    exact = Fraction(sum(levels), len(levels))
    assert mean == float(exact)
    assert variance == float(sum((level - exact) ** 2 for level in levels) / len(levels))


def test_moments_of_many_pixels() -> None:
    """They are exact where float64 sums of squares would have lost the variance."""
    n = 10**13
    mean, variance = _moments([0] * 254 + [n, n])
    assert (mean, variance) == (254.5, 0.25)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_percentiles(values: list[int]) -> None:
    found = _percentiles(np.sort(np.array(values, dtype=np.int64)))
    exact = np.percentile(values, PERCENTILES, method="inverted_cdf")
    assert found == dict(zip(PERCENTILES, exact.astype(int).tolist(), strict=True))


def test_nothing_to_count() -> None:
    assert _percentiles(np.empty(0, dtype=np.int64)) == {}
    assert _moments([0] * 256) == (0.0, 0.0)
    assert _counted(np.array([0, 3, 0, 1])) == {1: 3, 3: 1}
