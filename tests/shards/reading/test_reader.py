"""Reading: every sample checked; corruption named; threads, forks and pickles."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shards.building.foreign import index_tars
from shards.errors import ShardError
from shards.info import read_info, write_info
from shards.reading.maps import map_pixels
from shards.reading.reader import Sample, ShardSet, Split, open_set
from tests.shards.foreign_tars import grey, palette, png, write_tar
from tests.shards.object_server import FolderServer
from tests.waiting import PATIENCE, wait_for

LABELS = np.arange(30, dtype=np.uint8).reshape(5, 6)
INSTANCES = LABELS.astype(np.uint16) * 1001


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """Two tars of three samples of 5 x 6 pixels, each with a label, and with two maps."""
    directory = tmp_path / "streets"
    directory.mkdir()
    for shard in range(2):
        members = {}
        for i in range(3 * shard, 3 * shard + 3):
            members |= {
                f"{i}.png": png(i),
                f"{i}.cls": b"%d" % (i + 1),
                f"{i}.label.png": (palette if i % 2 else grey)(LABELS + i),
                f"{i}.instance.png": grey(INSTANCES + i),
            }
        write_tar(directory / f"train-{shard}.tar", members)
    index_tars(directory)
    return directory


def same(a: Sample, b: Sample) -> bool:
    return (
        (a.key, a.label, a.row) == (b.key, b.label, b.row)
        and np.array_equal(a.image, b.image)
        and a.maps.keys() == b.maps.keys()
        and all(np.array_equal(a.maps[name], b.maps[name]) for name in a.maps)
    )


def test_a_sample(folder_set: ShardSet) -> None:
    split = folder_set.split("train")
    assert len(split) == 10 == folder_set.splits["train"]
    assert split.key_hash == f"{folder_set.index_hash}/train"
    assert split.shard_lengths.sum() == 10 and split.shard_lengths.dtype == np.int64
    samples = split.read_many(np.array([3, 0, 3]))
    assert [s.row for s in samples] == [3, 0, 3]
    assert same(samples[0], samples[2]) and not same(samples[0], samples[1])
    for bad in (-1, 10):
        with pytest.raises(ShardError, match=f"rows 0 to 9, not {bad}"):
            split.read(bad)


def test_labels_and_places(streets: Path) -> None:
    split = open_set(streets).split("train")
    assert [split.label(row) for row in range(6)] == [1, 2, 3, 4, 5, 6]
    labels = split.labels(np.array([5, 0, 5]))
    assert labels.tolist() == [6, 1, 6] and labels.dtype == np.int64
    for row in range(6):
        shard, key, offset = split.place(row)
        assert (shard, key) == (f"train-{row // 3}.tar", str(row))
        assert (streets / shard).read_bytes()[offset:].startswith(png(row))
    assert (split.shard_names, split.shard_lengths.tolist()) == (
        ["train-0.tar", "train-1.tar"],
        [3, 3],
    )


def test_maps(streets: Path) -> None:
    split = open_set(streets).split("train")
    for row in range(6):
        sample = split.read(row)
        assert np.array_equal(sample.image, np.full((5, 6, 3), [row, 0, 0]))
        assert sample.maps["label"].dtype == np.uint8
        assert np.array_equal(sample.maps["label"], LABELS + row)
        assert sample.maps["instance"].dtype == np.uint16
        assert np.array_equal(sample.maps["instance"], INSTANCES + row)
        (only,) = split.maps(row, ["instance"]).values()
        assert np.array_equal(only, INSTANCES + row)
    with pytest.raises(ShardError, match="has no map 'depth': it has instance, label"):
        split.maps(0, ["depth"])
    assert open_set(streets).split("train").maps(0, []) == {}


def test_what_is_no_map_is_refused() -> None:
    for image, message in ((png(1), "its mode is RGB, and a map of ids has one"), (b"x", "no PNG")):
        with pytest.raises(ValueError, match=message):
            map_pixels(image)
    with pytest.raises(ValueError, match=r"truncated|broken"):
        map_pixels(grey(LABELS)[:60])


def test_a_set_that_was_moved_still_opens(streets: Path) -> None:
    before = open_set(streets).split("train").read_many(np.arange(6))
    moved = streets.rename(streets.with_name("moved"))
    after = open_set(str(moved)).split("train").read_many(np.arange(6))
    assert all(map(same, before, after))
    assert same(open_set(moved.as_uri()).split("train").read(5), before[5])


@pytest.mark.parametrize("location", ["tars", "absolute", "uri"])
def test_the_tars_may_lie_elsewhere(location: str, streets: Path, tmp_path: Path) -> None:
    before = open_set(streets).split("train").read(5)
    tars = streets / "tars" if location == "tars" else tmp_path / "elsewhere"
    tars.mkdir()
    for path in streets.glob("*.tar"):
        path.rename(tars / path.name)
    info = read_info(streets)
    where = {"tars": "tars", "absolute": str(tars), "uri": tars.as_uri()}[location]
    write_info(info.model_copy(update={"location": where}), streets)
    split = open_set(streets).split("train")
    assert same(split.read(5), before)
    assert same(pickle.loads(pickle.dumps(split)).read(5), before)
    (tars / "train-0.tar").unlink()
    with pytest.raises(ShardError, match=re.escape(f"{tars}/train-0.tar, key '0', byte 512: ")):
        split.read(0)


def test_webdataset_reads_what_we_read(built: Path) -> None:
    tars = [str(path) for path in sorted(built.glob("train-*.tar"))]
    theirs = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    split = open_set(built).split("train")
    assert [sample["__key__"] for sample in theirs] == [split.key(i) for i in range(len(split))]
    for row, sample in enumerate(theirs):
        assert np.array_equal(sample["png"], split.image(row))


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


def test_a_flip_anywhere_in_a_sample_is_named(streets: Path) -> None:
    """A flip in its label, its maps or the headers between its members is named too."""
    path = streets / "train-0.tar"
    whole = path.read_bytes()
    split = open_set(streets).split("train")
    second = whole.index(b"1.png")
    for place in (512, 600, 1100, whole.index(b"0.cls"), whole.index(b"0.label.png") + 512 + 60):
        assert place < second
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for read in (split.read, split.image, lambda row: split.maps(row, ["label"])):
            with pytest.raises(ShardError, match=re.escape(f"{path}, key '0', byte 512: ")):
                read(0)
        split.read(1)


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


def test_a_damaged_index_is_refused(
    photo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read where no process of the node has read it before."""
    monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "cache"))
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


