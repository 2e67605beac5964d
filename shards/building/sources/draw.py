"""The seeded choice of a test split."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator


def drawn(names: Iterable[str], count: int, seed: int) -> list[tuple[int, str]]:
    """Choose `count` of the names, and return their (place, name) in the order given.

    The names with the smallest sha256 of "seed/name" are chosen. So the choice depends neither on
    the order of the names nor on the version of a random generator. It takes one pass over all the
    names, and O(count) memory.
    """
    prefix = hashlib.sha256(f"{seed}/".encode())

    def ranked() -> Iterator[tuple[bytes, int, str]]:
        for place, name in enumerate(names):
            digest = prefix.copy()
            digest.update(name.encode("utf-8", "surrogateescape"))
            yield digest.digest(), place, name

    # `nsmallest` is asked for at least one name: for none, it would not go through the names.
    smallest = heapq.nsmallest(max(count, 1), ranked())[:count]
    return sorted((place, name) for _, place, name in smallest)
