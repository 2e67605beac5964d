"""The digits of scikit-learn, from its data file alone."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from shards.building.build import build
from shards.building.sources.digits import digits
from shards.errors import ShardError
from tests.shards.building.sources.reading import check_arrays

N = 1797


def table() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.column_stack([rng.integers(0, 17, (N, 64)), rng.integers(0, 10, N)])


def write(root: Path, rows: np.ndarray) -> Path:
    """A scikit-learn that cannot be imported, with its data file in the original format."""
    folder = root / "sklearn" / "datasets" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    (root / "sklearn" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
    (folder / "digits.csv.gz").write_bytes(gzip.compress(lines.encode()))
    return folder / "digits.csv.gz"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    return write(tmp_path / "site", table())


def scaled(rows: np.ndarray) -> np.ndarray:
    """Values v·255/16, halves up; in fractions, so another way than the source's."""
    return np.floor(rows[:, :64] * (255 / 16) + 0.5).astype(np.uint8).reshape(-1, 8, 8)


def test_pixels_labels_and_splits(package: Path) -> None:
    source = digits(None)
    rows = table()
    assert {int(v): int(scaled(np.full((1, 64), v))[0, 0, 0]) for v in (0, 1, 8, 15, 16)} == {
        0: 0, 1: 16, 8: 128, 15: 239, 16: 255,
    }  # fmt: skip
    parts = {"train": rows[:1198], "test": rows[1198:]}
    check_arrays(source, {split: (scaled(p), p[:, 64].tolist()) for split, p in parts.items()})
    assert source.classes == [str(digit) for digit in range(10)]


def test_the_built_set(package: Path, tmp_path: Path) -> None:
    made = build("digits", tmp_path / "set", shard_size=40, limit=90, processes=1)
    assert made.splits == {"train": 90, "test": 90}
    sample = made.split("test").read(89)
    expected = scaled(table()[1198 + 89 : 1198 + 90])[0]
    assert np.array_equal(sample.image, np.repeat(expected[..., None], 3, axis=2))


def test_what_is_missing_or_damaged(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ShardError, match="digits takes no path"):
        digits(tmp_path)
    package.write_bytes(package.read_bytes()[:1000])
    with pytest.raises(ShardError, match=r"digits.csv.gz cannot be read .*pip install"):
        digits(None)
    write(tmp_path / "site", table()[:-1])
    with pytest.raises(ShardError, match="is not the table of 1797 digits"):
        digits(None)
    write(tmp_path / "site", table() + 1)
    with pytest.raises(ShardError, match="64 values 0 to 16"):
        digits(None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(ShardError, match=r"not installed: run `pip install scikit-learn`"):
        digits(None)
