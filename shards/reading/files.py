"""Positional reads from the shards of a split, local or cached from a remote store."""

from __future__ import annotations

import os
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from shards.info import ShardInfo
from shards.remote.cache import NoRoom, ShardCache, limit_from_environment
from shards.remote.stores import Store, store

_FETCHERS = 4


def is_uri(location: str | Path) -> bool:
    return isinstance(location, str) and "://" in location


def place_of(base: str | Path, location: str | None) -> str | Path:
    """The directory or URI of the tars of the set at `base`.

    `location` is an absolute path, a URI, a path relative to `base`, or None for `base` itself.
    """
    if location is None:
        return base
    if is_uri(location):
        return location
    if not is_uri(base):
        return Path(base) / location
    parts = urlsplit(str(base))
    return urlunsplit(parts._replace(path=posixpath.join(parts.path, location)))


def shard_files(place: str | Path, shards: list[ShardInfo]) -> ShardFiles:
    """Open the shards in a directory or at a URI for reading."""
    tars = store(place)
    directory = tars.local_path("")
    if directory is None:
        return ShardFiles(CachedShards(tars, shards))
    return ShardFiles(LocalShards(directory, shards))


class Shards(Protocol):
    """Shards that can be opened by number, at most `most_open` of them at once."""

    most_open: int

    def open(self, shard: int) -> int:
        """A descriptor for reading, which the caller closes; raises `OSError` or `ShardError`."""

    def name(self, shard: int) -> str:
        """The path or the URI of a shard, for messages."""

    def fetch(self, shard: int) -> None:
        """Bring a shard near, so that `open` is fast."""


class LocalShards:
    most_open = 256  # a process may have only so many open files

    def __init__(self, directory: Path, shards: list[ShardInfo]) -> None:
        self._paths = [directory / shard.name for shard in shards]

    def open(self, shard: int) -> int:
        return os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)

    def name(self, shard: int) -> str:
        return str(self._paths[shard])

    def fetch(self, shard: int) -> None:
        pass


class CachedShards:
    """Remote shards, read from copies in the cache of the node."""

    most_open = 8  # an open shard cannot be removed from the cache

    def __init__(self, tars: Store, shards: list[ShardInfo]) -> None:
        self._cache = ShardCache(limit_from_environment())
        self._tars = tars
        self._shards = shards

    def open(self, shard: int) -> int:
        return self._cache.open(self._tars, self._shards[shard])

    def name(self, shard: int) -> str:
        return str(place_of(self._tars.uri, self._shards[shard].name))

    def fetch(self, shard: int) -> None:
        self._cache.fetch(self._tars, self._shards[shard])


class ShardFiles:
    """Shards by number, which are opened when they are first read; some of them stay open.

    Threads may share this object. A descriptor is closed only when no thread uses it any more:
    otherwise its number could be given to another file while a thread still reads from it.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._changing = threading.Lock()
        self._fetches = _Fetches(shards.fetch)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Read `size` bytes of a shard from `offset` on, or fewer if the shard ends before.

        Raises `OSError`, or the error of the cache.
        """
        descriptor = self._open.get(shard)  # needs no lock: one dictionary operation is atomic
        if descriptor is None:
            descriptor = self._opened(shard)
            with self._changing:
                self._open[shard] = descriptor
                while len(self._open) > self._shards.most_open:
                    self._open.popitem(last=False)
        return os.pread(descriptor.number, size, offset)

    def _opened(self, shard: int) -> _Descriptor:
        try:
            return _Descriptor(self._shards.open(shard))
        except NoRoom:
            with self._changing:
                self._open.clear()  # this very process may hold what fills the cache
            return _Descriptor(self._shards.open(shard))

    def name(self, shard: int) -> str:
        return self._shards.name(shard)

    def fetch_soon(self, shards: Iterable[int]) -> None:
        """Start to copy those of the shards that are not open into the cache, in the background."""
        if isinstance(self._shards, CachedShards):
            for shard in shards:
                if shard not in self._open:
                    self._fetches.start(shard)


class _Descriptor:
    """An open file that closes itself when nothing refers to it any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Fetches:
    """Background fetches, at most one of each shard at a time.

    Their errors are not reported here: the reader meets the same error and reports it.
    """

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._process = 0
        self._running: set[int] = set()

    def start(self, shard: int) -> None:
        if self._process != os.getpid():  # threads do not survive a fork
            self._process, self._running = os.getpid(), set()
            self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="shards-fetch")
        if shard not in self._running:
            self._running.add(shard)
            future = self._pool.submit(self._run, shard)
            future.add_done_callback(lambda _: self._running.discard(shard))

    def _run(self, shard: int) -> None:
        if threading.main_thread().is_alive():  # when Python ends, it waits for all fetches
            self._fetch(shard)

    def __del__(self) -> None:
        if self._process == os.getpid():
            self._pool.shutdown(wait=False, cancel_futures=True)
