"""Stores against real servers: a folder, moto's S3, a plain file server, and faults in between."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ShardError
from shards.remote import clients
from shards.remote.clients import BLOCK, Patience, shown
from shards.remote.stores import MissingObject, Store, store
from tests.shards import object_server
from tests.shards.object_server import LOCAL, Fault, FolderServer, Proxy, new_bucket
from tests.waiting import PATIENCE

QUICK = Patience(connect=60, silence=60, attempts=4, pause=0.01, longest_pause=0.05)
SMALL = np.random.default_rng(0).bytes(300_000)
LARGE = np.random.default_rng(1).bytes(2 * BLOCK + 5_000_001)
OBJECTS = {
    "set/small.tar": SMALL,
    "set/large.tar": LARGE,
    "set/empty": b"",
    "set/a b+c%20é.tar": b"odd name",
    "set/below/other.tar": b"not listed",
}
pytestmark = pytest.mark.usefixtures("s3_credentials")
Kind = Literal["local", "s3", "http", "plain"]
KINDS: list[Kind] = ["local", "s3", "http", "plain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objects")
    for name, body in OBJECTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    return root


@pytest.fixture(scope="module")
def bucket() -> str:
    """A bucket whose small objects anybody may read."""
    return new_bucket(OBJECTS, public=True)


@pytest.fixture
def plain_proxy(folder: Path) -> Iterator[Proxy]:
    with FolderServer(folder) as server, Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, bucket: str, folder: Path) -> Store:
    """The same objects through every kind of store, without faults."""
    if request.param == "local":
        return store(folder / "set")
    if request.param == "plain":
        return store(request.getfixturevalue("plain_proxy").http("set"), QUICK)
    proxy = request.getfixturevalue("proxy")
    uri = proxy.s3(f"{bucket}/set") if request.param == "s3" else proxy.http(f"{bucket}/set")
    return store(uri, QUICK)


@pytest.fixture(params=["s3", "http"])
def faulty(request: pytest.FixtureRequest, bucket: str, proxy: Proxy) -> tuple[Store, Proxy]:
    uri = proxy.s3(f"{bucket}/set") if request.param == "s3" else proxy.http(f"{bucket}/set")
    return store(uri, QUICK), proxy


class TestReading:
    def test_whole_objects_and_their_sizes(self, there: Store) -> None:
        for key, body in OBJECTS.items():
            name = key.removeprefix("set/")
            assert there.read(name) == body
            assert there.size(name) == len(body)

    def test_ranges(self, there: Store) -> None:
        for offset, size in [(0, 1), (1, 0), (7, 100), (BLOCK - 3, 10), (len(LARGE) - 5, 5)]:
            assert there.read_range("large.tar", offset, size) == LARGE[offset : offset + size]

    def test_a_range_beyond_the_end_is_refused(self, there: Store) -> None:
        with pytest.raises(ShardError, match=r"small\.tar.*300000.*300005"):
            there.read_range("small.tar", 299_995, 10)

    def test_a_missing_object_says_where_at_once(
        self, there: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(MissingObject, match=r"there is no .*set/nothing\.tar"):
            there.read("nothing.tar")
        with pytest.raises(MissingObject, match=r"there is no .*set/nothing\.tar"):
            there.size("nothing.tar")
        assert not caplog.records, "no second attempt"

    def test_a_stream_reads_tars(self, there: Store) -> None:
        with there.open("large.tar") as stream:
            assert stream.seekable()
            assert stream.read(3) == LARGE[:3]
            assert stream.seek(-7, io.SEEK_END) == len(LARGE) - 7
            assert stream.read() == LARGE[-7:]
            stream.seek(0)
            assert stream.read() == LARGE

    def test_pickled_and_in_threads(self, there: Store) -> None:
        copy = pickle.loads(pickle.dumps(there))
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda i: copy.read_range("small.tar", i * 1000, 1000), range(40))
            )
        assert b"".join(found) == SMALL[:40_000]

    def test_after_a_fork(self, there: Store) -> None:
        """A child reads with connections of its own while the parent goes on with its."""
        stream = there.pieces("large.tar")
        begun = next(stream)
        child = multiprocessing.get_context("fork").Process(target=_check, args=(there,))
        child.start()
        assert bytes(begun) + b"".join(stream) == LARGE
        child.join(PATIENCE)
        assert child.exitcode == 0
        assert there.read("small.tar") == SMALL


def _check(there: Store) -> None:
    os._exit(there.read("large.tar") != LARGE)


@pytest.mark.parametrize("kind", ["local", "s3", "plain"])
def test_names(kind: Kind, request: pytest.FixtureRequest, bucket: str, folder: Path) -> None:
    if kind == "local":
        there = store(folder / "set")
    elif kind == "s3":
        there = store(request.getfixturevalue("proxy").s3(f"{bucket}/set"), QUICK)
    else:
        there = store(request.getfixturevalue("plain_proxy").http("set"), QUICK)
    assert there.names(".tar") == ["a b+c%20é.tar", "large.tar", "small.tar"]
    assert there.names() == ["a b+c%20é.tar", "empty", "large.tar", "small.tar"]


def test_only_local_files_have_a_path(folder: Path, bucket: str, proxy: Proxy) -> None:
    here = store(f"file://{folder}/set")
    assert here.local_path("small.tar") == folder / "set/small.tar"
    assert here.read("small.tar") == SMALL
    assert store(proxy.s3(f"{bucket}/set"), QUICK).local_path("small.tar") is None


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_errors_that_pass(self, faulty: tuple[Store, Proxy], status: int) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=3, status=status)]
        assert there.read("small.tar") == SMALL
        assert len(proxy.gets("small.tar")) == 4

    def test_errors_that_stay(self, faulty: tuple[Store, Proxy]) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=99, status=503)]
        with pytest.raises(ShardError, match=r"set/small\.tar could not be read in 4 .*503"):
            there.read("small.tar")
        assert len(proxy.gets("small.tar")) == 4

    def test_errors_on_asking_the_size(self, faulty: tuple[Store, Proxy]) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=2, status=500, method="HEAD")]
        proxy.faults += [Fault("small.tar", times=2, status=500)]
        assert there.size("small.tar") == len(SMALL)

    @pytest.mark.parametrize("status", [401, 403])
    def test_denied_is_not_asked_again(self, faulty: tuple[Store, Proxy], status: int) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=99, status=status)]
        with pytest.raises(ShardError, match=r"small\.tar may not be read: access is denied"):
            there.read("small.tar")
        assert len(proxy.gets("small.tar")) == 1

    def test_what_asking_again_cannot_mend(self, faulty: tuple[Store, Proxy]) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=99, status=400)]
        with pytest.raises(ShardError, match=r"small\.tar cannot be read: .*400"):
            there.read("small.tar")
        assert len(proxy.gets("small.tar")) == 1

    def test_a_cut_goes_on_where_it_was(self, faulty: tuple[Store, Proxy]) -> None:
        """Cut at 60 % of the object: nothing before the block that was cut is read again."""
        there, proxy = faulty
        place = len(LARGE) * 6 // 10
        if there.uri.startswith("s3"):  # its second block is the one
            stream = there.pieces("large.tar")
            begun = next(stream)
            proxy.faults = [Fault("large.tar", keep=place - BLOCK, then="cut")]
            assert bytes(begun) + b"".join(stream) == LARGE
            firsts = [r.first for r in proxy.gets("large.tar")]
            assert firsts == [0, BLOCK, BLOCK, 2 * BLOCK]
        else:
            proxy.faults = [Fault("large.tar", keep=place, then="cut")]
            assert there.read("large.tar") == LARGE
            (_, again) = proxy.gets("large.tar")
            assert place - (1 << 20) < again.first <= place

    def test_many_cuts_of_one_object(self, faulty: tuple[Store, Proxy]) -> None:
        """More cuts than attempts in all, but every attempt or two brings a block."""
        there, proxy = faulty
        keep = BLOCK * 5 // 4  # what is on its way at a cut is lost
        proxy.faults = [Fault("large.tar", then="cut", keep=i % 2 * keep) for i in range(5)]
        assert there.read("large.tar") == LARGE
        assert not any(fault.times for fault in proxy.faults)

    @pytest.mark.parametrize("keep", [0, 100_000])
    def test_short_answers(self, faulty: tuple[Store, Proxy], keep: int) -> None:
        """An answer that is complete by its own header, but lacks the end of what was asked."""
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=2, keep=keep, then="short")]
        assert there.read_range("small.tar", 0, len(SMALL)) == SMALL

    def test_short_answers_that_stay(self, faulty: tuple[Store, Proxy]) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", times=99, keep=0, then="short")]
        with pytest.raises(ShardError, match=r"could not be read in 4 attempts: .*ended"):
            there.read_range("small.tar", 0, len(SMALL))

    @pytest.mark.parametrize(
        ("scheme", "keep"),
        [
            ("s3", 0),
            ("http", 0),
            ("http", 100_000),
            pytest.param("s3", 100_000, marks=pytest.mark.slow),  # curl means the last seconds
        ],
    )
    def test_silence_is_noticed(self, scheme: str, keep: int, bucket: str, proxy: Proxy) -> None:
        path = f"{bucket}/set"
        uri = proxy.s3(path) if scheme == "s3" else proxy.http(path)
        there = store(uri, QUICK._replace(silence=1))
        proxy.faults = [Fault("small.tar", keep=keep, then="hang")]
        started = time.monotonic()
        assert there.read("small.tar") == SMALL
        assert time.monotonic() - started > 0.9 and len(proxy.gets("small.tar")) > 1

    def test_slow_is_no_fault(self, faulty: tuple[Store, Proxy]) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", delay=0.4)]
        assert there.read("small.tar") == SMALL
        assert len(proxy.gets("small.tar")) == 1

    @pytest.mark.parametrize("scheme", ["s3", "http"])
    def test_nobody_answers(self, scheme: str) -> None:
        with Proxy(1) as proxy:
            uri = proxy.s3("bucket/set") if scheme == "s3" else proxy.http("set")
        with pytest.raises(ShardError, match=r"set/x could not be read in 4 attempts: .*onnect"):
            store(uri, QUICK).read("x")

    def test_a_server_without_ranges(self, plain_proxy: Proxy) -> None:
        """What was already read is skipped when the server begins anew."""
        there = store(plain_proxy.http("set"), QUICK)
        plain_proxy.faults = [Fault("large.tar", keep=len(LARGE) // 2, then="cut")]
        assert there.read("large.tar") == LARGE

    def test_a_failed_attempt_is_logged(
        self, faulty: tuple[Store, Proxy], caplog: pytest.LogCaptureFixture
    ) -> None:
        there, proxy = faulty
        proxy.faults = [Fault("small.tar", status=503)]
        there.read("small.tar")
        (record,) = caplog.records
        assert "small.tar: " in record.getMessage()
        assert "503" in record.getMessage()
        assert "attempt 2 of 4" in record.getMessage()

    def test_pauses_leave_the_random_state_alone(self, faulty: tuple[Store, Proxy]) -> None:
        import random

        there, proxy = faulty
        state = random.getstate()
        proxy.faults = [Fault("small.tar", times=2, status=503)]
        there.read("small.tar")
        assert random.getstate() == state


class TestReadAhead:
    def test_a_walk_is_fetched_ahead_and_a_jump_is_not(self, bucket: str, proxy: Proxy) -> None:
        there = store(proxy.http(f"{bucket}/set"), QUICK)
        with there.open("large.tar") as stream:
            for place in range(10):
                stream.seek(place * 1_500_000)
                stream.read(512)
        assert len(proxy.gets("large.tar")) <= 12
        proxy.requests.clear()
        with there.open("large.tar") as stream:
            while stream.read(100_000):
                pass
        assert len(proxy.gets("large.tar")) < 14

    def test_tarfile_reads_through_it(self, tmp_path: Path, proxy: Proxy) -> None:
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for i in range(200):
                info = tarfile.TarInfo(f"{i:05d}.bin")
                info.size = 3000
                tar.addfile(info, io.BytesIO(SMALL[i : i + 3000]))
        body = (tmp_path / "t.tar").read_bytes()
        name = new_bucket({"t.tar": body})
        proxy.faults = [Fault("t.tar", times=2, status=500)]
        with store(proxy.s3(name), QUICK).open("t.tar") as stream:
            with tarfile.open(fileobj=stream) as tar:
                offsets = [m.offset_data for m in tar]
        with tarfile.open(tmp_path / "t.tar") as tar:
            assert offsets == [m.offset_data for m in tar]

    @settings(max_examples=15)
    @given(
        steps=st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 200_000)), max_size=8),
    )
    def test_any_seeks_and_reads(self, steps: list[tuple[int, int]]) -> None:
        there = store(_quiet().s3(_quiet_bucket()), QUICK)
        with there.open("small") as stream:
            for place, size in steps:
                stream.seek(place)
                assert stream.read(size) == SMALL[place : place + size]
                assert stream.tell() == place + len(SMALL[place : place + size])


_kept: dict[str, Any] = {}


def _quiet() -> Proxy:
    if "proxy" not in _kept:
        _kept["proxy"] = Proxy(object_server.s3_port()).__enter__()
    return _kept["proxy"]


def _quiet_bucket() -> str:
    if "bucket" not in _kept:
        _kept["bucket"] = new_bucket({"small": SMALL})
    return _kept["bucket"]


class TestCredentials:
    def test_public_objects_need_none(
        self, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert store(proxy.s3(f"{bucket}/set"), QUICK).read("small.tar") == SMALL
        private = new_bucket({"x": b"secret"})
        with pytest.raises(ShardError, match=r"access is denied .*AWS_ACCESS_KEY_ID"):
            store(proxy.s3(private), QUICK).read("x")

    def test_the_endpoint_may_come_from_the_environment(
        self, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{proxy.address}")
        assert store(f"s3://{bucket}/set", QUICK).read("small.tar") == SMALL

    @pytest.mark.parametrize(
        "location",
        [
            "s3://AKIAKEY:hunter2@bucket/set?region=us-east-1",
            "https://me:hunter2@example.org/set?token=hunter2#hunter2",
            "gs://me:hunter2@bucket/set?access_token=hunter2",
            "hdfs://me:hunter2@host:8020/set",
            "ftp://me:hunter2@host/set",
        ],
    )
    def test_are_not_shown(self, location: str) -> None:
        assert "hunter2" not in shown(location)
        assert "AKIAKEY" not in shown(location)
        assert "/set" in shown(location)

    def test_stay_out_of_messages(self, bucket: str, proxy: Proxy, caplog: Any) -> None:
        for uri in (
            proxy.s3(f"AKIAKEY:hunter2@{bucket}/set"),
            f"http://me:hunter2@{proxy.address}/{bucket}/set?token=hunter2",
        ):
            there = store(uri, QUICK)
            for status in (503, 403, 400):
                proxy.faults = [Fault("small.tar", times=99, status=status)]
                with pytest.raises(ShardError) as error:
                    there.read("small.tar")
                assert "hunter2" not in str(error.value) + repr(there) + there.uri + caplog.text
            proxy.faults = []
            assert there.read("small.tar") == SMALL


class TestLocations:
    @pytest.mark.parametrize(
        ("location", "words"),
        [
            ("ftp://host/set", r"ftp://host/set cannot be read: allowed are file://, gs://"),
            ("s3:///set", r"lacks a bucket"),
            ("https:///set", r"lacks a host"),
            ("s3://bucket/set?regoin=x", r"'regoin'.*endpoint_override, region, scheme"),
            ("file://elsewhere/set", r"another machine"),
            ("file:///runs/a?b", r"file:///runs/a goes on after a \?: write it as %3F"),
            ("file:///runs/a#7", r"goes on after a #: write it as %23"),
            ("s3://bucket/run#7", r"s3://bucket/run goes on after a #: write it as %23"),
            ("https://host/set#hunter2", r"goes on after a #: write it as %23"),
            ("http://[::1/set", r"is no URI"),
            ("gs://bucket/set?foo=hunter2", r"cannot be opened: Unexpected query"),
        ],
    )
    def test_wrong_ones(self, location: str, words: str) -> None:
        with pytest.raises(ShardError, match=words) as error:
            store(location)
        assert "hunter2" not in str(error.value)

    def test_hdfs_says_what_it_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("JAVA_HOME", "HADOOP_HOME", "ARROW_LIBHDFS_DIR"):
            monkeypatch.setenv(variable, "/nowhere")
        with pytest.raises(ShardError, match=r"^hdfs://\S+ needs Hadoop's client.*JAVA_HOME"):
            store("hdfs://localhost:1/set")

    @pytest.mark.parametrize(
        ("module", "location", "mend"),
        [
            ("aiohttp", "https://host/set", r"pip install 'fsspec\[http\]'"),
            ("fsspec.implementations.http", "http://host/set", r"pip install 'fsspec\[http\]'"),
        ],
    )
    def test_a_missing_library_is_named(
        self, module: str, location: str, mend: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setattr(clients, "_clients", {})
        with pytest.raises(ShardError, match=mend):
            store(location)

    def test_gs_tries_for_a_bounded_time(self) -> None:
        uri = f"gs://anonymous@bucket/set?endpoint_override={LOCAL}:1&scheme=http"
        with pytest.raises(ShardError, match=r"gs://.*set/x could not be read in 1 attempts"):
            store(uri, QUICK._replace(connect=1, silence=1, attempts=1)).read("x")

    def test_a_local_directory_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(MissingObject, match="nowhere"):
            store(tmp_path / "nowhere").names()
        (tmp_path / "x").write_bytes(b"x")
        os.mkfifo(tmp_path / "fifo")
        assert store(tmp_path).names() == ["x"]
        with pytest.raises(ShardError, match=r"x/y cannot be read: Not a directory"):
            store(tmp_path / "x").read("y")
