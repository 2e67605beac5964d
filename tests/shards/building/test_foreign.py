"""Indexing tars that others wrote, local or remote: nothing is copied, nothing is changed."""

from __future__ import annotations

import gzip
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import xxhash
from PIL import Image

from gencomp.cli import main
from shards.building.foreign import index_tars
from shards.checking.verify import verify
from shards.errors import ShardError
from shards.info import DatasetInfo
from shards.reading.order import EpochOrder
from shards.reading.reader import open_set
from shards.reading.stream import training_batches
from tests.shards.foreign_tars import encoded, grey, palette, png, write_tar
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
    refused(r"hold no sample with an image: a\.tar: members of no image: 1, the first is 0\.txt")
    write_tar(path, {"0.png": b"hello"})
    refused("key '0', byte 512: png cannot be read as an image")
    write_tar(path, {"no_extension": b""})
    refused("hold no sample with an image$")


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


def damaged(i: int) -> bytes:
    """A picture whose header is good and whose pixels are cut off."""
    noise = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise))[:2000]


def image_as(form: str, i: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 5), (i, 0, 0)).save(stream, form)
    return stream.getvalue()


def animation() -> bytes:
    first, second = (Image.new("RGB", (6, 5), (i, 0, 0)) for i in (1, 200))
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=[second])
    return stream.getvalue()


# What stands in a tar between the samples 0 and 2, and what becomes of it.
PASSED_OVER: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "README": ({"README.md": b"hello"}, ["members of no image: 1, the first is README.md at"]),
    "two of them": (
        {"README.md": b"1", "dataset_info.json": b"2"},
        ["members of no image: 2, the first is README.md at"],
    ),
    "a README twice": (
        {"README.md": b"1", "README.MD": b"2"},
        ["members of no image: 2, the first is README.md at"],
    ),
    "a caption": ({"1.txt": b"hello"}, ["members of no image: 1, the first is 1.txt at"]),
    "a caption apart": (
        {"2.txt": b"hello", "1.json": b"{}"},
        [
            "members not beside the image of the same key: 1, the first is 2.txt at",
            "members of no image: 1, the first is 1.json at",
        ],
    ),
    "macOS": ({"._1.png": b"x", "a/._1.png": b"x", ".DS_Store": b"x", "a/.DS_Store": b"x"}, []),
    "Windows": ({"Thumbs.db": b"x"}, ["members of no image: 1, the first is Thumbs.db at"]),
    "names that WebDataset skips": ({"LICENSE": b"x", "__meta__/a.json": b"x"}, []),
}


def indexed_after(tar: Path, between: dict[str, bytes], **options: Any) -> DatasetInfo:
    tar.parent.mkdir()
    write_tar(tar, {"0.png": png(0), "0.cls": b"7", **between, "2.png": png(2), "2.cls": b"9"})
    before = tar.read_bytes()
    try:
        return index_tars(tar.parent, **options)
    finally:
        assert tar.read_bytes() == before


@pytest.mark.parametrize("kind", PASSED_OVER)
def test_members_that_belong_to_no_image_are_passed_over(kind: str, tmp_path: Path) -> None:
    between, reasons = PASSED_OVER[kind]
    info = indexed_after(tmp_path / "tars" / "a.tar", between)
    assert reds(tmp_path / "tars") == [0, 2]
    split = open_set(tmp_path / "tars").split("train")
    assert [split.label(row) for row in range(2)] == [7, 9]
    assert [one.path for one in info.skipped] == ["a.tar"] * len(reasons)
    for one, reason in zip(info.skipped, reasons, strict=True):
        assert one.reason.startswith(reason)
    assert verify(tmp_path / "tars").ok


UNREADABLE: dict[str, tuple[dict[str, bytes], str]] = {
    "empty": ({"1.png": b""}, "png cannot be read as an image"),
    "a web page": ({"1.jpg": b"<html>404</html>", "1.txt": b"x"}, "jpg cannot be read"),
    "an unknown format": ({"1.avif": b"x", "1.txt": b"x"}, r"no image .*\(it has avif, txt\)"),
    "an animation": ({"1.gif": animation()}, "gif cannot be .*: it holds several pages or frames"),
    "an extension twice": (
        {"1.png": png(1), "1.PNG": png(1)},
        r"the sample has two members 'png' \(the second at byte",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_sample_that_cannot_be_read_ends_the_work_or_is_left_out(
    kind: str, tmp_path: Path
) -> None:
    between, said = UNREADABLE[kind]
    with pytest.raises(ShardError, match=rf"key '1', byte \d+: .*{said}.*--on-error skip"):
        indexed_after(tmp_path / "stop" / "a.tar", between)
    assert os.listdir(tmp_path / "stop") == ["a.tar"]
    info = indexed_after(tmp_path / "skip" / "a.tar", between, on_error="skip")
    assert info.parameters == {"split": None, "on_error": "skip"}
    (skipped,) = info.skipped
    assert re.fullmatch(r"a\.tar, key '1', byte \d+", skipped.path)
    assert re.search(said, skipped.reason)
    assert info.counts == {"train": 2} and reds(tmp_path / "skip") == [0, 2]
    assert verify(tmp_path / "skip").ok


@pytest.mark.parametrize("decode", [False, True])
def test_pixels_are_checked_where_that_is_asked_for(decode: bool, tmp_path: Path) -> None:
    cut_map = damaged(5)[:25] + b"\0" + damaged(5)[26:]  # its header says grey
    for number, between in enumerate(
        ({"1.png": damaged(1)}, {"1.png": png(1), "1.a.png": cut_map})
    ):
        out = tmp_path / f"tars{number}"
        info = indexed_after(out / "a.tar", between, on_error="skip", check_pixels=decode)
        assert info.counts == {"train": 2 if decode else 3}
        assert [one.path[:14] for one in info.skipped] == ["a.tar, key '1'"] * decode
        assert verify(out).ok == (decode or number == 1)
    with pytest.raises(ShardError, match=r"key '1', byte \d+: png cannot be read.*--on-error skip"):
        indexed_after(tmp_path / "stop" / "a.tar", {"1.png": damaged(1)}, check_pixels=True)


def test_the_largest_number_of_pixels_is_ours(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"png: its 6x5 pixels exceed the limit of 29 .*--max-pix"):
        indexed_after(tmp_path / "stop" / "a.tar", {"1.png": png(1)}, max_pixels=29)
    info = indexed_after(tmp_path / "take" / "a.tar", {"1.png": png(1)}, max_pixels=30)
    assert info.counts == {"train": 3} and info.parameters["max_pixels"] == 30
    assert verify(tmp_path / "take").ok and reds(tmp_path / "take") == [0, 1, 2]
    with pytest.raises(ShardError, match="the limit of 0 pixels must be at least 1"):
        indexed_after(tmp_path / "none" / "a.tar", {"1.png": png(1)}, max_pixels=0)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPE", "gif", "dib", "pbm", "mpo", "v2.jfif"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP"])
