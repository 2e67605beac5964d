"""The members of a plain tar with their offsets, grouped into samples as WebDataset does it."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

import xxhash

from shards.errors import ShardError

BLOCK = 512
_CHUNK = 1 << 20
# The rule of webdataset: the key is the path up to the first dot of its last component. Here a
# backslash also ends a component, as in tars from Windows, and a name that begins with a dot is
# hidden, also in a folder.
_KEY_AND_EXTENSION = re.compile(r"^((?:.*[/\\])?[^./\\]+)[.]([^/\\]*)$", re.DOTALL)
_META = re.compile(r"(^|.*/)__[^/]*__($|/)")
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


class Stream(Protocol):
    """The methods that a seekable binary stream must have here."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class Member(NamedTuple):
    """One file in a tar.

    `name` is the file's extension within its sample, `offset` the place of its first byte in the
    tar, and `size` its size in bytes.
    """

    name: str
    offset: int
    size: int


def split_name(path: str) -> tuple[str, str] | None:
    """The key and the extension in a member's path, or None for a name that WebDataset skips."""
    match = _KEY_AND_EXTENSION.match(path)
    return (match[1], match[2].lower()) if match and not is_meta(path) else None


def is_meta(path: str) -> bool:
    """Whether WebDataset skips a path because one of its parts is named like `__pairs__`."""
    return _META.match(path) is not None


def scan(tar: Path | Stream, where: str | None = None) -> list[tuple[str, list[Member]]]:
    """The samples of a tar, as `samples` gives them; only the headers of the tar are read.

    If `tar` is a stream, `where` is its name in messages.
    """
    if not isinstance(tar, Path):
        return list(samples(tar, where or str(tar)))
    try:
        with open(tar, "rb") as stream:
            return list(samples(stream, where or str(tar)))
    except FileNotFoundError:
        raise ShardError(f"there is no shard {tar}") from None
    except OSError as error:
        raise ShardError(f"{tar} cannot be read: {error.strerror}") from None


def samples(stream: Stream, where: str) -> Iterator[tuple[str, list[Member]]]:
    """The samples of the tar `where` as (key, members), in file order.

    The stream is read from its start, and the members' data are not kept. Raises `ShardError` for
    compressed, sparse, damaged or truncated tars and for a sample that has the same extension
    twice.
    """
    for key, members in groups(stream, where):
        if (second := repeated(members)) is not None:
            raise ShardError(f"{where}: sample {key!r} {two_members(second)}")
        yield key, members


def groups(stream: Stream, where: str) -> Iterator[tuple[str, list[Member]]]:
    """The samples as `samples` gives them, and also those that have an extension twice."""
    key, members = "", list[Member]()
    end = 0
    for info in _members(stream, where):
        data_end = info.offset_data + (info.size if info.isreg() else 0)
        end = -(-data_end // BLOCK) * BLOCK
        parts = split_name(utf8_name(info.name)) if info.isreg() else None
        if parts is None:
            continue
        if parts[0] != key and members:
            yield key, members
            members = []
        key = parts[0]
        members.append(Member(parts[1], info.offset_data, info.size))
    if members:
        yield key, members
    _check_end(stream, where, end)


def repeated(members: list[Member]) -> Member | None:
    """The first member whose extension an earlier member has; None if there is none."""
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            return member
        seen.add(member.name)
    return None


def two_members(second: Member) -> str:
    """What is wrong with a sample that has an extension twice, the second time at `second`."""
    return (
        f"has two members {second.name!r} (the second at byte {second.offset}): give every sample "
        "a key of its own"
    )


def utf8_name(name: str) -> str:
    """A name as Python decodes it; one that is not UTF-8 is taken as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


class OnePass:
    """A seekable stream that is read once, from its start to its end.

    All bytes that are passed are hashed, and kept until `let_go` is called for them. So `samples`
    can step back a little, and the content of a sample is still there once the sample is complete,
    although the stream is read only once and in order.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._digest = xxhash.xxh3_128()
        self._kept = bytearray()
        self._kept_from = 0
        self._position = 0

    @property
    def reached(self) -> int:
        """The number of bytes passed so far."""
        return self._kept_from + len(self._kept)

    @property
    def hash(self) -> str:
        """The xxh3_128 hash of the bytes passed so far, in hex."""
        return self._digest.hexdigest()

    def read(self, size: int = -1, /) -> bytes:
        begin = self._position
        self._pass(None if size < 0 else begin + size)
        piece = self.between(begin, self.reached if size < 0 else begin + size)
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_END:
            self._pass(None)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.reached}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def between(self, begin: int, end: int) -> bytes:
        """The bytes [begin, end), which must have been passed and not let go."""
        assert begin >= self._kept_from
        return bytes(self._kept[begin - self._kept_from : end - self._kept_from])

    def let_go(self, end: int) -> None:
        """Forget the bytes before `end`, which are no longer needed."""
        gone = min(max(end - self._kept_from, 0), len(self._kept))
        del self._kept[:gone]
        self._kept_from += gone

    def _pass(self, end: int | None) -> None:
        while end is None or self.reached < end:
            piece = self._stream.read(_CHUNK if end is None else min(_CHUNK, end - self.reached))
            if not piece:
                return
            self._digest.update(piece)
            self._kept += piece


def _members(stream: Stream, where: str) -> Iterator[tarfile.TarInfo]:
    """All members in order, directories included; sparse members are refused."""
    stream.seek(0)
    _refuse_compressed(where, stream.read(8))
    stream.seek(0)
    try:
        # To read a tar, `tarfile` needs no more methods than the three of `Stream`.
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:", encoding="utf-8") as tar:
            for info in tar:
                if info.issparse():
                    raise ShardError(
                        f"{where}: member {info.name!r} is stored sparse: unpack the tar and "
                        "pack it again without --sparse"
                    )
                yield info
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
    except (tarfile.TarError, EOFError) as error:
        raise ShardError(f"{where} is no whole tar: {error}") from None


def _refuse_compressed(where: str, head: bytes) -> None:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise ShardError(
                f"{where} is compressed ({name}) and cannot be read at any offset: uncompress it "
                "first (for example `gunzip`); images inside are compressed already"
            )


def _check_end(stream: Stream, where: str, end: int) -> None:
    """Raise `ShardError` unless only zeros follow the last member.

    `tarfile` takes a damaged header for the end of the archive, so what follows must be looked at.
    """
    at = stream.seek(end)
    while chunk := stream.read(_CHUNK):
        if chunk.strip(b"\0"):
            at += len(chunk) - len(chunk.lstrip(b"\0"))
            raise ShardError(
                f"{where}: a damaged or cut header, or data after the end of the archive, "
                f"at byte {at}"
            )
        at += len(chunk)
    size = stream.seek(0, os.SEEK_END)
    if size < end:
        raise ShardError(f"{where} is truncated: {size} bytes, its last member ends at {end}")
