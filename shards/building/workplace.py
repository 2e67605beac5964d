"""The workplace of a build: a locked directory that remains when the build is killed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict

from shards.building.writer import NewShard, file_hash
from shards.errors import ShardError
from shards.info import ShardInfo, Skipped

_META = b"gencomp"


class Part(BaseModel):
    """The result of building one shard; `shard` is None when its items gave no sample.

    `conversions` counts what was done to images, as in dataset.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shard: ShardInfo | None
    maps: list[str]
    skipped: list[Skipped]
    conversions: dict[str, int] = {}
    digest: str

    @classmethod
    def of(
        cls, shard: NewShard | None, skipped: list[Skipped], conversions: Mapping[str, int]
    ) -> Part:
        if shard is None:
            return cls(shard=None, maps=[], skipped=skipped, digest="")
        return cls(
            shard=shard.info,
            maps=shard.maps,
            skipped=skipped,
            conversions=dict(conversions),
            digest=shard.digest.hex(),
        )


class Workplace(NamedTuple):
    """The directories of a build.

    The directory `set` becomes the shard set; `parts` holds a record of each finished shard.
    """

    set: Path
    parts: Path

    def part(self, name: str) -> Path:
        """The file of the record of the shard `name`."""
        return self.parts / f"{name}.part"

    def temporary(self, name: str) -> Path:
        """The temporary file in which this process prepares the file `name`."""
        return self.parts / f"{name}.{os.getpid()}.tmp"

    @property
    def begun(self) -> bool:
        """Whether the workplace holds a finished shard."""
        return any(self.set.glob("*.tar"))


@contextmanager
def workplace(out: Path, plan: dict[str, Any]) -> Iterator[Workplace]:
    """The locked workplace `.NAME.building` beside `out`, with what an earlier build left there.

    A workplace of another plan is cleared. At the end the workplace is removed, unless it holds
    finished shards because `out` was not made. Raises `ShardError` when another process holds the
    lock.
    """
    base = out.parent / f".{out.name}.building"
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    # Each plan has its own directory: if a process of a killed build still writes, its files cannot
    # get into the build of another plan.
    own = base / digest[:32]
    with _locked(base, out):
        for other in base.iterdir():
            if other.is_dir() and other != own:
                shutil.rmtree(other, ignore_errors=True)
        place = Workplace(own / "set", own / "parts")
        place.set.mkdir(parents=True, exist_ok=True)
        place.parts.mkdir(exist_ok=True)
        _clear_temporaries(place)
        try:
            yield place
        finally:
            if place.begun:
                _clear_temporaries(place)  # ended workers leave them, and a full disk needs room
            else:
                shutil.rmtree(base, ignore_errors=True)


def _clear_temporaries(place: Workplace) -> None:
    for left in place.parts.glob("*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def _locked(base: Path, out: Path) -> Iterator[None]:
    """Hold the lock file in `base`; `base` may be removed while the lock is held."""
    descriptor = _lock(base, out)
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(base: Path, out: Path) -> int:
    file = base / "lock"
    while True:
        base.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # the last holder of the lock has just removed the directory
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ShardError(
                f"{out} is being built by {holder}: wait until that is done, or stop it"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # the last holder of the lock has removed this file


def write_part(place: Workplace, name: str, part: Part, table: pa.Table | None) -> None:
    """Record a finished shard in a file: a hash, then an Arrow stream.

    The record survives a crash, and it is never there in part.
    """
    table = pa.table({}) if table is None else table
    table = table.replace_schema_metadata({_META: part.model_dump_json()})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    content = stream.getvalue()
    temporary = place.temporary(f"{name}.part")
    with open(temporary, "wb") as file:
        file.write(xxhash.xxh3_128_digest(content))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, place.part(name))


def read_part(place: Workplace, name: str) -> tuple[Part, pa.Table]:
    """The record of a shard, and the shard's rows of the index.

    Raises `FileNotFoundError` without a record, and `ValueError` when the record is damaged.
    """
    data = place.part(name).read_bytes()
    content = pa.py_buffer(data).slice(min(16, len(data)))
    if xxhash.xxh3_128_digest(content) != data[:16]:
        raise ValueError(f"{place.part(name)} is damaged")
    table = pa.ipc.open_stream(content).read_all()
    part = Part.model_validate_json(table.schema.metadata[_META])
    return part, table.replace_schema_metadata(None)


def finished(place: Workplace, name: str) -> Part | None:
    """The record of a shard if it lies undamaged in the set, which is checked byte for byte."""
    try:
        part, _ = read_part(place, name)
        if part.shard is not None:
            file = place.set / name
            if file.stat().st_size != part.shard.bytes or file_hash(file) != part.shard.hash:
                return None
    except (FileNotFoundError, ValueError):
        return None
    return part


def sync(path: Path) -> None:
    """Write a file or the entries of a directory through to the disk, to survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
