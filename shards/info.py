"""`dataset.json`: what a shard set says about itself."""

from __future__ import annotations

import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shards.errors import ShardError

FORMAT_VERSION = 2
FILE_NAME = "dataset.json"
LABEL = "label"  # the map whose ids the classes name; without it they name the samples' labels


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Transform(_Model):
    """What was done to the images before they were stored, which is part of a result's protocol."""

    size: tuple[int, int] | None = Field(
        description="stored (height, width) in pixels; null: each image has its own size"
    )
    geometry: str = Field(description="how images were resized and cropped, in words")
    storage: str = Field(
        description="'original' (the bytes as found), 'png', 'webp' (lossless) or 'jpeg:<quality>'"
    )


class ShardInfo(_Model):
    name: str
    bytes: int
    samples: int
    hash: str = Field(description="the xxh3_128 hash of the whole file, in hex")


class SplitInfo(_Model):
    samples: int
    shards: list[ShardInfo] = Field(description="the shards, in the order of the index")


class Skipped(_Model):
    path: str
    reason: str


class DatasetInfo(_Model):
    """The content of `dataset.json`."""

    format_version: int = FORMAT_VERSION
    name: str
    source: str = Field(
        description="the source that the set was built from: 'photos', 'folder', 'wds', ..."
    )
    parameters: dict[str, Any] = Field(
        description="everything that decides the content: equal parameters give equal sets"
    )
    transform: Transform
    location: str | None = Field(
        default=None,
        description="the directory (absolute, or relative to this file) or the URI of the tars; "
        "null: the tars lie beside this file",
    )
    splits: dict[str, SplitInfo] = Field(description="the splits, in the order of the index")
    classes: list[str] = Field(default=[], description="the names of the labels 0, 1, ...")
    maps: list[str] = Field(
        default=[], description="the members that are maps of pixels, such as 'label.png'"
    )
    skipped: list[Skipped] = Field(
        default=[], description="the inputs that were left out, each with the reason"
    )
    conversions: dict[str, int] = Field(
        default={},
        description="what was done to files that are not RGB of 8 bits, upright and opaque, and to "
        "how many of them",
    )
    index_hash: str = Field(description="the sha256 hash of the index's logical content")
    index_bytes_hash: str = Field(
        description="the xxh3_128 hash of the bytes of index.parquet, by which damage is found"
    )
    created_by: str

    @property
    def classes_of_maps(self) -> dict[str, list[str]]:
        """The names of the ids 0, 1, ... of each map that has such names."""
        return {LABEL: self.classes} if self.classes and f"{LABEL}.png" in self.maps else {}

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples in each split."""
        return {name: split.samples for name, split in self.splits.items()}


def created_by() -> str:
    try:
        return f"gencomp {metadata.version('gencomp')}"
    except metadata.PackageNotFoundError:  # gencomp runs from a source tree and is not installed
        return "gencomp"


def read_info(directory: Path) -> DatasetInfo:
    """Read `dataset.json`; raises `ShardError` when it is missing, damaged or of another format."""
    path = directory / FILE_NAME
    try:
        return parse_info(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise ShardError(missing_set(directory)) from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from None


def parse_info(data: bytes, where: str) -> DatasetInfo:
    """The content of a `dataset.json`; raises `ShardError` when it is damaged or of another format.

    `where` is the name of the file in messages.
    """
    try:
        content = json.loads(data)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError):  # UnicodeDecodeError is a ValueError
        raise ShardError(
            f"{where} cannot be read: it is no JSON object with a format_version"
        ) from None
    if version != FORMAT_VERSION:
        raise ShardError(_other_version(where, version))
    try:
        return DatasetInfo.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ShardError(f"{where} cannot be read: {place}: {first['msg']}") from None


def write_info(info: DatasetInfo, directory: Path) -> None:
    temporary = directory / f".{FILE_NAME}.{os.getpid()}.tmp"
    temporary.write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, directory / FILE_NAME)


def missing_set(directory: Path) -> str:
    """The message for a directory that is no shard set; it names the sets that lie beside it."""
    if directory.is_dir():
        if any(directory.glob("*.tar")):
            return (
                f"{directory} holds tars without an index: run "
                f"`gencomp shards index {shlex.quote(str(directory))}`"
            )
        return f"{directory} is not a shard set: it has no {FILE_NAME}"
    parent = directory.parent
    found = sorted(p.parent.name for p in parent.glob(f"*/{FILE_NAME}"))
    there = f"{parent} holds {', '.join(found)}" if found else f"{parent} holds no shard set"
    return f"there is no shard set {directory}; {there} (`gencomp shards build` makes one)"


def _other_version(where: str, version: object) -> str:
    if isinstance(version, int) and version < FORMAT_VERSION:
        return (
            f"{where} was made by an older gencomp (format version {version}, this one reads "
            f"{FORMAT_VERSION}): build the set anew"
        )
    return (
        f"{where} has format version {version}, this gencomp reads {FORMAT_VERSION}: "
        "upgrade gencomp"
    )
