"""A category of LSUN in LMDB, cut into a train split and held-out test images.

Of all the keys, only each 256th and those of the held-out images are kept in memory.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shards.building.sources.draw import drawn
from shards.building.sources.lmdb_keys import open_keys
from shards.errors import ShardError

if TYPE_CHECKING:
    import lmdb

MARK = 256  # the number of entries from one key that is kept in memory to the next


class Extent(NamedTuple):
    """A block of the train split: `entries` entries, without those that are held out.

    The first entry is the one that lies `skip` entries after that of the key.
    """

    database: Path
    key: bytes
    skip: int
    entries: int
    held_out: frozenset[int]  # places, counted from the first entry after the skip


class Picked(NamedTuple):
    """A block of the test split: the keys of its entries."""

    database: Path
    keys: tuple[bytes, ...]


class Entry(NamedTuple):
    """A work item: an entry's key, and its value, the bytes of an image file."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Train:
    """The entries that are not held out, in the order of their keys.

    `marks` are the keys of the entries 0, MARK, 2·MARK, ...; `held_out` are the sorted places of
    the entries of the test split.
    """

    database: Path
    entries: int
    marks: list[bytes]
    held_out: list[int]

    def __len__(self) -> int:
        return self.entries - len(self.held_out)

    def block(self, start: int, stop: int) -> Extent:
        first, last = self._place(start), self._place(stop - 1)
        among = slice(bisect_left(self.held_out, first), bisect_left(self.held_out, last))
        return Extent(
            self.database,
            key=self.marks[first // MARK],
            skip=first % MARK,
            entries=stop - start,
            held_out=frozenset(place - first for place in self.held_out[among]),
        )

    def _place(self, item: int) -> int:
        """The place of item i among all the entries.

        It lies after each held-out place p_j with p_j - j ≤ i.
        """
        return item + bisect_right(
            range(len(self.held_out)), item, key=lambda j: self.held_out[j] - j
        )


@dataclass(frozen=True)
class HeldOut:
    """The entries of the test split, in the order of their keys."""

    database: Path
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def block(self, start: int, stop: int) -> Picked:
        return Picked(self.database, tuple(self.keys[start:stop]))


def scan(database: Path, test_images: int, seed: int) -> tuple[Train, HeldOut, str]:
    """Find both splits in one pass over the keys alone; also the sha256 of the keys in order."""
    marks: list[bytes] = []
    digest = hashlib.sha256()

    def names(keys: Iterator[bytes]) -> Iterator[str]:
        for place, key in enumerate(keys):
            if place % MARK == 0:
                marks.append(key)
            digest.update(key + b"\n")
            yield key.decode("latin-1")

    with open_keys(database / "data.mdb") as (entries, keys):
        check_test_images(test_images, entries, database)
        chosen = drawn(names(keys), test_images, seed)
    train = Train(database, entries, marks, [place for place, _ in chosen])
    test = HeldOut(database, [name.encode("latin-1") for _, name in chosen])
    return train, test, digest.hexdigest()


def check_test_images(test_images: int, images: int, where: Path) -> None:
    if not 0 <= test_images < images:
        raise ShardError(
            f"a test split of {test_images} images out of the {images} in {where} is not "
            f"possible: choose test_images from 0 to {max(images - 1, 0)}"
        )


def read_entries(block: Extent | Picked) -> Iterator[Entry]:
    """The entries of a block in order; one entry is in memory at a time."""
    with _reading(block.database) as transaction:
        if isinstance(block, Picked):
            for key in block.keys:
                yield _entry(block.database, key, transaction.get(key))
            return
        cursor = transaction.cursor()
        if not cursor.set_key(block.key):
            raise _changed(block.database)
        for _ in range(block.skip):
            cursor.next()
        for place in range(block.entries + len(block.held_out)):
            if place not in block.held_out:
                yield _entry(block.database, *cursor.item())
            cursor.next()


def _entry(database: Path, key: bytes | memoryview, data: bytes | memoryview | None) -> Entry:
    if not key or data is None:  # a cursor past the end gives empty bytes
        raise _changed(database)
    return Entry(bytes(key).decode("latin-1"), bytes(data))


def _changed(database: Path) -> ShardError:
    return ShardError(f"{database} has changed since its keys were read: start again")


@contextmanager
def _reading(database: Path) -> Iterator[lmdb.Transaction]:
    """A read-only transaction, which leaves no lock file; a process has one at a time."""
    import lmdb

    try:
        # The database is opened anew for each block, so that mapped memory does not accumulate.
        with (
            lmdb.open(str(database), readonly=True, lock=False, create=False) as environment,
            environment.begin() as transaction,
        ):
            yield transaction
    except lmdb.Error as error:
        raise ShardError(f"{database} cannot be read ({error}): unzip it again") from None
