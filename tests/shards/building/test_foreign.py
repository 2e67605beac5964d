"""Indexing tars that others wrote, local or remote: nothing is copied, nothing is changed."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import webdataset
import xxhash

from shards.building.foreign import index_tars
from shards.errors import ShardError
from shards.reading.reader import open_set
from tests.shards.foreign_tars import grey, palette, png, write_tar
from tests.shards.object_server import FolderServer

needs_gnu_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")


def tree(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def reds(location: str | Path, split: str = "train") -> list[int]:
    """What `png` made each image of; every sample is checked on the way."""
    found = open_set(location).split(split)
    return [int(found.read(row).image[0, 0, 0]) for row in range(len(found))]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A directory of data-00.tar to data-02.tar, of two samples each."""
    directory = tmp_path / "three"
    directory.mkdir()
    for i in range(3):
        members = {f"{2 * i + j}.png": png(2 * i + j) for j in range(2)}
        write_tar(directory / f"data-{i:02d}.tar", members)
    return directory


@needs_gnu_tar
@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_gnu_tars_are_read_where_they_are(kind: str, tmp_path: Path) -> None:
    long = "d" * 90 + "/" + "k" * 140
    names = ["./sub/0.png", "./sub/0.cls", "./1.png", "./Zürich.png", f"{long}.png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1" if name.endswith("cls") else png(i))
    shards = tmp_path / "shards"
    shards.mkdir()
    tar = shards / "train-0.tar"
    subprocess.run(["tar", f"--format={kind}", "-cf", tar, *names], cwd=tmp_path, check=True)
    before = tar.read_bytes()
    info = index_tars(shards)
    assert tar.read_bytes() == before
    (shard,) = info.splits["train"].shards
    assert (shard.bytes, shard.samples) == (len(before), 4)
    assert shard.hash == xxhash.xxh3_128_hexdigest(before)
    split = open_set(shards).split("train")
    found = {split.key(r): (split.read(r).image[0, 0, 0], split.label(r)) for r in range(4)}
    assert found == {"./sub/0": (0, 1), "./1": (2, None), "./Zürich": (3, None), long: (4, None)}
    theirs = webdataset.WebDataset([str(tar)], shardshuffle=False)
    assert [sample["__key__"] for sample in theirs] == [split.key(row) for row in range(4)]


def test_webdataset_tars_with_many_members(tmp_path: Path) -> None:
    values = np.arange(72, dtype=np.uint8).reshape(8, 9)
    for name, first in (("set-train-00.tar", 0), ("set-train-01.tar", 3), ("set-val-00.tar", 6)):
        with webdataset.TarWriter(str(tmp_path / name)) as writer:
            for i in range(first, first + 3):
                writer.write({
                    "__key__": f"a/{i}" + ("long" * 30 if i == 2 else ""),
                    "jpg": np.full((8, 9, 3), 20 * i, np.uint8),
                    "label.png": grey(values + i), "instance.png": grey(values.astype("u2") * 900),
                    "seg.png": palette(values), "colour.png": png(i),
                    **({"now_and_then.png": grey(values)} if i % 2 else {}),
                    "json": {"i": i}, "cls": i,
                })  # fmt: skip
    info = index_tars(tmp_path)
    assert info.counts == {"train": 6, "val": 3}
    assert info.maps == ["instance.png", "label.png", "seg.png"]
    sample = open_set(tmp_path).split("val").read(1)
    assert (sample.key, sample.label, sample.image.shape) == ("a/7", 7, (8, 9, 3))
    assert sample.image[0, 0, 0] == 140
    assert np.array_equal(sample.maps["label"], values + 7)
    assert np.array_equal(sample.maps["instance"], values.astype(np.uint16) * 900)
    assert np.array_equal(sample.maps["seg"], values)


def test_a_label_is_a_number_from_0(tmp_path: Path) -> None:
    contents = [b"3", b" 12\n", b"cat", b"-1", b"", b"9" * 30]
    write_tar(
        tmp_path / "a.tar",
        {
            name: data
            for i, cls in enumerate(contents)
            for name, data in ((f"{i}.cls", cls), (f"{i}.png", png(i)))
        },
    )
    index_tars(tmp_path)
    split = open_set(tmp_path).split("train")
    assert [split.label(row) for row in range(6)] == [3, 12, None, None, None, None]


def test_indexing_again_changes_nothing_and_never_overwrites(three: Path) -> None:
    first = index_tars(three)
    before = tree(three)
    stamp = (three / "index.parquet").stat().st_mtime_ns
    assert index_tars(three) == first
    assert (three / "index.parquet").stat().st_mtime_ns == stamp
    write_tar(three / "b.tar", {"9.png": png(9)})
    with pytest.raises(ShardError, match="has an index already, and it differs"):
        index_tars(three)
    (three / "b.tar").unlink()
    assert tree(three) == before
    with pytest.raises(ShardError, match="has an index already, and it differs"):
        index_tars(three, split="test")


def test_any_number_of_processes_makes_the_same_bytes(three: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    for processes in (1, 2):
        out = tmp_path / f"out{processes}" / "index"
        index_tars(three, out=out, processes=processes, progress=lambda *now: seen.append(now))
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    assert seen == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)] * 2


