"""Foreign tars: GNU tar's, webdataset's, with long names and pax headers; refusals by name."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards import open_set
from shards.errors import ShardError
from shards.index import index_tars
from shards.verify import verify


def png(i: int, size: tuple[int, int] = (6, 5)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (i, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_files(root: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(str(i).encode() if name.endswith("cls") else png(i))


LONG = "d" * 90 + "/" + "k" * 140


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("kind", ["gnu", "pax", "ustar"])
def test_gnu_tar(kind: str, tmp_path: Path) -> None:
    names = ["./sub/0.png", "./sub/0.cls", "./1.png", "./Zürich.png"]
    names += ["x" * 60 + "/" + "y" * 90 + ".png"] if kind == "ustar" else [f"{LONG}.png"]
    source = tmp_path / "source"
    write_files(source, names)
    shards = tmp_path / "shards"
    shards.mkdir()
    subprocess.run(
        ["tar", f"--format={kind}", "-cf", shards / "train-0.tar", *names], cwd=source, check=True
    )
    before = (shards / "train-0.tar").read_bytes()
    info = index_tars(shards)
    assert (shards / "train-0.tar").read_bytes() == before
    assert info.counts == {"train": 4}
    split = open_set(shards).split("train")
    found = {split.key(r): (split.read(r).image[0, 0, 0], split.label(r)) for r in range(4)}
    assert found == {
        "./sub/0": (0, 1),
        "./1": (2, None),
        "./Zürich": (3, None),
        names[4][:-4]: (4, None),
    }
    assert verify(shards).ok
    theirs = [s["__key__"] for s in webdataset.WebDataset([str(shards / "train-0.tar")],
                                                          shardshuffle=False)]  # fmt: skip
    assert theirs == [split.key(row) for row in range(4)]


def test_webdataset_tars_with_many_members(tmp_path: Path) -> None:
    for name, first in (("set-train-00.tar", 0), ("set-train-01.tar", 3), ("set-val-00.tar", 6)):
        with webdataset.TarWriter(str(tmp_path / name)) as writer:
            for i in range(first, first + 3):
                writer.write({
                    "__key__": f"a/{i}" + ("long" * 30 if i == 2 else ""),
                    "jpg": np.full((8, 9, 3), 20 * i, np.uint8),
                    "seg.png": np.zeros((8, 9, 3), np.uint8),
                    "json": {"i": i}, "cls": i,
                })  # fmt: skip
    info = index_tars(tmp_path)
    assert info.counts == {"train": 6, "val": 3}
    split = open_set(tmp_path).split("val")
    sample = split.read(1)
    assert (sample.key, sample.label, sample.image.shape) == ("a/7", 7, (8, 9, 3))
    assert sample.image[0, 0, 0] == 140
    assert verify(tmp_path).ok


def test_indexing_again_changes_nothing_and_never_overwrites(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": png(0), "1.png": png(1)})
    first = index_tars(tmp_path)
    stamp = (tmp_path / "index.parquet").stat().st_mtime_ns
    assert index_tars(tmp_path) == first
    assert (tmp_path / "index.parquet").stat().st_mtime_ns == stamp
    write_tar(tmp_path / "b.tar", {"2.png": png(2)})
    with pytest.raises(ShardError, match="has an index already, and it differs"):
        index_tars(tmp_path)
    assert open_set(tmp_path).index_hash == first.index_hash
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar", "dataset.json", "index.parquet"]


def test_the_split_can_be_given(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", {"0.png": png(0)})
    assert index_tars(tmp_path / "train-0.tar", split="test").counts == {"test": 1}


def write_tar(path: Path, members: dict[str, bytes], **header) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"

    def refused(message: str) -> None:
        with pytest.raises(ShardError, match=message):
            index_tars(tmp_path)
        assert not list(tmp_path.glob("*index*")) and not list(tmp_path.glob(".*"))

    with pytest.raises(ShardError, match="no tars to index"):
        index_tars(tmp_path)
    write_tar(path, {"0.png": png(0), "1.png": png(1)})
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    refused(r"a.tar is compressed \(gzip\).*gunzip")
    path.rename(tmp_path / "a.tar.gz")
    refused(r"only compressed tars \(a.tar.gz\)")
    (tmp_path / "a.tar.gz").unlink()
    path.write_bytes(whole[:1100])
    refused(r"a.tar: a damaged or cut header.*byte 1024")
    path.write_bytes(whole[:1560])
    refused(r"a.tar is (no whole tar|truncated)")
    second = whole.index(b"1.png")
    path.write_bytes(whole[:second] + b"9" + whole[second + 1 :])
    refused(f"damaged or cut header.*byte {second}")
    path.write_bytes(whole + whole)
    refused("data after the end of the archive")
    write_tar(path, {"0.txt": b"hello"})
    refused("key '0', byte 512: the sample has no image")
    write_tar(path, {"0.png": b"hello"})
    refused("key '0', byte 512: png cannot be read as an image")
    with tarfile.open(path, "w") as tar:
        for content in (png(0), png(1)):
            info = tarfile.TarInfo("0.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    refused("two members 'png'")


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_sparse_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source" / "0.png", "wb") as stream:
        stream.write(png(0))
        stream.truncate(1 << 20)
    (tmp_path / "set").mkdir()
    command = ["tar", "--sparse", "-cf", tmp_path / "set" / "a.tar", "0.png"]
    subprocess.run(command, cwd=tmp_path / "source", check=True)
    with pytest.raises(ShardError, match=r"stored sparse: .*without --sparse"):
        index_tars(tmp_path / "set")


def test_a_tar_without_an_index_says_how_to_make_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.png": png(0)})
    with pytest.raises(ShardError, match="run `gencomp shards index"):
        open_set(tmp_path)