def test_more_shards_than_descriptors(
    built: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Threads read while the file under them is closed for another; none reads a wrong one."""
    monkeypatch.setattr("shards.reading.files.LocalShards.most_open", 1)
    open_set(built).split("train")
    gc.collect()  # files of earlier tests that are still open would be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    split = open_set(built).split("train")
    expected = [
        open_set(built).split("train").read(row).image.tobytes() for row in range(len(split))
    ]
    gc.collect()
    interval = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    sys.setswitchinterval(1e-6)
    rows = np.random.default_rng(0).permutation(np.tile(np.arange(len(split)), 6)).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = [image.tobytes() for image in pool.map(split.image, rows)]
    assert found == [expected[row] for row in rows]
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # a tar, and the columns
    del split
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def remote(streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of `streets`, and an empty cache."""
    monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "cache"))
    with FolderServer(tmp_path) as server:
        yield f"http://127.0.0.1:{server.port}/streets"


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "shards").glob("*") if len(path.name) == 32]


def test_a_remote_set(remote: str, streets: Path, tmp_path: Path) -> None:
    shard_set = open_set(remote)
    assert (shard_set.path, shard_set.info) == (remote, open_set(streets).info)
    split = shard_set.split("train")
    assert not cached(tmp_path)
    local = open_set(streets).split("train")
    assert split.place(4) == local.place(4)
    for row in (5, 0, 3):
        assert same(split.read(row), local.read(row))
    assert len(cached(tmp_path)) == 2
    assert same(pickle.loads(pickle.dumps(split)).read(1), local.read(1))
    with pytest.raises(
        ShardError, match=r"there is no http://.*/streets/no/dataset\.json: .*shards index"
    ):
        open_set(remote + "/no")


def test_a_local_index_of_remote_tars(remote: str, streets: Path, tmp_path: Path) -> None:
    index_tars(remote, out=tmp_path / "index")
    split = open_set(tmp_path / "index").split("train")
    assert same(split.read(4), open_set(streets).split("train").read(4))


def test_a_remote_shard_that_fails_is_named(remote: str, streets: Path) -> None:
    split = open_set(remote).split("train")
    path = streets / "train-1.tar"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(ShardError, match=f"there is no {remote}/train-1.tar"):
        split.read(5)
    path.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    with pytest.raises(ShardError, match=r"train-1\.tar is not the shard of the index"):
        split.read(5)
    path.write_bytes(whole)
    split.read(5)


def test_shards_are_fetched_before_they_are_read(remote: str, tmp_path: Path) -> None:
    split = open_set(remote).split("train")
    split.fetch_soon(np.array([4, 5, 3]))
    split.fetch_soon(np.array([5]))
    assert wait_for(lambda: len(cached(tmp_path)) == 1)
    split.fetch_soon(np.arange(6))
    assert wait_for(lambda: len(cached(tmp_path)) == 2)
    split.read_many(np.arange(6))
    # Evicted, it can be fetched again: what is done is forgotten.
    del split
    gc.collect()
    split = open_set(remote).split("train")
    for path in cached(tmp_path):
        path.unlink()
    split.fetch_soon(np.arange(6))
    assert wait_for(lambda: len(cached(tmp_path)) == 2)


def _fetching_child(split: Split, tmp_path: Path) -> None:
    split.fetch_soon(np.array([5]))
    assert wait_for(lambda: len(cached(tmp_path)) == 2)


def test_a_forked_child_fetches_too(remote: str, tmp_path: Path) -> None:
    """The threads of its parent's pool are not there."""
    split = open_set(remote).split("train")
    split.fetch_soon(np.array([0]))
    assert wait_for(lambda: len(cached(tmp_path)) == 1)
    child = multiprocessing.get_context("fork").Process(
        target=_fetching_child, args=(split, tmp_path)
    )
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0


def test_a_failing_fetch_is_left_to_the_reader(remote: str, streets: Path) -> None:
    split = open_set(remote).split("train")
    (streets / "train-1.tar").rename(streets / "away.tar")
    split.fetch_soon(np.array([5]))
    with pytest.raises(ShardError, match=f"there is no {remote}/train-1.tar"):
        split.read(5)
    (streets / "away.tar").rename(streets / "train-1.tar")
    split.read(5)


def test_a_cache_of_one_shard_is_enough(
    remote: str, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this very process keeps open gives way to what it needs."""
    size = max(path.stat().st_size for path in streets.glob("*.tar"))
    monkeypatch.setenv("GENCOMP_CACHE_GB", f"{size / 1e9:.9f}")
    split = open_set(remote).split("train")
    local = open_set(streets).split("train")
    for row in (0, 5, 1, 4):
        assert same(split.read(row), local.read(row))
        assert len(cached(tmp_path)) == 1


def test_local_shards_are_not_fetched(streets: Path) -> None:
    split = open_set(streets).split("train")
    before = threading.enumerate()
    split.fetch_soon(np.arange(6))
    assert threading.enumerate() == before
