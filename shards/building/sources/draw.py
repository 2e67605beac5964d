"""The seeded choice of a test split."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator


def drawn(names: Iterable[str], count: int, seed: int) -> list[tuple[int, str]]:
    """Choose `count` of the names: (place, name), in the order given.

    Those with the smallest sha256 of "seed/name" are chosen, so that a choice does not depend on
    the order of the names, nor on the version of a generator. One pass over all the names, in
    memory O(count).
    """
    prefix = hashlib.sha256(f"{seed}/".encode())

    def ranked() -> Iterator[tuple[bytes, int, str]]:
        for place, name in enumerate(names):
            digest = prefix.copy()
            digest.update(name.encode("utf-8", "surrogateescape"))
            yield digest.digest(), place, name

    # At least one, since for none `nsmallest` would not look at the names at all.
    smallest = heapq.nsmallest(max(count, 1), ranked())[:count]
    return sorted((place, name) for _, place, name in smallest)
