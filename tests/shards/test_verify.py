"""`verify` names every kind of damage with shard, key and offset; `stats` counts right."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencomp.cli import shards as commands
from shards import open_set
from shards.build import build
from shards.errors import ShardError
from shards.stats import stats
from shards.verify import verify


def problems(path: Path) -> list[str]:
    return [str(problem) for problem in verify(path).problems]


def test_a_whole_set(built: Path) -> None:
    report = verify(built)
    assert report.ok and report.samples == sum(open_set(built).splits.values())
    assert report.bytes == sum(p.stat().st_size for p in built.glob("*.tar"))


def test_flip_in_content(photo_set: Path) -> None:
    shard, key, offset = open_set(photo_set).split("test").place(3)
    data = bytearray((photo_set / shard).read_bytes())
    data[offset + 50] ^= 1
    (photo_set / shard).write_bytes(data)
    found = problems(photo_set)
    place = f"{shard}, key {key!r}, byte {offset}: "
    assert f"{place}its content has changed (the hash differs)" in found
    assert all(problem.startswith(place) for problem in found)


def test_flip_in_a_header(photo_set: Path) -> None:
    shard, _, offset = open_set(photo_set).split("train").place(4)
    data = bytearray((photo_set / shard).read_bytes())
    data[offset - 512] ^= 1
    (photo_set / shard).write_bytes(data)
    (found,) = problems(photo_set)
    assert re.match(f"{shard}: .*damaged or cut header.*byte {offset - 512}$", found)


def test_truncation(photo_set: Path) -> None:
    split = open_set(photo_set).split("train")
    shard, key, offset = split.place(18)
    os.truncate(photo_set / shard, offset + 5)
    found = problems(photo_set)
    assert any(p.startswith(f"{shard}: the shard has {offset + 5} bytes") for p in found)
    assert any(
        p.startswith(f"{shard}, key {key!r}, byte {offset}: png is cut short: 5") for p in found
    )
    _, after, later = split.place(19)
    assert any(p.startswith(f"{shard}, key {after!r}, byte {later}") for p in found)


def test_missing_shard_and_swapped_shards(photo_set: Path) -> None:
    a, b = photo_set / "train-000000.tar", photo_set / "train-000001.tar"
    a.rename(photo_set / "x")
    b.rename(a)
    (photo_set / "x").rename(b)
    (photo_set / "test-000000.tar").unlink()
    found = problems(photo_set)
    assert "test-000000.tar: the shard is missing" in found
    assert any("the tar does not hold this sample" in p for p in found)
    assert any("the index does not list this sample" in p for p in found)


def test_an_index_of_another_set(photo_set: Path, tmp_path: Path) -> None:
    other = build("photos", tmp_path / "other", size=32, shard_size=20, limit=69)
    (other.path / "index.parquet").rename(photo_set / "index.parquet")
    (found,) = problems(photo_set)
    assert re.match(r"index.parquet: .*index.parquet is damaged or of another set", found)


def test_an_index_whose_content_is_not_the_named_one(photo_set: Path) -> None:
    path = photo_set / "dataset.json"
    path.write_text(re.sub('"index_hash": "....', '"index_hash": "aaaa', path.read_text()))
    assert problems(photo_set) == [
        "index.parquet: its content is not the one that dataset.json names"
    ]


def test_duplicates_across_splits(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name, value in (("train/a", 1), ("train/b", 2), ("test/c", 2), ("train/d", 2)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (value, 0, 0)).save(root / f"{name}.png")
    build("folder", tmp_path / "set", path=root)
    (found,) = problems(tmp_path / "set")
    key, shard = r"'(train/b|train/d|test/c)'", r"\w+-000000.tar"
    assert re.match(
        rf"{shard}, key {key}, byte \d+: the same content is in split '\w+', and in split '\w+' "
        rf"as {key} \({shard}, byte \d+\)$",
        found,
    )


def test_stats(tmp_path: Path, images: Path) -> None:
    made = build("folder", tmp_path / "set", path=images, size=8, test_fraction=0)
    split = made.split("train")
    pixels = np.stack([s.image for s in split.read_many(np.arange(13))]).reshape(-1, 3)
    _, by_split = stats(made.path)
    found = by_split["train"]
    assert np.allclose(found.mean, pixels.mean(axis=0)) and np.allclose(
        found.variance, pixels.var(axis=0)
    )
    assert (found.samples, found.pixels) == (13, 13 * 64)
    assert found.sizes == {(8, 8): 13} and found.labels == {-1: 1, 0: 6, 1: 6}


def test_the_commands(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    for _ in range(2):
        commands.build("folder", images, out=out, size=8)
        assert f"{out}: train 12, test 1 samples" in capsys.readouterr().out
    commands.stats(out)
    text = capsys.readouterr().out
    assert (
        "train: 12 samples, 768 pixels" in text
        and "size 8x8: 12" in text
        and "label cats: " in text
    )
    commands.verify(out)
    assert f"{out}: whole; 13 samples in 2 shards" in capsys.readouterr().out
    (out / "index.parquet").unlink()
    (out / "dataset.json").unlink()
    commands.index(out)
    assert "train 12" in capsys.readouterr().out
    (out / "test-000000.tar").unlink()
    with pytest.raises(SystemExit, match="1"):
        commands.verify(out)
    assert "test-000000.tar: the shard is missing" in capsys.readouterr().out
    with pytest.raises(ShardError, match="no shard set"):
        commands.verify(tmp_path / "nope")
