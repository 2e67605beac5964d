"""The keys of an LMDB database, read without its values.

A cursor of LMDB touches the first page of each value that it passes. For a database as large as
LSUN's, these are three million page faults, 12 GB in no order (40 GB with read-ahead), for 120 MB
of keys. The keys are in the pages of the tree, so only these pages are read here, in constant
memory. Values are read by LMDB itself.

The format is that of MDB_page, MDB_meta, MDB_db and MDB_node in mdb.c: data version 1, 64 bits,
little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shards.errors import ShardError

_MAGIC, _VERSION = 0xBEEFC0DE, 1
# The fields of a meta page: magic, version, page size, entries and root of the main tree, the last
# page in use, and the transaction.
_META = struct.Struct("<16xII16xI76xQQQQ")
# The header of a page: its number, its flags, and the place where its list of nodes ends.
_HEADER = struct.Struct("<Q2xHH2x")
# `_KIND` masks the flags of a page's kind; leaves of fixed size or of sub-pages are other kinds.
_BRANCH, _LEAF, _KIND = 1, 2, 0x27
_EMPTY = 2**64 - 1


class Tree(NamedTuple):
    """The main tree of a database after its last transaction."""

    page_size: int
    entries: int
    root: int
    last_page: int
    transaction: int


@contextmanager
def open_keys(file: Path) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The number of entries of a `data.mdb`, and its keys in their order.

    Raises `ShardError` when the file is no LMDB database, is damaged, or is cut off.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ShardError(f"{file} cannot be opened: {error.strerror}") from None
    try:
        tree = _tree(descriptor, file)
        whole = (tree.last_page + 1) * tree.page_size
        if (size := os.fstat(descriptor).st_size) < whole:
            raise ShardError(f"{file} is cut off at {size} of {whole} bytes: unpack it again")
        yield tree.entries, _keys(descriptor, tree, file)
    finally:
        os.close(descriptor)


def _tree(descriptor: int, file: Path) -> Tree:
    first = _meta(os.pread(descriptor, _META.size, 0))
    # Transactions are written to two meta pages in turn; the second one is at the second page.
    second = first and _meta(os.pread(descriptor, _META.size, first.page_size))
    if not first or not second:
        raise ShardError(f"{file} is no LMDB database: download it again")
    return max(first, second, key=lambda tree: tree.transaction)


def _meta(data: bytes) -> Tree | None:
    if len(data) < _META.size:
        return None
    magic, version, *fields = _META.unpack(data)
    return Tree(*fields) if (magic, version) == (_MAGIC, _VERSION) else None


def _keys(descriptor: int, tree: Tree, file: Path) -> Iterator[bytes]:
    waiting = [] if tree.root == _EMPTY else [tree.root]
    left = tree.entries
    try:
        while waiting:
            number = waiting.pop()
            page = os.pread(descriptor, tree.page_size, number * tree.page_size)
            itself, flags, end = _HEADER.unpack_from(page)
            places = struct.unpack_from(f"<{(end - _HEADER.size) // 2}H", page, _HEADER.size)
            if itself != number or flags & _KIND not in (_BRANCH, _LEAF):
                raise struct.error
            if flags & _BRANCH:
                # A node's first six bytes are the number of the page below it.
                below = [int.from_bytes(page[place : place + 6], "little") for place in places]
                waiting.extend(reversed(below))
                continue
            left -= len(places)
            for place in places:
                size = page[place + 6] | page[place + 7] << 8
                yield page[place + 8 : place + 8 + size]
            if left < 0:
                raise struct.error
    except (struct.error, IndexError, OSError, OverflowError):
        left = -1
    if left:
        raise ShardError(f"{file} is damaged: unpack or download it again")