def test_an_index_elsewhere(three: Path, tmp_path: Path) -> None:
    before = tree(three)
    info = index_tars(three, out=tmp_path / "index")
    assert info.location == str(three)
    assert tree(three) == before
    assert reds(tmp_path / "index") == [0, 1, 2, 3, 4, 5]
    # The index may move, the tars may not.
    (tmp_path / "index").rename(tmp_path / "moved")
    assert reds(tmp_path / "moved") == [0, 1, 2, 3, 4, 5]


def test_what_lies_below_the_index_moves_with_it(three: Path, tmp_path: Path) -> None:
    info = index_tars(three, out=three.parent)
    assert info.location == "three"
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "_moved"))
    assert reds(moved) == [0, 1, 2, 3, 4, 5]
    moved.rename(tmp_path)


@pytest.mark.parametrize("relative", [True, False])
def test_patterns_and_lists(relative: bool, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three.parent)
    base = "three" if relative else str(three)
    for out, location in {
        "braces": f"{base}/data-{{01..02}}.tar",
        "list": [f"{base}/data-02.tar", Path(base) / "data-01.tar"],
        "both": [f"{base}/data-0{{1,2}}.tar", three / "data-01.tar"],
    }.items():
        info = index_tars(location, out=out)
        assert [shard.name for shard in info.splits["train"].shards] == [
            "data-01.tar",
            "data-02.tar",
        ]
        assert reds(out) == [2, 3, 4, 5]
    assert index_tars(f"{base}/data-01.tar", split="test").counts == {"test": 2}
    assert reds("three", "test") == [2, 3]


def test_a_directory_may_have_braces_in_its_name(three: Path) -> None:
    there = three.rename(three.with_name("{a,b}"))
    assert index_tars(there).counts == {"train": 6}


def test_remote_tars(three: Path, tmp_path: Path) -> None:
    with FolderServer(tmp_path) as server:
        there = f"http://127.0.0.1:{server.port}/three"
        with pytest.raises(ShardError, match=r"is remote and nothing is written there: .*--out"):
            index_tars(there)
        for out, location in {
            "all": there,
            "braces": there + "/data-{00..02}.tar",
            "one": [there + "/data-01.tar"],
        }.items():
            info = index_tars(location, out=tmp_path / out)
            assert info.location == there
        local = index_tars(three, out=tmp_path / "local")
        assert local.splits == index_tars(there, out=tmp_path / "all").splits
        assert local.index_hash == index_tars(there, out=tmp_path / "braces").index_hash
        with pytest.raises(ShardError, match=r"there is no http://.*/three/data-03.tar"):
            index_tars(there + "/data-{02..03}.tar", out=tmp_path / "more")
        assert not (tmp_path / "more").exists()


def test_a_secret_is_not_written_down(three: Path, tmp_path: Path) -> None:
    with FolderServer(tmp_path) as server:
        there = f"http://me:secret@127.0.0.1:{server.port}/three/data-00.tar?token=abc"
        info = index_tars(there, out=tmp_path / "out")
    assert info.location == f"http://127.0.0.1:{server.port}/three"


def test_refusals(tmp_path: Path) -> None:
    directory = tmp_path / "tars"
    directory.mkdir()
    path = directory / "a.tar"

    def refused(message: str, location: str | Path | list[Path] = directory) -> None:
        before = tree(tmp_path)
        for out in (None, tmp_path / "out"):
            with pytest.raises(ShardError, match=message):
                index_tars(location, out=out)
        assert tree(tmp_path) == before
        assert sorted(os.listdir(tmp_path)) == ["tars"]

    refused("no tars to index in")
    refused("no tars were named", [])
    refused("there is no tar .*/none.tar", directory / "none.tar")
    refused("pattern .* cannot be expanded", f"{directory}/a-{{0..2.tar")
    refused("gopher://x/ cannot be read: allowed are", "gopher://x/a.tar")
    write_tar(path, {"0.png": png(0), "1.png": png(1)})
    refused("must lie in one directory", [path, tmp_path / "b.tar"])
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    refused(r"a.tar is compressed \(gzip\).*gunzip")
    path.rename(directory / "a.tar.gz")
    refused(r"only compressed tars \(a.tar.gz\)")
    (directory / "a.tar.gz").unlink()
    path.write_bytes(whole[:1560])
    refused(r"a.tar is (no whole tar|truncated)")
    write_tar(path, {"0.txt": b"hello"})
    refused("key '0', byte 512: the sample has no image")
    write_tar(path, {"0.png": b"hello"})
    refused("key '0', byte 512: png cannot be read as an image")
    write_tar(path, {"no_extension": b""})
    refused("hold no sample")


def test_one_empty_tar_among_others(three: Path) -> None:
    write_tar(three / "data-01.tar", {})
    info = index_tars(three)
    assert [shard.samples for shard in info.splits["train"].shards] == [2, 0, 2]
    assert reds(three) == [0, 1, 4, 5]
    split = open_set(three).split("train")
    assert split.shard_names == ["data-00.tar", "data-02.tar"]
    assert split.shard_lengths.tolist() == [2, 2]


def test_a_tar_without_an_index_says_how_to_make_one(three: Path) -> None:
    with pytest.raises(ShardError, match="run `gencomp shards index"):
        open_set(three)
