"""LSUN from its LMDB and from exported images: splits, blocks, damage, and memory at scale."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.building.build import build
from shards.building.sources.lmdb_keys import open_keys
from shards.building.sources.lsun import lsun
from shards.building.sources.lsun_database import MARK, Train, read_entries, scan
from shards.errors import ShardError
from shards.info import Skipped
from shards.reading import decode
from tests.shards.building.sources.blocks import outcomes, samples

ENTRIES = 2 * MARK + 88


def fill(database: Path, entries: dict[bytes, bytes]) -> Path:
    """An LMDB as LSUN's: one folder with data.mdb, entries put in no order."""
    database.mkdir(parents=True)
    with lmdb.open(str(database), map_size=1 << 28) as environment:
        for key, value in entries.items():
            with environment.begin(write=True) as transaction:
                transaction.put(key, value)
    return database


def picture(i: int, size: tuple[int, int] = (9, 8)) -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP" if i % 3 else "JPEG", quality=75)
    return stream.getvalue()


def name(i: int) -> bytes:
    return hashlib.sha1(b"%d" % i).hexdigest().encode()


@cache
def images() -> dict[bytes, bytes]:
    return {name(i): picture(i) for i in range(ENTRIES)}


@pytest.fixture(scope="module")
def bedrooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bedroom_train_lmdb alone, that no test changes."""
    root = tmp_path_factory.mktemp("lsun")
    environment = lmdb.open(str(root / "bedroom_train_lmdb"), map_size=1 << 28)
    with environment, environment.begin(write=True) as transaction:
        for key, value in images().items():
            transaction.put(key, value)
    (root / "bedroom_train_lmdb" / "lock.mdb").unlink()
    return root


def test_splits_of_the_database(bedrooms: Path) -> None:
    source = lsun(bedrooms, size="8", test_images=40, seed=3)
    read = samples(source, block_size=50)
    ranked = sorted(images(), key=lambda key: hashlib.sha256(b"3/" + key).digest())
    assert list(read) == ["train", "test"]
    assert [s.key.encode() for s in read["test"]] == sorted(ranked[:40])
    assert [s.key.encode() for s in read["train"]] == sorted(ranked[40:])
    for sample in read["test"]:
        image = Image.open(io.BytesIO(images()[sample.key.encode()])).convert("RGB")
        expected = image.resize((8, 9), Image.Resampling.BILINEAR).crop((0, 0, 8, 8))
        np.testing.assert_array_equal(decode.decode(sample.members["png"]), np.asarray(expected))
    assert not (bedrooms / "bedroom_train_lmdb" / "lock.mdb").exists()
    assert lsun(bedrooms / "bedroom_train_lmdb", test_images=1).transform.size == (64, 64)


def test_original_bytes_on_request(bedrooms: Path) -> None:
    read = samples(lsun(bedrooms, storage="original", test_images=5), block_size=1000)
    assert {s.key.encode(): s.members[s.image_ext] for f in read.values() for s in f} == images()
    assert {s.image_ext for s in read["train"]} == {"webp", "jpg"}


@given(data=st.data(), test_images=st.sampled_from([0, 1, 40, ENTRIES // 2, ENTRIES - 1]))
def test_any_block_is_a_piece_of_the_split(bedrooms: Path, data: Any, test_images: int) -> None:
    train, test, _ = scan(bedrooms / "bedroom_train_lmdb", test_images, seed=0)
    assert (len(train), len(test)) == (ENTRIES - test_images, test_images)
    held_out = set(test.keys)
    for items, keys in (
        (train, [k for k in sorted(images()) if k not in held_out]),
        (test, sorted(held_out)),
    ):
        if not keys:
            continue
        start = data.draw(st.integers(0, len(keys) - 1))
        stop = data.draw(st.integers(start + 1, len(keys)))
        block = [(e.path.encode(), e.data) for e in read_entries(items.block(start, stop))]
        assert block == [(key, images()[key]) for key in keys[start:stop]]


@given(
    entries=st.integers(1, 3000),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
    shard=st.integers(1, 999),
)
def test_blocks_cover_the_train_split_once(
    entries: int, share: float, seed: int, shard: int
) -> None:
    """What each block says that it reads is compared with the definition, on places alone."""
    held = np.flatnonzero(np.random.default_rng(seed).random(entries) < share).tolist()
    marks = [b"%d" % place for place in range(0, entries, MARK)]
    train = Train(Path("x"), entries, marks, held)
    places = []
    for start in range(0, len(train), shard):
        run = train.block(start, min(start + shard, len(train)))
        first = int(run.key) + run.skip
        assert run.skip < MARK
        among = range(run.entries + len(run.held_out))
        places += [first + place for place in among if place not in run.held_out]
    assert places == [place for place in range(entries) if place not in set(held)]


def test_an_export_gives_the_same_samples(bedrooms: Path, tmp_path: Path) -> None:
    for flat in (True, False):
        root = tmp_path / ("flat" if flat else "deep")
        for key, data in images().items():
            file = root / ("" if flat else "/".join(key[:6].decode())) / f"{key.decode()}.webp"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        (root / "export.log").write_text("done", encoding="utf-8")
        source = lsun(root, size="8", test_images=40)
        (other,) = source.passed_over
        assert other.path == root.name and other.reason.endswith("1, the first is export.log")
        exported = samples(source, block_size=70)
        assert exported == samples(lsun(bedrooms, size="8", test_images=40), block_size=70)


def test_a_validation_database_beside_is_the_split_val(bedrooms: Path, tmp_path: Path) -> None:
    root = shutil.copytree(bedrooms, tmp_path / "lsun")
    alone = lsun(root, test_images=0)
    assert list(alone.splits) == ["train"]
    extra = {name(-i): picture(i) for i in range(1, 6)}
    fill(root / "bedroom_val_lmdb", extra)
    source = lsun(root / "bedroom_train_lmdb", storage="original", test_images=10)
    assert list(source.splits) == ["train", "test", "val"]
    assert [s.key.encode() for s in samples(source)["val"]] == sorted(extra)
    assert source.parameters["content"] != alone.parameters["content"]


def test_a_damaged_image_names_itself(tmp_path: Path) -> None:
    entries = {name(i): picture(i) for i in range(9)}
    first, second = sorted(entries)[2], sorted(entries)[5]
    database = fill(tmp_path / "a_train_lmdb", {**entries, first: b"", second: b"no image"})
    read = outcomes(lsun(database, test_images=0))["train"]
    skipped = [s for s in read if isinstance(s, Skipped)]
    assert [s.path.encode() for s in skipped] == [first, second]
    assert [read.index(s) for s in skipped] == [2, 5]
    for one in skipped:
        start = f"the image {one.path} in {database} is not an image that can be read ("
        assert one.reason.startswith(start)


def test_another_database_is_refused(tmp_path: Path) -> None:
    database = fill(tmp_path / "words", {b"a key.of another kind": picture(0), b"b": picture(1)})
    first, second = outcomes(lsun(database, test_images=0))["train"]
    assert isinstance(first, Skipped) and "is no database of LSUN" in first.reason
    assert not isinstance(second, Skipped)


@pytest.mark.parametrize("whole_pages", [True, False])
def test_a_database_cut_off_is_refused(bedrooms: Path, tmp_path: Path, whole_pages: bool) -> None:
    """Reading on would end the process by a bus error."""
    database = shutil.copytree(bedrooms / "bedroom_train_lmdb", tmp_path / "x_train_lmdb")
    size = (database / "data.mdb").stat().st_size
    for cut in (size // 2, size - 4096, 8192, 4096):
        os.truncate(database / "data.mdb", cut if whole_pages else cut - 1)
        with pytest.raises(ShardError, match=r"data\.mdb is (cut off at \d+ of \d+|no LMDB)"):
            lsun(database, test_images=5)


def test_damaged_pages_are_refused(bedrooms: Path, tmp_path: Path) -> None:
    database = shutil.copytree(bedrooms / "bedroom_train_lmdb", tmp_path / "x_train_lmdb")
    data = (database / "data.mdb").read_bytes()
    refused = 0
    for page in range(0, len(data), 4096):
        damaged = data[:page] + b"\xff" * 4096 + data[page + 4096 :]
        (database / "data.mdb").write_bytes(damaged)
        try:
            lsun(database, test_images=5)
        except ShardError as error:
            assert "damaged" in str(error) or "is no LMDB" in str(error)
            refused += 1
    with lmdb.open(str(bedrooms / "bedroom_train_lmdb"), readonly=True, lock=False) as environment:
        stat = environment.stat()
    assert refused == 2 + stat["branch_pages"] + stat["leaf_pages"]  # the rest holds no keys


def test_a_database_that_changes_is_noticed(tmp_path: Path) -> None:
    database = fill(tmp_path / "x_train_lmdb", {name(i): picture(i) for i in range(20)})
    train, test, _ = scan(database, 5, seed=0)
    run, picked = train.block(0, 15), test.block(0, 5)
    with lmdb.open(str(database)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(test.keys[0])
        transaction.delete(sorted(name(i) for i in range(20))[-1])
    for block in (run, picked, run._replace(key=b"gone")):
        with pytest.raises(ShardError, match="has changed since its keys were read"):
            list(read_entries(block))


def test_wrong_layouts(bedrooms: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="lsun needs the path of LSUN's database"):
        lsun(None)
    with pytest.raises(ShardError, match=r"nothing is no folder: give the path of LSUN's data"):
        lsun(tmp_path / "nothing")
    with pytest.raises(ShardError, match="holds no images: give the path of LSUN's database"):
        lsun(tmp_path)
    zipped = tmp_path / "bedroom_train_lmdb.zip"
    zipped.write_bytes(b"PK")
    for path in (zipped, tmp_path):
        with pytest.raises(ShardError, match=r"bedroom_train_lmdb\.zip must be unzipped first"):
            lsun(path)
    with pytest.raises(ShardError, match=rf"choose test_images from 0 to {ENTRIES - 1}$"):
        lsun(bedrooms)
    for category in ("bedroom", "church_outdoor"):
        fill(tmp_path / "two" / f"{category}_train_lmdb", {b"a": b"b"})
    with pytest.raises(ShardError, match="holds bedroom_train_lmdb, church_outdoor_train_lmdb: "):
        lsun(tmp_path / "two")
    for folder in ("a", "b"):
        (tmp_path / "twice" / folder).mkdir(parents=True)
        (tmp_path / "twice" / folder / "1.jpg").touch()
    with pytest.raises(ShardError, match=r"holds a/1\.jpg and b/1\.jpg"):
        lsun(tmp_path / "twice")


changes = st.lists(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=40) | st.binary(min_size=400, max_size=511),
            st.none() | st.sampled_from([0, 10, 500, 1900, 2100, 9000]),
        ),
        max_size=60,
    ),
    max_size=6,
)


@given(changes=changes)
def test_keys_are_those_that_lmdb_gives(changes: list, tmp_path_factory: Any) -> None:
    """They are so after any transactions of additions, changes and (None) removals."""
    folder = tmp_path_factory.mktemp("lmdb")
    with lmdb.open(str(folder), map_size=1 << 26, sync=False) as environment:
        for transaction in changes:
            with environment.begin(write=True) as writing:
                for key, size in transaction:
                    if size is None:
                        writing.delete(key)
                    else:
                        writing.put(key, bytes(size))
        with environment.begin() as reading:
            expected = list(reading.cursor().iternext(values=False))
        with open_keys(folder / "data.mdb") as (entries, keys):
            assert list(keys) == expected
            assert entries == len(expected)
    shutil.rmtree(folder)


def test_what_is_no_database_of_plain_entries(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>" * 5000)
    (tmp_path / "empty").touch()
    for file in (tmp_path / "page", tmp_path / "empty"):
        with pytest.raises(ShardError, match="is no LMDB database"), open_keys(file):
            pass
    with (
        pytest.raises(ShardError, match="cannot be opened: No such file"),
        open_keys(tmp_path / "x"),
    ):
        pass


def test_sets_of_any_number_of_processes_are_the_same(bedrooms: Path, tmp_path: Path) -> None:
    def content(processes: int) -> dict[str, bytes]:
        out = tmp_path / str(processes) / "bedrooms"
        options = {"size": "16", "test_images": 40}
        shards = build(
            "lsun", out, path=bedrooms, options=options, shard_size=99, processes=processes
        )
        assert shards.info.counts == {"train": ENTRIES - 40, "test": 40}
        return {file.name: file.read_bytes() for file in out.iterdir()}

    assert content(1) == content(2)


MEASURE = """
import resource, sys
from pathlib import Path
from shards.building.sources.lsun_database import read_entries, scan
def peak(database):
    train, _, _ = scan(Path(database), 1000, seed=0)
    for start in range(0, len(train), 1000):
        block = train.block(start, min(start + 1000, len(train)))
        assert sum(len(e.data) for e in read_entries(block)) == 8 * (min(len(train) - start, 1000))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = peak(sys.argv[1])
print(peak(sys.argv[2]) - small)
"""


def test_memory_does_not_grow_with_the_database(tmp_path: Path) -> None:
    databases = []
    for entries in (20_000, 100_000):
        databases.append(tmp_path / str(entries))
        keys = sorted(name(i) for i in range(entries))
        with lmdb.open(str(databases[-1]), map_size=1 << 30, sync=False) as environment:
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti([(k, k[:8]) for k in keys], append=True)
    grown = subprocess.check_output(
        [sys.executable, "-c", MEASURE, *map(str, databases)], cwd=Path(__file__).parents[3]
    )
    assert int(grown) < 2048  # kB: 300 more marks, and noise; the keys alone are 4 MB
