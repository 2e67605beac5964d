"""The files of a data set as its site ships them; a folder, a zip and a tar are read alike.

Names are made alike first, whatever program wrote them (`plain_name`).
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import posixpath
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Protocol, TypeVar

from shards.errors import ShardError
from shards.tars import utf8_name

# The errors that zipfile, tarfile and the decompressors raise on a damaged or strange archive.
# RuntimeError is raised for a member that needs a password, NotImplementedError for a compression
# that Python does not know.
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
    RuntimeError, NotImplementedError, ValueError,
)  # fmt: skip
_COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZ": "bz2", b"\xfd7": "xz"}  # by the first two bytes
_ROOT = re.compile(r"(?:[A-Za-z]:(?=/))?/*")  # the root of a path, here or on Windows

T = TypeVar("T")


class Files(Protocol):
    """The visible files below a root; their names are plain posix paths without hidden parts.

    An object may be used in a process that was forked after the object was made.
    """

    path: Path

    def names(self) -> list[str]:
        """All names, sorted; each call walks a folder anew."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises `ShardError` when the file is missing or damaged."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A seekable stream of one file; raises `ShardError` when the file is missing."""
        ...

    def fingerprint(self, names: Iterable[str]) -> str:
        """The sha256, in hex, of the names of the files, their sizes and, in a zip, their CRCs."""
        ...


def open_files(path: Path) -> Files:
    """The files of a folder, a zip or a tar (plain, gz, bz2, xz).

    An archive stays open for the next call in this process. The members of a compressed tar are
    read fastest in the order of the tar, since going back decompresses it from its start. Raises
    `ShardError` for any other file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        return _Folder(path)
    return _archive(path, status.st_mtime_ns, status.st_size, status.st_ino)


def plain_name(name: str) -> str:
    """The name of a file as unpacking would give it on any system, relative and with slashes.

    Backslashes are slashes, a root or a drive is dropped, and so are parts that are empty or `.`. A
    name that is not UTF-8 is taken as Latin-1. Raises `ValueError` for the part `..`.
    """
    name = _ROOT.sub("", utf8_name(name).replace("\\", "/"), count=1)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"the name {name!r} leads out of its folder by '..'")
    return "/".join(parts)


