"""`verify` names every kind of damage with shard, key and byte, and finds nothing where is none."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from shards import open_set
from shards.building.build import build
from shards.checking.verify import Findings, verify
from shards.checking.verify_shard import MOST_KEPT
from shards.errors import ShardError
from shards.index import SCHEMA, IndexWriter, by_shard, shard_digest
from tests.shards.handmade import make_set, noise, sample
from tests.shards.object_server import LOCAL, FolderServer


def problems(path: str | Path) -> list[str]:
    return [str(problem) for problem in verify(path).problems]


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def edit_info(directory: Path, **changes: Any) -> None:
    path = directory / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_index(directory: Path, table: pa.Table) -> None:
    """Put another index there, with a dataset.json that names it."""
    writer = IndexWriter(directory / "index.parquet")
    for part in by_shard(table):
        writer.add(part, shard_digest(part))
    index_hash, bytes_hash = writer.close()
    edit_info(directory, index_hash=index_hash, index_bytes_hash=bytes_hash)


def index_of(directory: Path) -> pa.Table:
    return pq.read_table(directory / "index.parquet").cast(SCHEMA)


HASH = "its bytes are not those that dataset.json names (the hash differs)"


class TestWhole:
    def test_a_whole_set(self, built: Path) -> None:
        seen: list[tuple[str, int, int]] = []
        report = verify(built, progress=lambda *state: seen.append(state))
        samples = sum(open_set(built).splits.values())
        assert report.ok and report.problems == report.notes == []
        assert report.samples == samples and report.shards == len(list(built.glob("*.tar")))
        assert report.bytes == sum(p.stat().st_size for p in built.glob("*.tar"))
        assert seen[-1] == ("samples", samples, samples)
        assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)

    def test_processes_find_the_same(self, photo_set: Path) -> None:
        flip(photo_set / "train-000001.tar", 700)
        (photo_set / "test-000001.tar").unlink()
        assert verify(photo_set, processes=2) == verify(photo_set, processes=1)

    def test_a_remote_set(self, photo_set: Path) -> None:
        with FolderServer(photo_set) as server:
            uri = f"http://{LOCAL}:{server.port}"
            whole = verify(uri)
            assert whole.ok and whole.samples == verify(photo_set).samples
            flip(photo_set / "train-000001.tar", 700)
            (photo_set / "test-000001.tar").unlink()
            assert problems(uri) == problems(photo_set)

    def test_tars_elsewhere(self, photo_set: Path, tmp_path: Path) -> None:
        """The index names by `location` its tars, which are far from it."""
        (tmp_path / "index").mkdir()
        for name in ("index.parquet", "dataset.json"):
            shutil.move(photo_set / name, tmp_path / "index" / name)
        edit_info(tmp_path / "index", location=str(photo_set))
        assert verify(tmp_path / "index").ok
        (photo_set / "test-000000.tar").unlink()
        assert problems(tmp_path / "index") == ["test-000000.tar: the shard is missing"]

    def test_the_layout_of_the_index_does_not_matter(
        self, photo_set: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Shards straddle row groups, and the batches in which the index passes through."""
        monkeypatch.setattr("shards.checking.whole_set._BATCH_ROWS", 7)
        path = photo_set / "index.parquet"
        pq.write_table(index_of(photo_set), path, row_group_size=9)
        edit_info(photo_set, index_bytes_hash=xxhash.xxh3_128_hexdigest(path.read_bytes()))
        report = verify(photo_set)
        assert report.ok and report.samples == sum(open_set(photo_set).splits.values())

    def test_no_room_for_a_remote_set(
        self, photo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "file"))
        with FolderServer(photo_set) as server:
            (found,) = problems(f"http://{LOCAL}:{server.port}")
        assert "cannot be copied" in found and "GENCOMP_CACHE" in found

    @pytest.mark.parametrize("processes", [0, -1])
    def test_no_process(self, built: Path, processes: int) -> None:
        with pytest.raises(ShardError, match="at least 1"):
            verify(built, processes=processes)

    def test_no_set(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match="no shard set"):
            verify(tmp_path / "nothing")


