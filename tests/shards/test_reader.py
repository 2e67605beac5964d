"""Reading: every sample checked; corruption named; threads, forks and pickles."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import open_set
from shards.decode import decode
from shards.errors import ShardError
from shards.reader import Sample, ShardSet, Split


def same(a: Sample, b: Sample) -> bool:
    return a[0] == b[0] and np.array_equal(a[1], b[1]) and a[2:] == b[2:]


def test_a_sample(folder_set: ShardSet) -> None:
    split = folder_set.split("train")
    assert len(split) == 10 == folder_set.splits["train"]
    assert split.key_hash == f"{folder_set.index_hash}/train"
    samples = split.read_many(np.array([3, 0, 3]))
    assert [s.row for s in samples] == [3, 0, 3]
    assert same(samples[0], samples[2]) and not same(samples[0], samples[1])
    for bad in (-1, 10):
        with pytest.raises(ShardError, match=f"rows 0 to 9, not {bad}"):
            split.read(bad)


def test_a_bit_flip_is_named(photo_set: Path) -> None:
    split = open_set(photo_set).split("train")
    shard, key, offset = split.place(25)
    data = bytearray((photo_set / shard).read_bytes())
    data[offset + 100] ^= 4
    (photo_set / shard).write_bytes(data)
    place = re.escape(f"{shard}, key {key!r}, byte {offset}: ")
    with pytest.raises(ShardError, match=f"{place}.*changed"):
        split.read(25)
    split.read(24)


def test_a_flip_in_another_member_is_named_too(folder_set: ShardSet) -> None:
    split = folder_set.split("train")
    shard, key, offset = split.place(0)
    path = folder_set.path / shard
    data = bytearray(path.read_bytes())
    assert data[512:513] in (b"0", b"1")  # the label precedes the image
    data[512] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=re.escape(f"{shard}, key {key!r}, byte {offset}")):
        split.read(0)


def test_truncation_and_absence_are_named(photo_set: Path) -> None:
    split = open_set(photo_set).split("train")
    shard, key, offset = split.place(39)
    os.truncate(photo_set / shard, offset + 10)
    with pytest.raises(
        ShardError, match=f"{shard}, key '{key}', byte {offset}: .*cut short: 10 of"
    ):
        split.read(39)
    (photo_set / split.place(0)[0]).unlink()
    with pytest.raises(ShardError, match=r"train-000000.tar, key .*No such file"):
        split.read(0)


def test_a_damaged_index_is_refused(photo_set: Path) -> None:
    path = photo_set / "index.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):  # anywhere: some flips would hang the Parquet reader
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"index.parquet is damaged"):
            open_set(photo_set).split("train")
    path.write_bytes(b"")
    with pytest.raises(ShardError, match=r"index.parquet is damaged"):
        open_set(photo_set).split("train")
    path.unlink()
    with pytest.raises(ShardError, match=r"has no index.parquet"):
        open_set(photo_set).split("train")


def test_a_damaged_or_later_dataset_json_is_refused(photo_set: Path) -> None:
    path = photo_set / "dataset.json"
    text = path.read_text()
    path.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(ShardError, match=r"format version 9, .* upgrade"):
        open_set(photo_set)
    path.write_text(text[:100])
    with pytest.raises(ShardError, match=r"dataset.json cannot be read"):
        open_set(photo_set)


def test_pickling(built: Path) -> None:
    split = open_set(built).split("train")
    split.read(0)
    blob = pickle.dumps(split)
    assert len(blob) < 1000
    assert same(pickle.loads(blob).read(7), split.read(7))


def test_a_pickle_insists_on_the_same_set(photo_set: Path) -> None:
    blob = pickle.dumps(open_set(photo_set).split("train"))
    path = photo_set / "dataset.json"
    path.write_text(re.sub('"index_hash": "..', '"index_hash": "zz', path.read_text()))
    with pytest.raises(ShardError, match="another set now"):
        pickle.loads(blob)


def _child(split: Split, rows: range, connection) -> None:
    connection.send([split.read(row).image.tobytes() for row in rows])
    connection.close()


def test_forked_processes_share_a_split(built: Path) -> None:
    """The children inherit open descriptors; positional reads have no shared file position."""
    split = open_set(built).split("train")
    split.read(0)
    context = multiprocessing.get_context("fork")
    rows = range(len(split))
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [context.Process(target=_child, args=(split, rows, send)) for _, send in pipes]
    for child in children:
        child.start()
    mine = [split.read(row).image.tobytes() for row in rows]
    assert all(receive.recv() == mine for receive, _ in pipes)
    for child in children:
        child.join()


def test_threads_share_a_split(built: Path) -> None:
    split = open_set(built).split("train")
    rows = np.tile(np.arange(len(split)), 4)
    expected = [
        open_set(built).split("train").read(row).image.tobytes() for row in range(len(split))
    ]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: (row, split.read(row).image.tobytes()), rows.tolist()))
    assert all(expected[row] == image for row, image in found)


def test_more_shards_than_descriptors(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.reader._MOST_OPEN", 1)
    split = open_set(built).split("train")
    before = len(os.listdir("/proc/self/fd"))
    for row in range(len(split)):
        split.read(row)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del split
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_has_the_pixels_of_pillow(mode: str, subsampling: int, progressive: bool) -> None:
    rng = np.random.default_rng(0)
    for size in ((64, 48), (37, 29), (1, 1)):
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize(size).convert(mode).save(
            stream, "JPEG", quality=80, subsampling=subsampling, progressive=progressive
        )
        expected = np.asarray(Image.open(stream).convert("RGB"))
        assert np.array_equal(decode(stream.getvalue()), expected)


def test_images_that_cannot_be_decoded() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(stream, "PNG")
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode(stream.getvalue())
    with pytest.raises(ValueError, match="none of the formats PNG, JPEG"):
        decode(b"hello, world")
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "JPEG")
    with pytest.raises(ValueError, match="truncated"):
        decode(stream.getvalue()[:400])
