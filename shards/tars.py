"""What lies where in a plain tar: members with their offsets, grouped as WebDataset groups them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.errors import ShardError

BLOCK = 512
# webdataset's rule: the key is the path up to the first dot of its last component.
_KEY_AND_EXTENSION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
_META = re.compile(r"(^|.*/)__[^/]*__($|/)")
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
}


class Member(NamedTuple):
    """One file in a tar: `name` is its extension within the sample; offset of its first byte."""

    name: str
    offset: int
    size: int


def split_name(path: str) -> tuple[str, str] | None:
    """Key and extension of a member's path, or None for a name that WebDataset skips."""
    match = _KEY_AND_EXTENSION.match(path)
    return (match[1], match[2].lower()) if match and not _META.match(path) else None


def scan(path: Path) -> list[tuple[str, list[Member]]]:
    """The samples of a tar as (key, members), in file order, from its headers alone.

    Raises `ShardError` for compressed, sparse, damaged or truncated tars and for a sample that
    has the same extension twice.
    """
    samples: list[tuple[str, list[Member]]] = []
    for info in _members(path):
        parts = split_name(info.name)
        if parts is None:
            continue
        key, name = parts
        member = Member(name, info.offset_data, info.size)
        if not samples or samples[-1][0] != key:
            samples.append((key, [member]))
        elif any(name == other.name for other in samples[-1][1]):
            raise ShardError(
                f"{path}: sample {key!r} has two members {name!r} (the second at byte "
                f"{member.offset}): give every sample a key of its own"
            )
        else:
            samples[-1][1].append(member)
    return samples


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Regular files in order. `tarfile` takes a damaged header for the end: so look there."""
    try:
        with open(path, "rb") as stream:
            _refuse_compressed(path, stream.read(8))
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                end = 0
                for info in tar:
                    if info.issparse():
                        raise ShardError(
                            f"{path}: member {info.name!r} is stored sparse: unpack the tar and "
                            "pack it again without --sparse"
                        )
                    data_end = info.offset_data + (info.size if info.isreg() else 0)
                    end = -(-data_end // BLOCK) * BLOCK
                    if info.isreg():
                        yield info
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
            _check_end(path, stream, end)
    except FileNotFoundError:
        raise ShardError(f"there is no shard {path}") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{path} is no whole tar: {error}") from None


def _refuse_compressed(path: Path, head: bytes) -> None:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise ShardError(
                f"{path} is compressed ({name}) and cannot be read at any offset: uncompress it "
                "first (for example `gunzip`); images inside are compressed already"
            )


def _check_end(path: Path, stream: BinaryIO, end: int) -> None:
    size = stream.seek(0, 2)
    if size < end:
        raise ShardError(f"{path} is truncated: {size} bytes, its last member ends at {end}")
    stream.seek(end)
    while chunk := stream.read(1 << 20):
        if chunk.strip(b"\0"):
            at = end + len(chunk) - len(chunk.lstrip(b"\0"))
            raise ShardError(
                f"{path}: a damaged or cut header, or data after the end of the archive, "
                f"at byte {at}"
            )
        end += len(chunk)
