"""SVHN from MATLAB files: against scipy's own reading of them, and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from shards.building.build import build
from shards.building.sources.svhn import svhn
from shards.errors import ShardError
from tests.shards.building.sources.blocks import samples
from tests.shards.building.sources.reading import check_arrays, pixels

COUNTS = {"train": 300, "test": 11, "extra": 5}


def arrays(split: str) -> dict[str, np.ndarray]:
    """X [32, 32, 3, n] and labels 1 to 10 [n, 1], as in the original files."""
    n = COUNTS[split]
    rng = np.random.default_rng(n)
    pixels = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    return {"X": pixels, "y": rng.integers(1, 11, (n, 1)).astype(np.uint8)}


def write(
    root: Path, *, compressed: bool = True, splits: tuple[str, ...] = ("train", "test")
) -> Path:
    root.mkdir(exist_ok=True)
    for split in splits:
        savemat(root / f"{split}_32x32.mat", arrays(split), do_compression=compressed)
    return root


@pytest.mark.parametrize("compressed", [True, False])
def test_pixels_labels_and_order(tmp_path: Path, compressed: bool) -> None:
    root = write(tmp_path / "svhn", compressed=compressed, splits=("train", "test", "extra"))
    source = svhn(root)
    assert list(source.splits) == ["train", "test", "extra"]
    expected = {}
    for split in COUNTS:
        theirs = loadmat(root / f"{split}_32x32.mat")
        labels = [label % 10 for label in theirs["y"].reshape(-1).tolist()]
        expected[split] = theirs["X"].transpose(3, 0, 1, 2), labels
    assert 0 in expected["train"][1]
    check_arrays(source, expected)


def test_reading_backwards_and_between_files(tmp_path: Path) -> None:
    """A worker gets blocks in any order; a compressed file is then read anew."""
    source = svhn(write(tmp_path / "svhn"))
    items = source.splits["train"]
    blocks = [items.block(n, n + 1) for n in (290, 3, 299, 0)] + [source.splits["test"].block(2, 3)]
    keys = [sample.key for block in blocks for sample in source.read(block)]  # type: ignore[union-attr]
    assert keys == [f"train-{n:07d}" for n in (290, 3, 299, 0)] + ["test-0000002"]


def test_labels_may_come_first(tmp_path: Path) -> None:
    root = write(tmp_path / "svhn")
    both = arrays("test")
    savemat(root / "test_32x32.mat", {"y": both["y"], "X": both["X"]}, do_compression=True)
    found = samples(svhn(root))["test"]
    assert [sample.label for sample in found] == (both["y"].reshape(-1) % 10).tolist()
    for row, sample in enumerate(found):
        assert np.array_equal(pixels(sample), both["X"][..., row])


def test_the_built_set(tmp_path: Path) -> None:
    made = build(
        "svhn", tmp_path / "set", path=write(tmp_path / "svhn"), shard_size=70, processes=1
    )
    assert made.splits == {"train": 300, "test": 11}
    for row in (0, 71, 299):
        sample = made.split("train").read(row)
        assert np.array_equal(sample.image, arrays("train")["X"][..., row])
        assert sample.label == arrays("train")["y"][row, 0] % 10


def test_damage_and_wrong_files_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "svhn")
    file = root / "test_32x32.mat"
    whole = file.read_bytes()
    for size in (0, 100, 5000, len(whole) - 100):
        file.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"test_32x32.mat is not a MATLAB file of SVHN"):
            svhn(root)
    both = arrays("test")
    for strange, message in [
        ({"y": both["y"]}, "it has no X"),
        ({"X": both["X"][..., 1:], "y": both["y"]}, r"shape \(32, 32, 3, 10\), and there are 11"),
        ({"X": both["X"].astype(float), "y": both["y"]}, "its X"),
        ({"X": both["X"], "y": both["y"] + 1}, "its labels are"),
        ({"X": both["X"]}, "'y'"),
    ]:
        savemat(file, strange, do_compression=True)
        with pytest.raises(ShardError, match=f"not a MATLAB file of SVHN .*{message}"):
            svhn(root)
    file.unlink()
    with pytest.raises(ShardError, match=r"there is no .*test_32x32.mat: the path of svhn"):
        svhn(root)
    with pytest.raises(ShardError, match="svhn needs the path"):
        svhn(None)


def test_a_flipped_bit_is_found_by_the_end(tmp_path: Path) -> None:
    root = write(tmp_path / "svhn")
    file = root / "train_32x32.mat"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    source = svhn(root)
    with pytest.raises(ShardError, match=r"X in .*train_32x32.mat is damaged"):
        for start in range(0, 300, 50):
            list(source.read(source.splits["train"].block(start, start + 50)))