class TestDamagedTars:
    def test_flip_in_an_image(self, photo_set: Path) -> None:
        shard, key, offset = open_set(photo_set).split("test").place(3)
        flip(photo_set / shard, offset + 50)
        place = f"{shard}, key {key!r}, byte {offset}: "
        found = problems(photo_set)
        assert found[:2] == [f"{shard}: {HASH}", f"{place}its image has changed (the hash differs)"]
        assert all(problem.startswith(place) for problem in found[1:])

    def test_flip_in_another_member(self, tmp_path: Path) -> None:
        made = make_set(tmp_path / "set", {"train": [sample("a", noise(0), label=3)]})
        (member,) = (m for m in index_of(made.path)["members"][0].as_py() if m["name"] == "cls")
        flip(made.path / "train-000000.tar", member["offset"])
        begin = index_of(made.path)["offset"][0].as_py()
        place = f"train-000000.tar, key 'a', byte {begin}: "
        assert problems(made.path) == [
            f"train-000000.tar: {HASH}",
            f"{place}its bytes have changed (the check sum differs), though not its image",
            f"{place}its label is 2, the index says 3",
        ]

    def test_flip_in_a_header(self, photo_set: Path) -> None:
        shard, _, offset = open_set(photo_set).split("train").place(4)
        flip(photo_set / shard, offset - 512)
        first, second = problems(photo_set)
        assert first == f"{shard}: {HASH}"
        assert re.match(f"{shard}: a damaged or cut header.*byte {offset - 512}$", second)

    def test_flip_between_members(self, photo_set: Path) -> None:
        """Only the shard's own hash can see it in the padding after a sample."""
        shard, _, offset = open_set(photo_set).split("train").place(4)
        flip(photo_set / shard, offset - 513)
        assert problems(photo_set) == [f"{shard}: {HASH}"]

    def test_truncation(self, photo_set: Path) -> None:
        split = open_set(photo_set).split("train")
        shard, key, offset = split.place(18)
        size = (photo_set / shard).stat().st_size
        os.truncate(photo_set / shard, offset + 5)
        found = problems(photo_set)
        assert found[0] == f"{shard}: the shard has {offset + 5} bytes, not {size}"
        assert found[1].startswith(f"{shard}, key {key!r}, byte {offset}: png is cut short: 5 of ")
        later = [split.place(row) for row in range(19, len(split))]
        lost = [(key, offset) for name, key, offset in later if name == shard]
        for (key, offset), problem in zip(lost, found[2:-1], strict=True):
            start = f"{shard}, key {key!r}, byte {offset}: png is cut short: 0 of "
            assert problem.startswith(start)
        assert re.match(f"{shard}: is (truncated|no whole tar)", found[-1])

    def test_appended_bytes(self, photo_set: Path) -> None:
        shard = photo_set / "test-000000.tar"
        size = shard.stat().st_size
        with shard.open("ab") as stream:
            stream.write(b"more")
        first, second = problems(photo_set)
        assert first == f"test-000000.tar: the shard has {size + 4} bytes, not {size}"
        assert "data after the end of the archive" in second

    def test_missing_and_swapped_shards(self, photo_set: Path) -> None:
        a, b = photo_set / "train-000000.tar", photo_set / "train-000001.tar"
        a.rename(photo_set / "x")
        b.rename(a)
        (photo_set / "x").rename(b)
        (photo_set / "test-000000.tar").unlink()
        found = problems(photo_set)
        assert "test-000000.tar: the shard is missing" in found
        assert any(p.endswith("the tar does not hold this sample's members where the index says")
                   for p in found)  # fmt: skip
        assert any(p.endswith("the index does not list this sample") for p in found)

    def test_a_shard_that_cannot_be_read(self, photo_set: Path) -> None:
        shard = photo_set / "train-000000.tar"
        shard.unlink()
        shard.mkdir()
        (found,) = problems(photo_set)
        assert found.startswith("train-000000.tar: ") and "Is a directory" in found

    def test_an_image_that_does_not_decode(self, tmp_path: Path) -> None:
        """The bytes are those of the index, yet they are no image."""
        bad = sample("bad", noise(1))
        bad.members["png"] = bad.members["png"][:60]
        wide = sample("wide", noise(2))._replace(width=30)
        made = make_set(tmp_path / "set", {"train": [sample("good", noise(0)), bad, wide]})
        split = made.split("train")
        at_bad, at_wide = split.place(1)[2], split.place(2)[2]
        first, second = problems(made.path)
        start = f"train-000000.tar, key 'bad', byte {at_bad}: the image cannot be decoded: "
        assert first.startswith(start)
        assert second == (
            f"train-000000.tar, key 'wide', byte {at_wide}: the image is 9x6, the index says 30x6"
        )

    def test_maps(self, tmp_path: Path) -> None:
        grey = np.zeros((6, 9), dtype=np.uint8)
        samples = [
            sample("a", noise(0), maps={"label": grey}),
            sample("b", noise(1), maps={"label": grey[:5]}),
            sample("c", noise(2), maps={"label": noise(3)}),
            sample("d", noise(4)),
        ]
        made = make_set(tmp_path / "set", {"train": samples})
        assert made.info.maps == ["label.png"]
        found = problems(made.path)
        assert [re.sub(r", byte \d+", "", problem) for problem in found] == [
            "train-000000.tar, key 'b': label.png is 9x5, the image 9x6",
            "train-000000.tar, key 'c': label.png cannot be decoded: its mode is RGB, and "
            "a map of ids has one channel of 8 or 16 bits",
            "train-000000.tar, key 'd': it has no label.png, which dataset.json lists as a map "
            "of every sample",
        ]
        members = index_of(made.path)["members"][1].as_py()
        offset = next(m["offset"] for m in members if m["name"] == "label.png")
        assert f"byte {offset}: label.png is 9x5" in found[0]

    def test_many_problems_are_counted_and_some_kept(self, tmp_path: Path) -> None:
        samples = [sample(f"{i}", noise(i, 1, 1))._replace(width=2) for i in range(MOST_KEPT + 20)]
        made = make_set(tmp_path / "set", {"train": samples}, shard_size=400)
        report = verify(made.path)
        assert report.found == MOST_KEPT + 20 and len(report.problems) == MOST_KEPT


