"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one. A lossless stream then still ends in an `InputError`, as the hash of its image is wrong; a
lossy one may be what an encoder has written for another picture, and is shown.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.gencomp.mangled_streams import header, mangled, shown_of
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, codec

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 64 * 64


def streams(kind: str) -> list[bytes]:
    pictures = codec_cases.crops(4, 4, 20, seed=7)
    alone = [codec(kind).compress(picture) for picture in pictures[:3]]
    return [*alone, codec(kind).compress_jointly(pictures)]


def hostile(kind: str, generator: np.random.Generator) -> bytes:
    return header(codec(kind).writer_fingerprint, generator, exact=kind in LOSSLESS)


@pytest.mark.parametrize("kind", KINDS)
def test_mangled_streams(kind: str) -> None:
    generator, whole = np.random.default_rng(1), streams(kind)
    shown = shown_of(codec(kind), lambda: mangled(whole, generator), 600, LIMIT)
    assert shown < 300 if kind not in LOSSLESS else shown < 30


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_headers(kind: str) -> None:
    generator = np.random.default_rng(2)
    assert shown_of(codec(kind), lambda: hostile(kind, generator), 400, LIMIT) < 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_5_000_mangled_streams_and_1_000_hostile_headers(kind: str, seed: int) -> None:
    """Of each kind, four times: 100,000 mangled streams and 20,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(kind)
    shown_of(codec(kind), lambda: mangled(whole, generator), 5_000, LIMIT)
    shown_of(codec(kind), lambda: hostile(kind, generator), 1_000, LIMIT)
