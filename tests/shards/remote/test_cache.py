"""The cache of remote shards: one download a node, never above its limit, safe against kill -9."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash

from shards.errors import ShardError
from shards.info import ShardInfo
from shards.remote.cache import NoRoom, ShardCache, cache_root, limit_from_environment
from shards.remote.clients import Patience
from shards.remote.stores import Store, store
from tests.processes import times_open
from tests.shards.object_server import Fault, Proxy, new_bucket
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
QUICK = Patience(connect=60, silence=60, attempts=3, pause=0.01, longest_pause=0.05)
KB = 1000
SIZES = [300 * KB, 310 * KB, 320 * KB, 330 * KB, 340 * KB, 350 * KB]
BODIES = [np.random.default_rng(i).bytes(size) for i, size in enumerate(SIZES)]
SHARDS = [
    ShardInfo(name=f"{i}.tar", bytes=len(b), samples=1, hash=xxhash.xxh3_128_hexdigest(b))
    for i, b in enumerate(BODIES)
]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def bucket() -> str:
    return new_bucket({shard.name: body for shard, body in zip(SHARDS, BODIES, strict=True)})


@pytest.fixture
def remote(proxy: Proxy, bucket: str) -> Store:
    return store(proxy.s3(bucket), QUICK)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(1000 * KB, tmp_path / "cache")


def content(descriptor: int) -> bytes:
    """All of an open file, which is closed."""
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def total(directory: Path) -> int:
    """Bytes of all files, as one pass over the directory sees them."""
    found = 0
    for path in directory.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return found


def cached(cache: ShardCache) -> list[str]:
    """The names of the shards that are there, whole or in part."""
    there = {path.name for path in cache.directory.iterdir()}
    names = {f"{s.hash}{part}": f"{s.name}{part}" for s in SHARDS for part in ("", ".part")}
    return sorted(names[name] for name in there - {"lock", "locks"})


class TestFetching:
    def test_once(self, cache: ShardCache, remote: Store, proxy: Proxy) -> None:
        cache.fetch(remote, SHARDS[0])
        for _ in range(3):
            assert content(cache.open(remote, SHARDS[0])) == BODIES[0]
        assert len(proxy.gets("0.tar")) == 1
        assert cached(cache) == ["0.tar"]

    def test_the_descriptor_only_reads(self, cache: ShardCache, remote: Store) -> None:
        descriptor = cache.open(remote, SHARDS[0])
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)

    def test_sets_share_what_is_the_same(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        """The name is the content: another set's shard of another name is the same copy."""
        cache.fetch(remote, SHARDS[0])
        same = SHARDS[0].model_copy(update={"name": "elsewhere.tar"})
        assert content(cache.open(remote, same)) == BODIES[0]
        assert len(proxy.requests) == 2  # HEAD and GET, of the first

    def test_wrong_bytes_are_fetched_again(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        proxy.faults = [Fault("0.tar", flip=123_456)]
        assert content(cache.open(remote, SHARDS[0])) == BODIES[0]
        assert len(proxy.gets("0.tar")) == 2

    def test_wrong_bytes_that_stay_are_refused(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        proxy.faults = [Fault("0.tar", times=99, flip=7)]
        with pytest.raises(ShardError, match=r"s3://.*: 0\.tar is not the shard of the index: "):
            cache.open(remote, SHARDS[0])
        assert len(proxy.gets("0.tar")) == 3
        assert cached(cache) == []

    def test_a_truncated_object_is_refused(self, cache: ShardCache, proxy: Proxy) -> None:
        name = new_bucket({"0.tar": BODIES[0][:200_000]})
        with pytest.raises(ShardError, match=r"0\.tar .*200000 bytes, 300000 are expected"):
            cache.open(store(proxy.s3(name), QUICK), SHARDS[0])
        assert cached(cache) == []

    @pytest.mark.parametrize("then", ["cut", "short"])
    def test_faults_on_the_way(
        self, cache: ShardCache, remote: Store, proxy: Proxy, then: str
    ) -> None:
        proxy.faults = [Fault("0.tar", status=503), Fault("0.tar", keep=180_000, then=then)]  # type: ignore[arg-type]
        assert content(cache.open(remote, SHARDS[0])) == BODIES[0]

    def test_a_store_that_fails_leaves_nothing(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        proxy.faults = [Fault("0.tar", times=99, status=500)]
        with pytest.raises(ShardError, match="in 3 attempts"):
            cache.open(remote, SHARDS[0])
        assert cached(cache) == []

    def test_a_copy_that_was_cut_is_fetched_again(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        cache.fetch(remote, SHARDS[0])
        os.truncate(cache.directory / SHARDS[0].hash, 1000)
        assert content(cache.open(remote, SHARDS[0])) == BODIES[0]
        assert len(proxy.gets("0.tar")) == 2

    def test_a_hash_that_is_no_hash(self, cache: ShardCache, remote: Store) -> None:
        """It becomes a file name: a set from the network must not choose where that leads."""
        bad = SHARDS[0].model_copy(update={"hash": "../../../../etc/passwd"})
        with pytest.raises(ShardError, match=r"hash of 0\.tar"):
            cache.open(remote, bad)


class TestTogether:
    def test_processes_that_want_the_same_shard(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        """One download for all of them; the others wait for it and use it."""
        proxy.faults = [Fault("0.tar", delay=0.3)]
        start = FORK.Barrier(6)

        def want() -> None:
            start.wait()
            sys.exit(content(cache.open(remote, SHARDS[0])) != BODIES[0])

        children = [FORK.Process(target=want) for _ in range(6)]
        _run(children)
        assert [child.exitcode for child in children] == [0] * 6
        assert len(proxy.gets("0.tar")) == 1

    def test_threads_that_want_the_same_shard(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        proxy.faults = [Fault("0.tar", delay=0.2)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: content(cache.open(remote, SHARDS[0])), range(8)))
        assert found == [BODIES[0]] * 8
        assert len(proxy.gets("0.tar")) == 1

    def test_different_shards_at_the_same_time(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        gate = threading.Event()
        proxy.faults = [Fault(f"{i}.tar", gate=gate) for i in range(3)]
        with ThreadPoolExecutor(3) as pool:
            fetching = [pool.submit(cache.fetch, remote, SHARDS[i]) for i in range(3)]
            together = wait_for(lambda: all(proxy.gets(f"{i}.tar") for i in range(3)))
            gate.set()
            for one in fetching:
                one.result(PATIENCE)
        assert together

    def test_a_killed_filler(self, cache: ShardCache, remote: Store, proxy: Proxy) -> None:
        """kill -9 in the middle of a shard: who waits goes on at once, with a new file."""
        proxy.faults = [Fault("0.tar", keep=100_000, then="hang")]
        filler = FORK.Process(target=cache.fetch, args=(remote, SHARDS[0]))
        filler.start()
        assert wait_for(lambda: len(proxy.gets("0.tar")) == 1)
        assert cached(cache) == ["0.tar.part"]
        assert total(cache.directory) == SIZES[0]  # the room for all of it is taken
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(cache.open, remote, SHARDS[0])
            assert not wait_for(waiting.done, 0.2)
            assert filler.pid is not None
            os.kill(filler.pid, signal.SIGKILL)
            assert content(waiting.result(PATIENCE)) == BODIES[0]
        filler.join()
        assert cached(cache) == ["0.tar"]

    def test_a_killed_filler_of_another_shard(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        proxy.faults = [Fault("0.tar", keep=100_000, then="hang")]
        filler = FORK.Process(target=cache.fetch, args=(remote, SHARDS[0]))
        filler.start()
        assert wait_for(lambda: len(proxy.gets("0.tar")) == 1)
        cache.fetch(remote, SHARDS[1])
        assert cached(cache) == ["0.tar.part", "1.tar"]
        filler.kill()
        filler.join()
        cache.fetch(remote, SHARDS[2])
        assert cached(cache) == ["1.tar", "2.tar"]

    def test_a_child_of_a_filler_does_not_keep_its_lock(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        gate = threading.Event()
        proxy.faults = [Fault("0.tar", gate=gate)]
        with ThreadPoolExecutor(1) as pool:
            filling = pool.submit(cache.fetch, remote, SHARDS[0])
            assert wait_for(lambda: len(proxy.gets("0.tar")) == 1)
            child = FORK.Process(target=signal.pause)
            child.start()
            gate.set()
            filling.result(PATIENCE)
            (cache.directory / SHARDS[0].hash).unlink()
            assert content(pool.submit(cache.open, remote, SHARDS[0]).result(PATIENCE)) == BODIES[0]
        child.kill()
        child.join()


class TestLimit:
    def test_the_least_recently_used_goes_first(self, cache: ShardCache, remote: Store) -> None:
        for i in (0, 1, 2, 0):
            cache.fetch(remote, SHARDS[i])
        cache.fetch(remote, SHARDS[3])
        assert cached(cache) == ["0.tar", "2.tar", "3.tar"]
        cache.fetch(remote, SHARDS[5])
        assert cached(cache) == ["0.tar", "3.tar", "5.tar"]

    def test_what_is_being_read_stays(self, cache: ShardCache, remote: Store) -> None:
        reading = cache.open(remote, SHARDS[0])
        for i in (1, 2, 3, 4, 5):
            cache.fetch(remote, SHARDS[i])
            assert "0.tar" in cached(cache)
            assert total(cache.directory) <= cache.limit
        assert content(reading) == BODIES[0]

    def test_what_is_evicted_under_a_readers_hands_is_fetched_again(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        """A reader that opened the file before it went, and got its lock after."""
        cache.fetch(remote, SHARDS[0])
        evictor = os.open(cache.directory / SHARDS[0].hash, os.O_RDWR)
        fcntl.flock(evictor, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(cache.open, remote, SHARDS[0])
            shard = cache.directory / SHARDS[0].hash
            assert wait_for(lambda: times_open(os.getpid(), shard) == 2)
            (cache.directory / SHARDS[0].hash).unlink()
            os.close(evictor)
            assert content(reading.result(PATIENCE)) == BODIES[0]
        assert cached(cache) == ["0.tar"]
        assert len(proxy.gets("0.tar")) == 2

    def test_when_all_is_being_read(self, cache: ShardCache, remote: Store) -> None:
        reading = [cache.open(remote, SHARDS[i]) for i in range(3)]
        with pytest.raises(NoRoom, match=r"for 3\.tar .*set GENCOMP_CACHE_GB to 0\.002 or more"):
            cache.open(remote, SHARDS[3])
        assert cached(cache) == ["0.tar", "1.tar", "2.tar"]
        assert content(reading[0]) == BODIES[0]
        assert content(cache.open(remote, SHARDS[3])) == BODIES[3]
        assert cached(cache) == ["1.tar", "2.tar", "3.tar"]
        assert [content(r) for r in reading[1:]] == BODIES[1:3]

    def test_a_shard_above_the_limit(self, cache: ShardCache, remote: Store, proxy: Proxy) -> None:
        cache.fetch(remote, SHARDS[0])
        small = ShardCache(SIZES[1] - 1, cache.directory)
        with pytest.raises(NoRoom, match=r"no room for 1\.tar .*GENCOMP_CACHE_GB"):
            small.open(remote, SHARDS[1])
        assert cached(cache) == ["0.tar"]
        assert not proxy.gets("1.tar")

    def test_room_that_others_are_filling_is_waited_for(
        self, cache: ShardCache, remote: Store, proxy: Proxy
    ) -> None:
        small = ShardCache(SIZES[5] + 1, cache.directory)
        gate = threading.Event()
        proxy.faults = [Fault("0.tar", gate=gate)]
        with ThreadPoolExecutor(2) as pool:
            filling = pool.submit(small.fetch, remote, SHARDS[0])
            assert wait_for(lambda: len(proxy.gets("0.tar")) == 1)
            waiting = pool.submit(small.open, remote, SHARDS[5])
            assert not wait_for(waiting.done, 0.2)
            gate.set()
            assert content(waiting.result(PATIENCE)) == BODIES[5]
            filling.result(PATIENCE)
        assert cached(small) == ["5.tar"]

    def test_several_processes_under_a_small_limit(self, remote: Store, tmp_path: Path) -> None:
        """Never above the limit, and every descriptor reads its shard to the end."""
        cache = ShardCache(1100 * KB, tmp_path / "cache")

        def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(25):
                i = chance.randrange(len(SHARDS))
                descriptor = cache.open(remote, SHARDS[i])
                time.sleep(chance.uniform(0, 0.01))
                assert content(descriptor) == BODIES[i]

        children = [FORK.Process(target=read, args=(seed,)) for seed in range(3)]
        seen: list[int] = []
        ended = threading.Event()

        def look() -> None:
            # What is evicted for a file that then appears may be counted with it: a pass counts
            # only if nothing changed meanwhile.
            before = _names(cache.directory)
            size = total(cache.directory)
            if _names(cache.directory) == before:
                seen.append(size)

        def watch() -> None:
            while not ended.wait(0.0005):
                if cache.directory.exists():
                    look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        _run(children)
        ended.set()
        watcher.join()
        look()  # the watcher may have met a change each time
        assert [child.exitcode for child in children] == [0] * 3
        assert 600 * KB < max(seen) <= cache.limit

    @pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
    def test_a_full_disk(self, proxy: Proxy, bucket: str, tmp_path: Path) -> None:
        """A disk of 500 kB refuses the second shard in one sentence, and nothing is left of it."""
        (tmp_path / "disk").mkdir()
        mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        disk = f"mount -t tmpfs -o size=500k tmpfs {tmp_path}/disk"
        if subprocess.run([*mount, disk], capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here")
        program = (
            "import sys; from tests.shards.remote.test_cache import full_disk; "
            f"full_disk({proxy.s3(bucket)!r}, {str(tmp_path / 'disk')!r})"
        )
        done = subprocess.run(
            [*mount, f'{disk} && exec {sys.executable} -c "{program}"'],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "disk is full" in done.stdout


def full_disk(uri: str, disk: str) -> None:
    """The part of `test_a_full_disk` that runs where the disk is mounted."""
    cache, remote = ShardCache(1000 * KB, Path(disk)), store(uri, QUICK)
    cache.fetch(remote, SHARDS[0])
    with pytest.raises(ShardError, match=r"the disk of the cache \S+ is full, 1\.tar needs"):
        cache.open(remote, SHARDS[1])
    assert cached(cache) == ["0.tar"]
    assert content(cache.open(remote, SHARDS[0])) == BODIES[0]
    print("disk is full")


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def _run(children: list[multiprocessing.context.ForkProcess]) -> None:
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)


class TestEnvironment:
    def test_the_root(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GENCOMP_CACHE", str(tmp_path / "own"))
        assert cache_root() == tmp_path / "own"
        assert ShardCache(1).directory == tmp_path / "own/shards"
        monkeypatch.delenv("GENCOMP_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_root() == tmp_path / "xdg/gencomp"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_root() == tmp_path / ".cache/gencomp"

    def test_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GENCOMP_CACHE_GB", raising=False)
        assert limit_from_environment() == 50 * 10**9
        monkeypatch.setenv("GENCOMP_CACHE_GB", "0.25")
        assert limit_from_environment() == 250 * 10**6

    @pytest.mark.parametrize("text", ["", "many", "0", "-1", "nan", "inf"])
    def test_a_limit_that_is_none(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("GENCOMP_CACHE_GB", text)
        with pytest.raises(ShardError, match=r"GENCOMP_CACHE_GB is .* number of gigabytes"):
            limit_from_environment()

    def test_a_cache_that_cannot_be(self, remote: Store, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ShardError, match=r"the cache \S+ cannot be used: .*GENCOMP_CACHE"):
            ShardCache(1000 * KB, tmp_path / "file").open(remote, SHARDS[0])
