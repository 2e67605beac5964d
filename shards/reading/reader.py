"""Shard sets and their splits, read at any row; every sample read is checked by its hash."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import xxhash

from shards.errors import ShardError
from shards.info import FILE_NAME as INFO_NAME
from shards.info import DatasetInfo, missing_set, parse_info, read_info
from shards.reading.columns import columns
from shards.reading.decode import decode
from shards.reading.files import is_uri, place_of, shard_files
from shards.reading.maps import map_pixels
from shards.remote.clients import shown
from shards.remote.stores import MissingObject, store


class Sample(NamedTuple):
    """One decoded sample.

    Attributes:
        key: The WebDataset key.
        image: The image, uint8 [H, W, 3] RGB.
        label: The label, or None.
        row: The sample's row in the split.
        maps: All maps of the sample by name, uint8 or uint16 [H, W]; the name of the member
            "label.png" is "label".
    """

    key: str
    image: np.ndarray
    label: int | None
    row: int
    maps: dict[str, np.ndarray]


def open_set(location: str | Path) -> ShardSet:
    """Open the shard set in a directory or at a URI; raises `ShardError` when there is none."""
    if is_uri(location):
        base = store(location)
        where = str(place_of(base.uri, INFO_NAME))
        try:
            return ShardSet(str(location), parse_info(base.read(INFO_NAME), where))
        except MissingObject:
            raise ShardError(
                f"there is no {where}: check the address, or index the tars there with "
                f"`gencomp shards index {shlex.quote(base.uri)} --out DIRECTORY`"
            ) from None
    directory = Path(location)
    if not directory.is_dir():
        raise ShardError(missing_set(directory))
    return ShardSet(directory, read_info(directory))


class ShardSet:
    """WebDataset tars with their index.

    `path` is the directory or the URI of the index, and `where` is the same without secrets, for
    messages.
    """

    def __init__(self, path: str | Path, info: DatasetInfo) -> None:
        self.path = path
        self.where = shown(str(path))
        self.info = info

    @property
    def index_hash(self) -> str:
        return self.info.index_hash

    @property
    def splits(self) -> dict[str, int]:
        """The number of samples in each split."""
        return self.info.counts

    @property
    def tars(self) -> str | Path:
        """The directory or the URI of the tars."""
        return place_of(self.path, self.info.location)

    def split(self, name: str) -> Split:
        """The split of that name; if there is none, a `ShardError` names the existing splits."""
        if name not in self.splits:
            there = ", ".join(f"{k} ({n} samples)" for k, n in self.splits.items())
            raise ShardError(f"{self.where} has no split {name!r}: it has {there or 'none'}")
        path = self.path.absolute() if isinstance(self.path, Path) else self.path
        return Split(path, name, self.info)


class Split:
    """The samples of one split by row; a row is the position in the index, a stable image number.

    A split may be shared by threads, inherited by forked processes and pickled (a copy opens the
    set anew and insists on the same index).

    Attributes:
        key_hash: The index hash and the split's name, which together identify the data.
        shard_names: The names of the shards, in the order of the rows.
        shard_lengths: The number of samples in each shard, int64 [shards], in the same order.
    """

    def __init__(self, path: str | Path, name: str, info: DatasetInfo) -> None:
        self.path = path
        self.where = shown(str(path))
        self.name = name
        self.index_hash = info.index_hash
        self.key_hash = f"{info.index_hash}/{name}"
        shards = [shard for shard in info.splits[name].shards if shard.samples]
        self.shard_names = [shard.name for shard in shards]
        self.shard_lengths = np.array([shard.samples for shard in shards], dtype=np.int64)
        self._columns = columns(path, info, name)
        self._info = info
        self._files = shard_files(place_of(path, info.location), shards)

    def __len__(self) -> int:
        return self._columns.rows

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.name, self.index_hash)

    def key(self, row: int) -> str:
        return self._columns.key(self._checked(row))

    def label(self, row: int) -> int | None:
        label = int(self._columns.label[self._checked(row)])
        return None if label < 0 else label

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """The labels of many rows, int64; -1 for a sample without a label."""
        return self._columns.label[rows].astype(np.int64)

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """The (height, width) of the stored images of many rows in pixels, int64 [n, 2]."""
        if (size := self._info.transform.size) is not None:
            return np.broadcast_to(np.array(size), (len(rows), 2))
        return self._own_sizes[rows]

    @cached_property
    def _own_sizes(self) -> np.ndarray:
        """The sizes of all images, from the index, for a set whose images differ in size."""
        from shards.reading.index_columns import image_sizes, open_index  # imports pyarrow

        return image_sizes(open_index(self.path, self._info), self.name)

    def read(self, row: int) -> Sample:
        """Read, check and decode one sample with all its maps.

        Raises `ShardError` with shard, key and byte offset when the sample is missing, is cut
        short, has changed since it was indexed, or holds no image.
        """
        span = self._span(self._checked(row))
        maps = {_map_name(member): self._map(row, member, span) for member in self._columns.maps}
        return Sample(self.key(row), self._image(row, span, None), self.label(row), row, maps)

    def read_many(self, rows: np.ndarray) -> list[Sample]:
        """The samples at `rows` (int64), in that order."""
        return [self.read(row) for row in np.asarray(rows, dtype=np.int64).tolist()]

    def image(self, row: int, out: np.ndarray | None = None) -> np.ndarray:
        """The decoded image of a row, uint8 [H, W, 3] RGB; raises as `read` does.

        If `out` has the image's shape, it receives the image and is returned.
        """
        return self._image(row, self._span(self._checked(row)), out)

    def maps(self, row: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The maps of a row by name, uint8 or uint16 [H, W]; raises as `read` does."""
        members = {name: self._member(name) for name in names}
        span = self._span(self._checked(row))
        return {name: self._map(row, member, span) for name, member in members.items()}

    def place(self, row: int) -> tuple[str, str, int]:
        """The place of a row: (shard, key, byte offset of its image)."""
        columns, row = self._columns, self._checked(row)
        offset = int(columns.offset[row]) + int(columns.image_begin[row])
        return self.shard_names[columns.shard(row)], columns.key(row), offset

    def fetch_soon(self, rows: np.ndarray) -> None:
        """Start to copy the remote shards that hold `rows` into the cache, in the background."""
        self._files.fetch_soon(self._columns.shards(rows))

    def _span(self, row: int) -> bytes:
        """The bytes of all the members of a sample, checked by their hash."""
        columns = self._columns
        size = int(columns.span[row])
        try:
            span = self._files.read(columns.shard(row), int(columns.offset[row]), size)
        except OSError as error:
            raise self._error(row, f"cannot be read: {error.strerror}") from None
        if len(span) < size:
            raise self._error(row, f"is cut short: {len(span)} of {size} bytes are there")
        if xxhash.xxh3_64_intdigest(span) != int(columns.check[row]):
            raise self._error(row, "has changed since it was indexed (its hash differs)")
        return span

    def _image(self, row: int, span: bytes, out: np.ndarray | None) -> np.ndarray:
        columns = self._columns
        begin, rest = int(columns.image_begin[row]), int(columns.image_rest[row])
        try:
            # An image that is alone in its sample, as most are, is not copied by this slice. Its
            # bytes are those that were indexed under a limit of pixels, so none is needed here.
            return decode(span[begin : len(span) - rest], out, max_pixels=None)
        except ValueError as error:
            raise self._undecodable(row, f"has an image that cannot be decoded: {error}") from None

    def _map(self, row: int, member: str, span: bytes) -> np.ndarray:
        begins, sizes = self._columns.maps[member]
        begin = int(begins[row])
        try:
            return map_pixels(span[begin : begin + int(sizes[row])], max_pixels=None)
        except ValueError as error:
            what = f"has a map {member} that cannot be decoded: {error}"
            raise self._undecodable(row, what) from None

    def _member(self, name: str) -> str:
        for member in self._columns.maps:
            if _map_name(member) == name:
                return member
        there = ", ".join(map(_map_name, self._columns.maps)) or "none"
        raise ShardError(f"{self.where} has no map {name!r}: it has {there}")

    def _checked(self, row: int) -> int:
        if not 0 <= row < self._columns.rows:
            raise ShardError(
                f"{self.where}: split {self.name!r} has rows 0 to {len(self) - 1}, not {row}"
            )
        return row

    def _error(self, row: int, what: str) -> ShardError:
        return ShardError(f"{self._named(row, what)}; `gencomp shards verify` lists all the damage")

    def _undecodable(self, row: int, what: str) -> ShardError:
        """The error for a sample that was like this when it was indexed."""
        return ShardError(
            f"{self._named(row, what)}; leave out all such samples by the command "
            f"`{_index_command(self.path, self._info)}`, and read the set that it makes"
        )

    def _named(self, row: int, what: str) -> str:
        _, key, offset = self.place(row)
        shard = self._files.name(self._columns.shard(row))
        return f"{shard}, key {key!r}, byte {offset}: the sample {what}"