def test_rare_endings_are_taken_by_their_content(ending: str, form: str, tmp_path: Path) -> None:
    info = indexed_after(tmp_path / "tars" / "a.tar", {f"1.{ending}": image_as(form, 100)})
    assert info.counts == {"train": 3} and not info.skipped
    assert reds(tmp_path / "tars")[1] == pytest.approx(100, abs=3)


def test_a_usual_ending_comes_before_a_rare_one(tmp_path: Path) -> None:
    indexed_after(tmp_path / "tars" / "a.tar", {"1.gif": image_as("GIF", 9), "1.png": png(1)})
    assert reds(tmp_path / "tars") == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"Gr\xfcn/1.png", "Grün/1"),
        ("Grün/1.png".encode(), "Grün/1"),
        (rb"x.y\1.png", r"x.y\1"),
        (rb".\1.png", r".\1"),
        (rb"a\b\1.seg.png", r"a\b\1"),
    ],
)
def test_names_of_other_systems(name: bytes, key: str, tmp_path: Path) -> None:
    """A key goes up to the first dot of the last component; a name may be Latin-1."""
    indexed_after(tmp_path / "tars" / "a.tar", {os.fsdecode(name): png(1)})
    split = open_set(tmp_path / "tars").split("train")
    assert [split.key(row) for row in range(3)] == ["0", key, "2"]
    assert verify(tmp_path / "tars").ok


def test_hidden_tars_are_none(three: Path) -> None:
    (three / "._data-00.tar").write_bytes(b"what macOS writes beside a file")
    assert index_tars(three).counts == {"train": 6}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sample_that_is_left_out_leaves_order_and_resume_exact(
    processes: int, tmp_path: Path
) -> None:
    """The rows are those of tars that never had the sample."""
    for number in range(3):
        members = {f"{number}{i}.png": png(10 * number + i) for i in range(8)}
        bad = {f"{number}5.png": damaged(1), f"{number}7.png": b"", "README.md": b"x"}
        for place in ("good", "bad"):
            (tmp_path / place).mkdir(exist_ok=True)
            tar = tmp_path / place / f"{number}.tar"
            kept = {name: data for name, data in members.items() if name not in bad}
            write_tar(tar, kept if place == "good" else members | bad)
    index_tars(tmp_path / "good")
    info = index_tars(tmp_path / "bad", processes=processes, on_error="skip", check_pixels=True)
    assert info.counts == {"train": 18} and len(info.skipped) == 9
    assert verify(tmp_path / "bad").ok
    assert reds(tmp_path / "bad") == reds(tmp_path / "good")
    split = open_set(tmp_path / "bad").split("train")
    assert split.shard_lengths.tolist() == [6, 6, 6]
    order = EpochOrder(split.key_hash, 3, len(split))

    def stream(start: int, batches: int) -> list[list[int]]:
        read = training_batches(split, order, 4, 0, 1, start, threads=2)
        found = [next(read).images[:, 0, 0, 0].tolist() for _ in range(batches)]
        read.close()
        return found

    whole = stream(0, 12)
    assert sorted([red for batch in whole for red in batch][:18]) == sorted(reds(tmp_path / "good"))
    assert stream(5 * 4, 7) == whole[5:]


@pytest.mark.parametrize("part", [False, True])
def test_training_on_a_damaged_picture_offers_the_mend(
    part: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = tmp_path / "my tars"
    indexed_after(tars / "a.tar", {"1.png": damaged(1)}, split="odd")
    write_tar(tars / "b.tar", {"3.png": png(3)})
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    index_tars(tars / "a.tar" if part else tars, tmp_path / "set", "odd")
    split = open_set(tmp_path / "set").split("odd")
    order = EpochOrder(split.key_hash, 0, len(split))
    with pytest.raises(ShardError) as raised:
        list(training_batches(split, order, 1, 0, 1, 0, threads=2))
    said = str(raised.value)
    assert re.search(r"a\.tar, key '1', byte \d+: the sample has an image that cannot be", said)
    (command,) = re.findall(r"`gencomp (.*)`", said)
    assert command.endswith("--split odd --on-error skip --decode")
    assert main(shlex.split(command)) in (0, None)
    assert "skipped a.tar, key '1'" in capsys.readouterr().out
    assert reds(f"{tmp_path / 'set'}-readable", "odd") == [0, 2, *([] if part else [3])]
