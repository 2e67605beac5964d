"""Local copies of remote shards, bounded and shared by the processes of a node.

The cache should lie on a local disk of the node; if the home directory is on NFS, set
GENCOMP_CACHE.
The cache works correctly on NFS too (flock reaches the server since Linux 2.6.12), but then all
nodes fill and empty one and the same cache over the network.

The directory holds these files; <hash> is the hash of a shard's bytes:

    <hash>         the whole shard, checked; each reader's descriptor holds a shared flock on it
    <hash>.part    the shard while it is fetched; it has its final length from the start, so that
                   the sizes of the files always add up to all the room that has been given out
    locks/<hash>   an empty file; the process that fetches the shard holds its flock, so a `.part`
                   file whose lock is free was left by a dead process
    lock           an empty file; its flock is held while room is made and taken

The kernel releases the locks of a killed process, so nothing ever has to be repaired. There is no
deadlock: a process waits for others only while it has no `.part` file of its own, and only for
processes that have one, which can always go on.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from shards.errors import ShardError
from shards.info import ShardInfo
from shards.remote.stores import Store

DEFAULT_GB = 50
_GB = 10**9
_NAME = re.compile(r"[0-9a-f]{32}")
_FETCHES = 3  # after so many fetches of wrong bytes, the shard in the store must be wrong
_LOOK_AGAIN = 0.05  # seconds between two looks at the progress of other processes
log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def cache_root() -> Path:
    """The cache's directory: $GENCOMP_CACHE, or $XDG_CACHE_HOME/gencomp, or ~/.cache/gencomp."""
    if own := os.environ.get("GENCOMP_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gencomp"


def limit_from_environment() -> int:
    """The size limit of the cache in bytes: $GENCOMP_CACHE_GB times 10⁹ bytes, by default 50 GB."""
    text = os.environ.get("GENCOMP_CACHE_GB", str(DEFAULT_GB))
    try:
        gigabytes = float(text)
        if not 0 < gigabytes < float("inf"):
            raise ValueError
    except ValueError:
        raise ShardError(
            f"GENCOMP_CACHE_GB is {text!r}: it must be a number of gigabytes above 0"
        ) from None
    return int(gigabytes * _GB)


class NoRoom(ShardError):
    """The shard does not fit into the cache beside those that are being read."""


class ShardCache:
    """A cache of at most `limit_bytes` of shards in `directory`, by default `cache_root()/shards`.

    Threads and processes may use the cache at the same time, also with different limits: each keeps
    to its own limit.
    """

    def __init__(self, limit_bytes: int, directory: Path | None = None) -> None:
        self.limit = limit_bytes
        self.directory = directory or cache_root() / "shards"

    def open(self, store: Store, shard: ShardInfo) -> int:
        """A descriptor for reading a whole copy of the shard, which is fetched if it is not there.

        The caller closes the descriptor. Until then the descriptor, and every duplicate of it, also
        that of a forked child, keeps the copy from being evicted. Processes that want a shard which
        another one is fetching wait for it.

        Raises `NoRoom` when the limit is too small for the shards that are being read, and
        `ShardError` when the store fails, when its bytes are not those of the index, and when the
        disk is full.
        """
        if not _NAME.fullmatch(shard.hash):
            raise ShardError(
                f"{store.uri}: the hash of {shard.name} is {shard.hash!r}, no xxh3_128"
            )
        try:
            (self.directory / "locks").mkdir(parents=True, exist_ok=True)
            while (descriptor := self._held(shard)) is None:
                with _locked(self.directory / "locks" / shard.hash):
                    if (descriptor := self._held(shard)) is not None:
                        return descriptor
                    descriptor = self._fill(store, shard)
                    if descriptor is not None:
                        return descriptor
                time.sleep(_LOOK_AGAIN)
            return descriptor
        except OSError as error:
            raise self._disk_error(error, shard) from None

    def fetch(self, store: Store, shard: ShardInfo) -> None:
        """Bring a shard into the cache, so that `open` is fast; raises as `open` does."""
        os.close(self.open(store, shard))

    def _held(self, shard: ShardInfo) -> int | None:
        """A descriptor of the finished copy, which keeps it from eviction; None without a copy."""
        try:
            descriptor = os.open(self.directory / shard.hash, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            there = os.fstat(descriptor)
            if there.st_nlink and there.st_size == shard.bytes:  # not evicted in between
                now = time.time_ns()  # this clock is finer than the kernel's clock for files
                os.utime(descriptor, ns=(now, now))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _fill(self, store: Store, shard: ShardInfo) -> int | None:
        """Fetch the shard whose lock this process holds, and return a descriptor of it.

        Returns None while other fetches take the room that the shard needs.
        """
        whole = self.directory / shard.hash
        part = whole.with_suffix(".part")
        with _locked(self.directory / "lock"):
            whole.unlink(missing_ok=True)  # `_held` refused this copy, since its length is wrong
            if not self._make_room(shard):
                return None
            writing = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.ftruncate(writing, shard.bytes)
        try:
            self._fetch_checked(store, shard, writing)
            os.fsync(writing)  # a crash of the node must not leave an unchecked copy
            with _locked(self.directory / "lock"):
                part.rename(whole)
                return self._held(shard)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(writing)

    def _fetch_checked(self, store: Store, shard: ShardInfo, writing: int) -> None:
        for _ in range(_FETCHES):
            state, position = xxhash.xxh3_128(), 0
            for piece in store.pieces(shard.name, 0, shard.bytes):
                state.update(piece)
                position += _write(writing, piece, position)
            if state.hexdigest() == shard.hash:
                return
            log.warning("%s: %s came with wrong bytes", store.uri, shard.name)
        raise ShardError(
            f"{store.uri}: {shard.name} is not the shard of the index: its hash is "
            f"{state.hexdigest()}, not {shard.hash}, in {_FETCHES} fetches; upload it again"
        )

    def _make_room(self, shard: ShardInfo) -> bool:
        """Evict shards until this one fits; False when it must wait for other fetches to end.

        The caller holds the directory's lock, so no other process takes or makes room meanwhile. If
        there is a `.part` file of this shard, a killed process has left it.
        """
        if shard.bytes > self.limit:
            raise self._no_room(shard, 0)
        free, filling, held = self.limit, 0, 0
        parts, whole = self._entries()
        for entry in parts:
            if entry.path.stem == shard.hash:
                entry.path.unlink()
            elif not _removed(entry.path, self.directory / "locks" / entry.path.stem):
                filling += entry.size
        free -= filling + sum(entry.size for entry in whole)
        for entry in sorted(whole, key=lambda entry: entry.used):
            if free >= shard.bytes:
                break
            if _removed(entry.path, entry.path):
                free += entry.size
            else:
                held += entry.size
        if free < shard.bytes and held + shard.bytes > self.limit:
            raise self._no_room(shard, held)
        return free >= shard.bytes

    def _entries(self) -> tuple[list[_Entry], list[_Entry]]:
        """The shards in the directory: those that are being fetched, and the whole ones."""
        parts: list[_Entry] = []
        whole: list[_Entry] = []
        with os.scandir(self.directory) as found:
            for entry in found:
                if _NAME.fullmatch(entry.name.removesuffix(".part")):
                    with suppress(FileNotFoundError):  # a fetch that fails removes its `.part`
                        there = entry.stat()
                        shard = _Entry(Path(entry.path), there.st_size, there.st_mtime_ns)
                        (parts if entry.name.endswith(".part") else whole).append(shard)
        return parts, whole

    def _no_room(self, shard: ShardInfo, held: int) -> NoRoom:
        return NoRoom(
            f"the cache {self.directory} has no room for {shard.name} ({_gb(shard.bytes)} GB): "
            f"{_gb(held)} of its {_gb(self.limit)} GB are being read; set GENCOMP_CACHE_GB to "
            f"{_gb(held + shard.bytes)} or more"
        )

    def _disk_error(self, error: OSError, shard: ShardInfo) -> ShardError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ShardError(
                f"the disk of the cache {self.directory} is full, {shard.name} needs "
                f"{_gb(shard.bytes)} GB: set GENCOMP_CACHE to a directory with more room, or "
                "GENCOMP_CACHE_GB to less"
            )
        if error.errno in _NO_LOCKS:
            return ShardError(
                f"the cache {self.directory} is on a file system without file locks "
                f"({error.strerror}): set GENCOMP_CACHE to a directory on a local disk"
            )
        return ShardError(
            f"the cache {self.directory} cannot be used: {error.strerror} (GENCOMP_CACHE names "
            "another directory)"
        )


class _Entry(NamedTuple):
    path: Path
    size: int
    used: int  # the time of the last use in nanoseconds


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive flock of a file, which is made if it does not exist.

    Without `wait`, raises `BlockingIOError` when another process holds a lock on the file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _locks.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        _locks.discard(descriptor)
        os.close(descriptor)


# A child that is forked while a thread of its parent holds a lock must not keep the lock.
_locks: set[int] = set()


def _after_fork() -> None:
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_after_fork)


def _removed(path: Path, lock: Path) -> bool:
    """Remove a file unless somebody holds a lock on the file `lock`; returns whether it is gone."""
    try:
        with _locked(lock, wait=False):
            path.unlink(missing_ok=True)
            return True
    except BlockingIOError:
        return False


def _write(descriptor: int, piece: bytes | bytearray, position: int) -> int:
    """Write all of `piece` at `position`, and return its length."""
    view = memoryview(piece)
    while view:
        done = os.pwrite(descriptor, view, position)
        view, position = view[done:], position + done
    return len(piece)


def _gb(count: int) -> str:
    """A number of bytes in gigabytes, rounded up to thousandths."""
    return f"{-(-count // 10**6) / 1000:g}"
