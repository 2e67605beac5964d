"""Bytes as no program writes them: changed, cut, added, or taken from another file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mutated(files: Sequence[bytes], generator: np.random.Generator) -> bytes:
    """One of the files with one to three changes."""
    data = bytearray(files[generator.integers(len(files))])
    for _ in range(generator.integers(1, 4)):
        at = int(generator.integers(len(data) + 1))
        kind = generator.integers(6)
        if kind <= 1 and at < len(data):
            data[at] ^= int(generator.integers(1, 256))
        elif kind == 2:
            del data[at : at + int(generator.integers(1, 9))]
        elif kind == 3:
            data[at:at] = generator.bytes(int(generator.integers(1, 9)))
        elif kind == 4:
            other = files[generator.integers(len(files))]
            data[at:] = other[int(generator.integers(len(other))) :]
        elif at < len(data):
            data[at] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(data)