def wrapping(names: Iterable[str], splits: Container[str]) -> str:
    """The one folder that all names are in, with its slash; '' for none, or if it is a split."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    top = tops.pop() if tops else ""
    return f"{top}/" if top and not tops and top not in splits else ""


def above_splits(names: Iterable[str], splits: Container[str]) -> str:
    """The folder, with its slash, that all names lie in, if it holds at least two splits; or ''."""
    found = list(names)
    above = posixpath.commonpath([posixpath.dirname(name) for name in found]) if found else ""
    if not above:
        return ""
    inside = {name.removeprefix(f"{above}/").partition("/")[0] for name in found}
    return f"{above}/" if sum(name in splits for name in inside) > 1 else ""


# The key of the cache has everything that tells a file from another one that has replaced it.
@lru_cache(maxsize=8)
def _archive(path: Path, mtime_ns: int, size: int, inode: int) -> Files:
    try:
        raw = _Unshared(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        stream: IO[bytes] = io.BufferedReader(raw)
        magic = stream.read(2)
        stream.seek(0)
        return _Zip(path, stream) if magic == b"PK" else _Tar(path, stream, magic)
    except ShardError:
        raise
    except _DAMAGE as error:
        raise ShardError(
            f"{path} is not a zip or tar archive that can be read ({_reason(error)}): download it "
            "again"
        ) from None


class _Unshared(io.RawIOBase):
    """A file whose position is kept in this object, so that forked processes do not share it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._position,
            os.SEEK_END: os.fstat(self._descriptor).st_size,
        }[whence]
        if start + offset < 0:  # zipfile does this in a tiny file when it looks for the end mark
            raise OSError("a place before the start of the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(_plain(self.path, ((name, name) for name in _walk(self.path))))

    def read(self, name: str) -> bytes:
        try:
            return self._file(name).read_bytes()
        except OSError as error:
            raise ShardError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._file(name).open("rb")
        except OSError as error:
            raise ShardError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def fingerprint(self, names: Iterable[str]) -> str:
        try:
            return _digest(f"{name}\0{self._file(name).stat().st_size}" for name in names)
        except OSError as error:
            raise ShardError(f"{error.filename} cannot be read: {error.strerror}") from None

    def _file(self, name: str) -> Path:
        """The file of a plain name, which may have another name on the disk."""
        file = self.path / name
        return file if file.exists() else self.path / _renamed(self.path.absolute()).get(name, name)


class _Zip:
    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(stream)
        self._members = _plain(
            path,
            (
                (member.filename, member)
                for member in self._zip.infolist()
                if not member.filename.endswith(("/", "\\"))
            ),
        )

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = _member(self.path, self._members, name)
        try:
            return self._zip.read(member)
        except _DAMAGE as error:
            raise _damaged(self.path, name, error) from None

    def open(self, name: str) -> IO[bytes]:
        member = _member(self.path, self._members, name)
        try:
            return self._zip.open(member)
        except _DAMAGE as error:
            raise _damaged(self.path, name, error) from None

    def fingerprint(self, names: Iterable[str]) -> str:
        members = ((name, self._members[name]) for name in names)
        return _digest(f"{name}\0{m.file_size}\0{m.CRC}" for name, m in members)


class _Tar:
    def __init__(self, path: Path, stream: IO[bytes], magic: bytes) -> None:
        self.path = path
        compression = _COMPRESSIONS.get(magic, "")
        self._tar = tarfile.open(  # type: ignore[call-overload]
            fileobj=stream, mode=f"r:{compression}", encoding="utf-8"
        )
        self._members = _plain(
            path, ((member.name, member) for member in self._tar.getmembers() if member.isfile())
        )
        # tarfile takes any damaged or cut header for the end of the archive.
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"damaged or cut off after {self._tar.offset} bytes")

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        stream = self.open(name)
        try:
            return stream.read()
        except _DAMAGE as error:
            raise _damaged(self.path, name, error) from None

    def open(self, name: str) -> IO[bytes]:
        stream = self._tar.extractfile(_member(self.path, self._members, name))
        assert stream is not None  # members are files
        return stream

    def fingerprint(self, names: Iterable[str]) -> str:
        return _digest(f"{name}\0{self._members[name].size}" for name in names)


def _walk(root: Path) -> Iterator[str]:
    """The visible files below a root. Links are followed, but each folder is walked only once."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            status = os.stat(root / below)
            identity = status.st_dev, status.st_ino
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(root / below) as entries:
                for entry in entries:
                    name = f"{below}{entry.name}"
                    if not _visible(entry.name):
                        continue
                    if entry.is_dir():
                        waiting.append(f"{name}/")
                    elif entry.is_file():
                        yield name
        except OSError as error:
            raise ShardError(f"{root / below} cannot be read: {error.strerror}") from None


def _plain(root: Path, entries: Iterable[tuple[str, T]]) -> dict[str, T]:
    """The visible files of entries (name as written, file), by their plain names.

    Of entries that are written alike the last one counts, as it does when an archive is unpacked.
    Raises `ShardError` when entries that are written differently have the same plain name.
    """
    written: dict[str, str] = {}
    found: dict[str, T] = {}
    for name, file in entries:
        try:
            plain = plain_name(name)
        except ValueError as error:
            raise ShardError(f"{root}: {error}: pack the files anew without such names") from None
        if not plain or not _visible(plain):
            continue
        if (other := written.setdefault(plain, name)) != name:
            raise ShardError(
                f"{root} holds {other!a} and {name!a}, which both are {plain}: pack the files anew "
                "with one of them"
            )
        found[plain] = file
    return found


def _member(root: Path, members: Mapping[str, T], name: str) -> T:
    if name not in members:
        raise ShardError(f"{root} holds no file {name}")
    return members[name]


@lru_cache(maxsize=8)
def _renamed(root: Path) -> dict[str, str]:
    """The files of a folder whose plain names are not their names on the disk."""
    files = _plain(root, ((name, name) for name in _walk(root)))
    return {plain: name for plain, name in files.items() if plain != name}


def _visible(name: str) -> bool:
    """Whether a file is neither hidden nor one of those that macOS adds to zips."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _damaged(archive: Path, name: str, error: BaseException) -> ShardError:
    return ShardError(
        f"{name} in {archive} cannot be read ({_reason(error)}): download the archive again"
    )


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