class TestDescription:
    def test_an_index_of_another_set(self, photo_set: Path, tmp_path: Path) -> None:
        other = make_set(tmp_path / "other", {"train": [sample("a", noise(0))]})
        shutil.copy(other.path / "index.parquet", photo_set)
        (found,) = problems(photo_set)
        assert re.match("index.parquet: .*is damaged or of another set", found)

    @pytest.mark.parametrize("content", [b"", b"PAR1"])
    def test_a_damaged_index(self, photo_set: Path, content: bytes) -> None:
        (photo_set / "index.parquet").write_bytes(content)
        (found,) = problems(photo_set)
        assert re.match("index.parquet: .*is damaged or of another set", found)

    def test_no_index(self, photo_set: Path) -> None:
        (photo_set / "index.parquet").unlink()
        (found,) = problems(photo_set)
        assert found.startswith("index.parquet: there is no ")

    def test_other_columns(self, photo_set: Path) -> None:
        path = photo_set / "index.parquet"
        pq.write_table(pa.table({"a": [1]}), path)
        edit_info(photo_set, index_bytes_hash=xxhash.xxh3_128_hexdigest(path.read_bytes()))
        (found,) = problems(photo_set)
        assert "has other columns" in found

    def test_an_index_whose_content_is_not_the_named_one(self, photo_set: Path) -> None:
        edit_info(photo_set, index_hash="a" * 64)
        assert problems(photo_set) == [
            "index.parquet: its content is not the one that dataset.json names"
        ]

    def test_counts(self, photo_set: Path) -> None:
        splits = json.loads((photo_set / "dataset.json").read_text())["splits"]
        splits["train"]["samples"] += 1
        splits["test"]["shards"][0]["samples"] -= 1
        splits["test"]["samples"] -= 1
        edit_info(photo_set, splits=splits)
        train, test = splits["train"]["samples"], splits["test"]["shards"][0]["samples"]
        assert problems(photo_set) == [
            f"dataset.json: split 'train' has {train} samples, its shards have {train - 1}",
            f"index.parquet: split 'test', shard test-000000.tar: it has {test + 1} rows, "
            f"dataset.json says {test} samples",
        ]

    def test_shards_that_one_of_the_two_does_not_list(self, photo_set: Path) -> None:
        splits = json.loads((photo_set / "dataset.json").read_text())["splits"]
        shards = splits["test"]["shards"]
        splits["test"]["samples"] -= shards[0]["samples"]
        shards[0] = {**shards[0], "name": "more.tar", "samples": 0}
        shutil.copy(photo_set / "test-000000.tar", photo_set / "more.tar")
        edit_info(photo_set, splits=splits)
        found = problems(photo_set)
        assert found[0].startswith("more.tar, key ")
        assert found[0].endswith("the index does not list this sample")
        line = "index.parquet: split 'test', shard test-000000.tar: dataset.json lacks it"
        assert found[-1] == line

    def test_a_shard_in_two_splits(self, photo_set: Path) -> None:
        splits = json.loads((photo_set / "dataset.json").read_text())["splits"]
        splits["more"] = splits["test"]
        edit_info(photo_set, splits=splits)
        found = problems(photo_set)
        assert "dataset.json: it lists the shard test-000000.tar twice" in found
        assert "index.parquet: split 'more', shard test-000000.tar: it has no rows" in found

    def test_order_of_the_shards(self, photo_set: Path) -> None:
        table = index_of(photo_set)
        parts = list(by_shard(table))
        rewrite_index(photo_set, pa.concat_tables([parts[1], parts[0], *parts[2:]]))
        name = parts[0]["shard"][0].as_py()
        assert problems(photo_set) == [
            f"index.parquet: split 'train', shard {name}: it stands in another place than in "
            "dataset.json"
        ]

    def test_rows_that_do_not_stand_together(self, photo_set: Path) -> None:
        table = index_of(photo_set)
        parts = list(by_shard(table))
        mixed = [parts[0].slice(0, 5), parts[1], parts[0].slice(5), *parts[2:]]
        rewrite_index(photo_set, pa.concat_tables(mixed))
        found = problems(photo_set)
        name = parts[0]["shard"][0].as_py()
        line = f"index.parquet: split 'train', shard {name}: its rows do not stand together"
        assert line in found

    def test_a_row_that_contradicts_itself(self, photo_set: Path) -> None:
        table = index_of(photo_set)
        offsets = table["image_offset"].to_numpy().copy()
        offsets[3] += 1
        place = table.schema.get_field_index("image_offset")
        rewrite_index(photo_set, table.set_column(place, table.schema.field(place), [offsets]))
        (found,) = problems(photo_set)
        assert found.endswith("contradicts itself: the members are not in its span")


