"""Whole shard sets read from servers, with and without faults, are those on disk."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from shards.errors import ShardError
from shards.info import read_info, write_info
from shards.reading.reader import Split, open_set
from shards.remote.cache import NoRoom
from tests.shards.object_server import Fault, FolderServer, Proxy, new_bucket
from tests.waiting import PATIENCE, wait_for

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3_credentials: None) -> None:
    monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bucket(built: Path) -> str:
    """The built set under `sets/photos` in a bucket that anybody may read."""
    return upload(built)


def upload(directory: Path, prefix: str = "sets/photos") -> str:
    objects = {f"{prefix}/{p.name}": p.read_bytes() for p in directory.iterdir()}
    return new_bucket(objects, public=True)


def assert_same(ours: Split, theirs: Split) -> None:
    assert len(ours) == len(theirs) > 50
    assert (ours.index_hash, ours.key_hash) == (theirs.index_hash, theirs.key_hash)
    for row in range(len(theirs)):
        a, b = ours.read(row), theirs.read(row)
        assert (a.key, a.label, a.row) == (b.key, b.label, b.row)
        assert np.array_equal(a.image, b.image)


class TestEquality:
    @pytest.mark.parametrize("scheme", ["s3", "http"])
    def test_from_an_object_store(
        self, scheme: str, bucket: str, built: Path, proxy: Proxy
    ) -> None:
        path = f"{bucket}/sets/photos"
        there = open_set(proxy.s3(path) if scheme == "s3" else proxy.http(path))
        here = open_set(built)
        assert there.splits == here.splits
        for name in here.splits:
            assert_same(there.split(name), here.split(name))
        gets = [r.path.partition("?")[0] for r in proxy.requests if r.method == "GET"]
        shards = [path for path in gets if path.endswith(".tar")]
        assert len(shards) == len(set(shards)) == 8  # every shard once

    def test_from_a_plain_file_server(self, built: Path) -> None:
        with FolderServer(built) as server:
            there = open_set(f"http://127.0.0.1:{server.port}/")
            assert_same(there.split("test"), open_set(built).split("test"))

    def test_from_a_file_uri(self, built: Path, tmp_path: Path) -> None:
        assert_same(open_set(f"file://{built}").split("test"), open_set(built).split("test"))
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["indexes"]  # no copies

    def test_an_index_here_of_tars_there(
        self, bucket: str, built: Path, proxy: Proxy, tmp_path: Path
    ) -> None:
        index = tmp_path / "index"
        index.mkdir()
        shutil.copy(built / "index.parquet", index)
        location = proxy.s3(f"{bucket}/sets/photos")
        write_info(read_info(built).model_copy(update={"location": location}), index)
        assert_same(open_set(index).split("test"), open_set(built).split("test"))

    def test_through_every_fault(self, bucket: str, built: Path, proxy: Proxy) -> None:
        """Errors, cuts, short answers and wrong bytes, in the index and in the shards."""
        proxy.faults = [
            Fault("dataset.json", status=503, method="HEAD"),
            Fault("index.parquet", keep=2000, then="cut"),
            Fault("test-000000.tar", status=500),
            Fault("test-000001.tar", flip=20_000),
            Fault("test-000002.tar", keep=10_000, then="short"),
            Fault("test-000003.tar", delay=0.3),
        ]
        there = open_set(proxy.s3(f"{bucket}/sets/photos"))
        assert_same(there.split("test"), open_set(built).split("test"))
        assert not any(fault.times for fault in proxy.faults)


class TestSharing:
    def test_one_download_for_all_processes(self, bucket: str, built: Path, proxy: Proxy) -> None:
        """A forked child, a pickled copy in a new process and this one read the same split."""
        there, here = open_set(proxy.s3(f"{bucket}/sets/photos")).split("test"), open_set(built)
        copies = pickle.dumps(there), pickle.dumps(here.split("test"))
        spawn = multiprocessing.get_context("spawn")
        children = [
            FORK.Process(target=assert_same, args=(there, here.split("test"))),
            FORK.Process(target=assert_same, args=(there, here.split("test"))),
            spawn.Process(target=_assert_same_pickled, args=copies),
        ]
        for child in children:
            child.start()
        assert_same(there, here.split("test"))
        for child in children:
            child.join(PATIENCE)
        assert [child.exitcode for child in children] == [0, 0, 0]
        shards = [r.path for r in proxy.gets("test-0")]
        assert len(shards) == len(set(shards)) == 4

    def test_rows_fetched_ahead(self, bucket: str, built: Path, proxy: Proxy) -> None:
        there = open_set(proxy.s3(f"{bucket}/sets/photos")).split("test")
        cache = Path(os.environ["GENCOMP_CACHE"]) / "shards"
        there.fetch_soon(np.arange(len(there)))
        assert wait_for(lambda: len(list(cache.glob("?" * 32))) == 4)
        proxy.faults = [Fault("", times=999, status=500)]
        assert_same(there, open_set(built).split("test"))

    def test_a_cache_smaller_than_the_set(
        self, bucket: str, built: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two of four shards fit: rows in any order are read, and the bytes stay below."""
        shards = read_info(built).splits["test"].shards
        limit = sum(sorted(shard.bytes for shard in shards)[-2:])
        monkeypatch.setenv("GENCOMP_CACHE_GB", repr(limit / 1e9))
        cache = Path(os.environ["GENCOMP_CACHE"]) / "shards"
        there = open_set(proxy.s3(f"{bucket}/sets/photos")).split("test")
        here = open_set(built).split("test")
        largest = 0
        for row in np.random.default_rng(0).permutation(len(here))[:40].tolist():
            assert np.array_equal(there.image(row), here.image(row))
            largest = max(largest, sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()))
        assert 0 < largest <= limit

    def test_a_cache_smaller_than_a_shard(
        self, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GENCOMP_CACHE_GB", "0.00001")
        there = open_set(proxy.s3(f"{bucket}/sets/photos")).split("test")
        with pytest.raises(NoRoom, match=r"test-000000\.tar.*set GENCOMP_CACHE_GB to"):
            there.read(0)

    def test_threads(self, bucket: str, built: Path, proxy: Proxy) -> None:
        there, here = (
            open_set(p).split("test") for p in (proxy.s3(f"{bucket}/sets/photos"), built)
        )
        failures: list[BaseException] = []

        def read() -> None:
            try:
                assert_same(there, here)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


class TestRefusals:
    def test_no_set_there(self, bucket: str, proxy: Proxy) -> None:
        with pytest.raises(ShardError, match=r"no s3://\S+/sets/nothing/dataset\.json"):
            open_set(proxy.s3(f"{bucket}/sets/nothing"))

    def test_a_shard_that_was_replaced(self, built: Path, proxy: Proxy, tmp_path: Path) -> None:
        changed = Path(shutil.copytree(built, tmp_path / "changed"))
        shard = changed / "test-000001.tar"
        body = bytearray(shard.read_bytes())
        body[10_000] ^= 255
        shard.write_bytes(body)
        there = open_set(proxy.s3(f"{upload(changed)}/sets/photos")).split("test")
        assert there.read(0).row == 0
        with pytest.raises(ShardError, match=r"test-000001\.tar is not the shard of the index"):
            there.read(25)

    def test_a_shard_that_is_missing(self, built: Path, proxy: Proxy, tmp_path: Path) -> None:
        changed = Path(shutil.copytree(built, tmp_path / "changed"))
        (changed / "test-000001.tar").unlink()
        there = open_set(proxy.s3(f"{upload(changed)}/sets/photos")).split("test")
        with pytest.raises(ShardError, match=r"no s3://\S+test-000001\.tar"):
            there.read(25)

    def test_an_index_that_was_changed(self, built: Path, proxy: Proxy, tmp_path: Path) -> None:
        changed = Path(shutil.copytree(built, tmp_path / "changed"))
        body = bytearray((changed / "index.parquet").read_bytes())
        body[100] ^= 255
        (changed / "index.parquet").write_bytes(body)
        with pytest.raises(ShardError, match=r"index\.parquet"):
            open_set(proxy.s3(f"{upload(changed)}/sets/photos")).split("test").read(0)

    def test_credentials_in_the_location_stay_out_of_messages(
        self, bucket: str, proxy: Proxy
    ) -> None:
        there = open_set(proxy.s3(f"AKIAKEY:hunter2@{bucket}/sets/photos"))
        split = there.split("test")
        proxy.faults = [Fault("test-000000.tar", times=9, flip=7)]
        for wrong in (
            lambda: there.split("nothing"),
            lambda: split.read(10**6),
            lambda: split.read(0),
        ):
            with pytest.raises(ShardError) as error:
                wrong()
            assert "hunter2" not in str(error.value)


def _assert_same_pickled(ours: bytes, theirs: bytes) -> None:
    assert_same(pickle.loads(ours), pickle.loads(theirs))
