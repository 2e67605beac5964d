"""Stores of files: local directories and remote stores, which are read and written alike.

Remote stores are asked with bounded patience. After trouble that may pass (a cut connection,
silence, a server's error, a short answer) the attempt is repeated: reading goes on from the byte
where the trouble happened, writing starts from the first byte. For what is missing or forbidden,
the error is raised at once. `shards.remote.clients` describes the URIs and where credentials come
from.
"""

from __future__ import annotations

import io
import logging
import os
import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from shards.errors import ShardError
from shards.remote.clients import BLOCK, ArrowClient, Client, Patience, Trouble, client, shown

SCHEMES = ("file", "gs", "hdfs", "http", "https", "s3")
# A reader that jumps about gets few bytes at a time; for a reader that goes on in order, more and
# more bytes are read ahead.
_FIRST_READ, _READ_AHEAD = 64 << 10, BLOCK
_chance = random.SystemRandom()  # leaves the state of `random` alone and differs between forks
PATIENCE = Patience()
log = logging.getLogger(__name__)
T = TypeVar("T")


class MissingObject(ShardError):
    """The object does not exist in the store."""


class Store(ABC):
    """The files of one directory or prefix, by name; every failure raises a `ShardError`.

    `uri` is the name of the store in messages, without credentials. A store may be shared by
    threads, used after a fork, and pickled.
    """

    uri: str

    @abstractmethod
    def size(self, name: str) -> int:
        """The size of an object in bytes."""

    @abstractmethod
    def names(self, suffix: str = "") -> list[str]:
        """The sorted names of the objects here, not in folders below, that end in `suffix`."""

    @abstractmethod
    def pieces(
        self, name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[bytes | bytearray]:
        """The bytes from `start` to `stop`, or to the end, piece by piece, each of a few MB."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A seekable stream of an object; when it is read in order, bytes are fetched ahead."""

    @abstractmethod
    def local_path(self, name: str) -> Path | None:
        """The path of the object if it is a local file, else None."""

    @abstractmethod
    def walk(self) -> list[str]:
        """The sorted names of all objects here and in folders below; empty if nothing is there."""

    @abstractmethod
    def write(self, name: str, pieces: Callable[[], Iterable[bytes]]) -> None:
        """Write an object, new or in place of another, and make the folders that it needs.

        `pieces` is called for each attempt. If this method raises, or the process is killed, a part
        of the object may be left.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object, or a folder with all that it holds, if it is there."""

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        return b"".join(self.pieces(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset` on; raises `ShardError` when the object ends before."""
        return b"".join(self.pieces(name, offset, offset + size)) if size else b""


def store(location: str | Path, patience: Patience = PATIENCE) -> Store:
    """The store at a local path or a URI; nothing is read yet.

    Raises `ShardError` for an invalid URI, and for a URI whose library is not installed.
    """
    if isinstance(location, Path) or "://" not in location:
        return LocalStore(Path(location))
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise ShardError(f"{location.partition('://')[0]}://... is no URI: {error}") from None
    if parts.scheme not in SCHEMES:
        allowed = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ShardError(f"{shown(location)} cannot be read: allowed are {allowed} and plain paths")
    # What follows these would be cut off, and another place be read. Other schemes have options.
    cut = {"#": "%23", "?": "%3F"} if parts.scheme == "file" else {"#": "%23"}
    for letter, code in cut.items():
        if letter in location:
            raise ShardError(f"{shown(location)} goes on after a {letter}: write it as {code}")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ShardError(f"{location} names another machine: write file:///path")
        return LocalStore(Path(unquote(parts.path)))
    if not parts.hostname and parts.scheme != "hdfs":
        raise ShardError(f"{shown(location)} lacks a {_first_part(parts.scheme)} after ://")
    return RemoteStore(location, patience)


class LocalStore(Store):
    """A store in a directory of this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.uri = str(directory)

    def size(self, name: str) -> int:
        return self._try(name, lambda path: path.stat().st_size)

    def names(self, suffix: str = "") -> list[str]:
        def found(path: Path) -> list[str]:
            return sorted(p.name for p in path.iterdir() if p.name.endswith(suffix) and p.is_file())

        return self._try("", found)

    def pieces(
        self, name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[bytes | bytearray]:
        with self.open(name) as file:
            end = self.size(name) if stop is None else stop
            file.seek(start)
            while start < end:
                piece = self._try(name, lambda _: file.read(min(BLOCK, end - start)))  # noqa: B023
                if not piece:
                    where = self.directory / name
                    raise ShardError(f"{where} has {start} bytes, {end} are expected")
                start += len(piece)
                yield piece

    def open(self, name: str) -> BinaryIO:
        return self._try(name, lambda path: path.open("rb"))

    def local_path(self, name: str) -> Path:
        return self.directory / name

    def walk(self) -> list[str]:
        files = (path for path in self.directory.rglob("*") if path.is_file())
        return self._try("", lambda _: sorted(str(p.relative_to(self.directory)) for p in files))

    def write(self, name: str, pieces: Callable[[], Iterable[bytes]]) -> None:
        def written(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for piece in pieces():
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

        self._try(name, written, "written")

    def remove(self, name: str) -> None:
        def removed(path: Path) -> None:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

        self._try(name, removed, "removed")

    def _try(self, name: str, what: Callable[[Path], T], done: str = "read") -> T:
        path = self.directory / name
        try:
            return what(path)
        except FileNotFoundError:
            raise MissingObject(f"there is no {path}") from None
        except OSError as error:
            raise ShardError(f"{path} cannot be {done}: {error.strerror}") from None


class RemoteStore(Store):
    """A prefix of an object store, or a folder of a server, which is asked repeatedly."""

    def __init__(self, location: str, patience: Patience) -> None:
        self.uri = shown(location)
        self._location = location
        self._patience = patience
        self._client()  # so that a wrong URI is refused now

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self._location, self._patience)

    def size(self, name: str) -> int:
        return self._ask(name, lambda there: there.size(name))

    def names(self, suffix: str = "") -> list[str]:
        found = self._ask("", lambda there: there.names())
        return sorted(name for name in found if name.endswith(suffix))

    def pieces(
        self, name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[bytes | bytearray]:
        mark, failures = start, 0
        while True:
            there = self._client()
            try:
                for piece in there.pieces(name, start, stop):
                    start += len(piece)
                    if start - mark >= BLOCK:
                        mark, failures = start, 0
                    yield piece
                return
            except there.faults as error:
                failures += 1
                self._pause_or_raise(name, there.trouble(error), failures, "read")

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Stream(self, name), _FIRST_READ))

    def local_path(self, name: str) -> None:
        return None

    def walk(self) -> list[str]:
        return sorted(self._ask("", lambda there: _writable(there, self.uri).walk()))

    def write(self, name: str, pieces: Callable[[], Iterable[bytes]]) -> None:
        self._ask(name, lambda there: _writable(there, self.uri).write(name, pieces()), "written")

    def remove(self, name: str) -> None:
        self._ask(name, lambda there: _writable(there, self.uri).remove(name), "removed")

    def _client(self) -> Client:
        return client(self._location, self._patience)

    def _ask(self, name: str, question: Callable[[Client], T], done: str = "read") -> T:
        failures = 0
        while True:
            there = self._client()
            try:
                return question(there)
            except there.faults as error:
                failures += 1
                self._pause_or_raise(name, there.trouble(error), failures, done)

    def _pause_or_raise(self, name: str, trouble: Trouble, failures: int, done: str) -> None:
        where, (kind, words), attempts = self._where(name), trouble, self._patience.attempts
        if kind == "missing":
            raise MissingObject(f"there is no {where}: check the address") from None
        if kind == "denied":
            raise ShardError(
                f"{where} may not be {done}: access is denied ({words}); check the credentials "
                f"({_credentials(where)})"
            ) from None
        if kind == "final":
            raise ShardError(f"{where} cannot be {done}: {words}") from None
        if failures >= attempts:
            raise ShardError(
                f"{where} could not be {done} in {attempts} attempts: {words}"
            ) from None
        longest = min(self._patience.pause * 2 ** (failures - 1), self._patience.longest_pause)
        pause = longest * _chance.uniform(0.5, 1)
        log.warning(
            "%s: %s; attempt %d of %d in %.1f s", where, words, failures + 1, attempts, pause
        )
        time.sleep(pause)

    def _where(self, name: str) -> str:
        parts = urlsplit(self.uri)
        path = parts.path.rstrip("/") + ("/" + name if name else "")
        return parts._replace(path=path, query="").geturl()


class _Stream(io.RawIOBase):
    """An object as a stream, which holds a window of its bytes while the next one is fetched."""

    def __init__(self, remote: RemoteStore, name: str) -> None:
        self._remote = remote
        self._name = name
        self._size = remote.size(name)
        self._position = 0
        self._start, self._window = 0, b""
        self._reach = _FIRST_READ
        self._next: tuple[int, Future[bytes]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a stream has no byte {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, into: Any) -> int:
        if self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._window):
            self._move()
        begin = self._position - self._start
        count = min(len(into), len(self._window) - begin)
        into[:count] = memoryview(self._window)[begin : begin + count]
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _move(self) -> None:
        """Move the window of bytes to the position."""
        walking = self._position == self._start + len(self._window)
        self._reach = min(2 * self._reach, _READ_AHEAD) if walking else _FIRST_READ
        begun, self._next = self._next, None
        if begun and begun[0] == self._position:
            self._window = begun[1].result()
        else:
            self._window = self._fetch(self._position, self._reach)
        self._start = self._position
        end = self._start + len(self._window)
        if walking and end < self._size:
            self._next = end, self._thread.submit(self._fetch, end, self._reach)

    def _fetch(self, start: int, size: int) -> bytes:
        return self._remote.read_range(self._name, start, min(size, self._size - start))


def _writable(there: Client, uri: str) -> ArrowClient:
    if not isinstance(there, ArrowClient):
        raise ShardError(f"{uri} can only be read: write to s3://, gs://, hdfs:// or a directory")
    return there


def _first_part(scheme: str) -> str:
    return "bucket" if scheme in ("s3", "gs") else "host"


def _credentials(where: str) -> str:
    return {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials; S3 also denies "
        "what does not exist in a bucket that may not be listed",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
        "hdfs": "`kinit`",
    }.get(urlsplit(where).scheme, "user:password@ in the URI, or ~/.netrc")
