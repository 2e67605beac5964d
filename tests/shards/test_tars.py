"""The scan of tars: GNU tar's, webdataset's, with long names and pax headers; refusals by name."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.tars import OnePass, samples, scan
from tests.shards.foreign_tars import png, write_tar

needs_gnu_tar = pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
LONG = "d" * 90 + "/" + "k" * 140


def contents(path: Path) -> dict[str, dict[str, bytes]]:
    whole = path.read_bytes()
    return {
        key: {m.name: whole[m.offset : m.offset + m.size] for m in members}
        for key, members in scan(path)
    }


@needs_gnu_tar
@pytest.mark.parametrize("kind", ["gnu", "pax", "ustar", "v7"])
def test_gnu_tar(kind: str, tmp_path: Path) -> None:
    names = ["./sub/0.png", "./sub/0.cls", "./1.PNG", "./Zürich.seg.png", "./__meta__/x.png", "no"]
    names += {
        "ustar": ["x" * 60 + "/" + "y" * 90 + ".png"],
        "v7": ["x" * 40 + "/" + "y" * 50 + ".png"],
    }.get(kind, [f"{LONG}.png", f"{LONG}.json"])
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(i) * i)
    (tmp_path / "link.png").symlink_to("sub/0.png")
    command = [
        "tar",
        f"--format={kind}",
        "--no-recursion",
        "-cf",
        "a.tar",
        "sub",
        *names,
        "link.png",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert contents(tmp_path / "a.tar") == {
        "./sub/0": {"png": b"", "cls": png(1)},
        "./1": {"png": png(2) * 2},
        "./Zürich": {"seg.png": png(3) * 3},
        names[6].rpartition(".")[0]: {
            name.rpartition(".")[2]: png(i) * i for i, name in enumerate(names) if i > 5
        },
    }


def test_what_webdataset_writes_is_grouped_as_it_groups(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "s-%02d.tar"), maxcount=3, verbose=0) as writer:
        for i in range(5):
            name = f"a/{i}" + ("long" * 60 if i == 2 else "") + ("ä" if i == 3 else "")
            writer.write({"__key__": name, "png": png(i), "seg.png": png(9 - i), "cls": i})
    for number in range(2):
        path = tmp_path / f"s-{number:02d}.tar"
        theirs = webdataset.WebDataset([str(path)], shardshuffle=False)
        assert contents(path) == {
            sample["__key__"]: {k: v for k, v in sample.items() if k[0] != "_"} for sample in theirs
        }
    assert sum(len(scan(path)) for path in tmp_path.iterdir()) == 5


@given(
    st.lists(st.integers(0, 3000), max_size=5),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 90),
)
def test_one_pass_finds_the_same_and_every_byte(sizes: list[int], kind: int, length: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for i, size in enumerate(sizes):
            for name in ("png", "cls"):
                info = tarfile.TarInfo(f"{'k' * length}{i}.{name}")
                info.size = size
                tar.addfile(info, io.BytesIO(bytes(i for _ in range(size))))
    whole = stream.getvalue()
    once = OnePass(Forward(whole))
    for i, (found, expected) in enumerate(
        zip(samples(once, "it"), scan(stream, "it"), strict=True)
    ):
        assert found == expected
        begin, end = found[1][0].offset, found[1][-1].offset + found[1][-1].size
        assert once.between(begin, end) == whole[begin:end]
        assert begin == end or whole[begin:end].startswith(bytes([i] * sizes[i]))
        once.let_go(end)
    assert (once.reached, once.hash) == (len(whole), xxhash.xxh3_128_hexdigest(whole))


class Forward(io.BytesIO):
    """A stream that can only be read on."""

    def seek(self, *_: object) -> int:
        raise AssertionError("one pass does not seek")


def test_damaged_and_compressed_tars_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"

    def refused(content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(ShardError, match=message):
            scan(path)
        with pytest.raises(ShardError, match=message):
            list(samples(OnePass(io.BytesIO(content)), "a.tar"))

    with pytest.raises(ShardError, match=r"there is no shard .*a\.tar"):
        scan(path)
    write_tar(path, {"0.png": png(0), "1.png": png(1)})
    whole = path.read_bytes()
    refused(gzip.compress(whole), r"a.tar is compressed \(gzip\).*gunzip")
    refused(whole[:1100], r"a.tar: a damaged or cut header.*byte 1024")
    refused(whole[:1560], r"a.tar is (no whole tar|truncated)")
    second = whole.index(b"1.png")
    header = whole[:second] + b"9" + whole[second + 1 :]
    refused(header, f"damaged or cut header.*byte {second}")
    refused(whole + whole, "data after the end of the archive")
    refused(b"", "no whole tar")
    with tarfile.open(path, "w") as tar:
        for content in (png(0), png(1)):
            info = tarfile.TarInfo("0.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    refused(path.read_bytes(), r"a\.tar: sample '0' has two members 'png' \(.* byte 1536\)")


@needs_gnu_tar
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "gnu"])
def test_sparse_members_are_refused(version: str, tmp_path: Path) -> None:
    with open(tmp_path / "0.png", "wb") as stream:
        stream.write(png(0))
        stream.truncate(1 << 20)
    kind = ["--format=gnu"] if version == "gnu" else ["--format=pax", f"--sparse-version={version}"]
    subprocess.run(["tar", "--sparse", *kind, "-cf", "a.tar", "0.png"], cwd=tmp_path, check=True)
    with pytest.raises(ShardError, match=r"stored sparse: .*without --sparse"):
        scan(tmp_path / "a.tar")