def _index_command(path: str | Path, info: DatasetInfo) -> str:
    """The command that indexes the tars of a set anew without the samples that cannot be decoded.

    The new index goes to a directory beside the old one, or to the current directory if the old one
    is remote.
    """
    tars = store(place_of(path, info.location))
    local = tars.local_path("")
    place = tars.uri.replace("***@", "", 1) if local is None else str(local)
    names = sorted(shard.name for split in info.splits.values() for shard in split.shards)
    try:
        whole = names == [name for name in tars.names(".tar") if not name.startswith(".")]
    except ShardError:  # a server that lists nothing
        whole = False
    locations = [place] if whole else [str(place_of(place, name)) for name in names]
    beside = Path(urlsplit(path).path).name if isinstance(path, str) else path.absolute()
    words = ["gencomp", "shards", "index", *locations, "--out", f"{beside}-readable"]
    split = info.parameters.get("split") if info.source == "wds" else None
    words += ["--split", split] if split else []
    return shlex.join([*words, "--on-error", "skip", "--decode"])


def _map_name(member: str) -> str:
    return member.removesuffix(".png")


def _reopen(path: str | Path, name: str, index_hash: str) -> Split:
    there = open_set(path)
    if there.index_hash != index_hash:
        raise ShardError(f"{there.where} is another set now: its index hash has changed")
    return there.split(name)