class TestDuplicates:
    @pytest.fixture
    def report(self, tmp_path: Path) -> Findings:
        made = make_set(
            tmp_path / "set",
            {
                "train": [sample("a", noise(1)), sample("b", noise(2)), sample("c", noise(2))],
                "test": [sample("d", noise(2)), sample("e", noise(5)), sample("f", noise(1))],
                "val": [sample("g", noise(2)), sample("h", noise(6))],
            },
        )
        return verify(made.path)

    def test_across_splits(self, report: Findings) -> None:
        assert [re.sub(r"byte \d+", "byte", str(problem)) for problem in report.problems] == [
            "test-000000.tar, key 'f', byte: the same image is in split 'test', and in split "
            "'train' as 'a' (train-000000.tar, byte)",
            "test-000000.tar, key 'd', byte: the same image is in split 'test', and in split "
            "'train' as 'c' (train-000000.tar, byte)",
            "val-000000.tar, key 'g', byte: the same image is in split 'val', and in split "
            "'test' as 'd' (test-000000.tar, byte)",
        ]

    def test_within_a_split_is_a_note(self, report: Findings) -> None:
        assert report.notes == ["split 'train', repeated images: 1, such as 'c' that of 'b'"]

    def test_only_a_note(self, tmp_path: Path) -> None:
        samples = [sample(f"k{i}", noise(i // 5)) for i in range(10)]
        report = verify(make_set(tmp_path / "set", {"train": samples}).path)
        assert report.ok
        assert report.notes == [
            "split 'train', repeated images: 8, such as 'k1' that of 'k0', 'k2' that of 'k1', 'k3' "
            "that of 'k2'"
        ]

    def test_the_same_picture_with_another_label(self, tmp_path: Path) -> None:
        """What is compared is the image, not the rest of the sample."""
        made = make_set(
            tmp_path / "set",
            {"train": [sample("a", noise(1), label=1)], "test": [sample("b", noise(1), label=2)]},
        )
        assert verify(made.path).found == 1


def test_a_set_that_a_source_built(images: Path, tmp_path: Path) -> None:
    made = build("folder", tmp_path / "set", path=images, shard_size=5)
    assert problems(made.path) == []
