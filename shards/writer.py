"""Write the samples of one split as WebDataset tars and index rows, byte for byte reproducible."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shards import tars
from shards.errors import ShardError
from shards.index import IndexWriter, Row, content_hash
from shards.info import ShardInfo, SplitInfo


class NewSample(NamedTuple):
    """A sample to be written: `members` maps extensions to bytes, one of them the image."""

    key: str
    members: dict[str, bytes]
    image_ext: str
    width: int
    height: int
    label: int | None
    source: str


class SplitWriter:
    """Cuts the samples of a split into tars of `shard_size` samples and adds them to the index."""

    def __init__(self, directory: Path, split: str, shard_size: int, index: IndexWriter) -> None:
        self._directory = directory
        self._split = split
        self._shard_size = shard_size
        self._index = index
        self._pending: list[NewSample] = []
        self._shards: list[ShardInfo] = []

    def write(self, sample: NewSample) -> None:
        self._pending.append(sample)
        if len(self._pending) == self._shard_size:
            self._flush()

    def close(self) -> SplitInfo:
        if self._pending:
            self._flush()
        return SplitInfo(samples=sum(s.samples for s in self._shards), shards=self._shards)

    def _flush(self) -> None:
        name = f"{self._split}-{len(self._shards):06d}.tar"
        path = self._directory / name
        _write_tar(path, self._pending)
        # The offsets are read back from the tar itself, so the index cannot disagree with it.
        found = tars.scan(path)
        if [key for key, _ in found] != [sample.key for sample in self._pending]:
            raise ShardError(f"{path}: keys must differ and hold no dot in their last component")
        rows = [
            Row(
                self._split, name, s.key, s.image_ext, s.width, s.height, s.label, s.source,
                content_hash(s.members[m.name] for m in members), members,
            )
            for s, (_, members) in zip(self._pending, found, strict=True)
        ]  # fmt: skip
        self._index.add(rows)
        self._shards.append(
            ShardInfo(name=name, bytes=path.stat().st_size, samples=len(self._pending))
        )
        self._pending = []


def _write_tar(path: Path, samples: list[NewSample]) -> None:
    from webdataset.writer import TarWriter  # it imports torch, which readers can do without

    with open(path, "wb") as stream:
        # PAX only shows in the bytes where a name does not fit the plain header.
        with TarWriter(
            stream, user="gencomp", group="gencomp", mode=0o444, mtime=0,
            encoder=False, compress=False, format="PAX_FORMAT",
        ) as tar:  # fmt: skip
            for sample in samples:
                tar.write({"__key__": sample.key, **sample.members})
