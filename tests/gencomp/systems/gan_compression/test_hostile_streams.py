"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one; such a stream may be a whole file, which is then decoded.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gencomp.systems.gan_compression.codec import GanCodec
from tests.gencomp.gan_cases import coded, picture
from tests.gencomp.mangled_streams import (
    header,
    mangled,
    require_claims_are_refused,
    shown_of,
)

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 96 * 96
CASES = ("global", "conditional", "selective")


@cache
def codec(case: str) -> GanCodec:
    return coded(case).codec()


def streams(case: str) -> list[bytes]:
    pictures = [picture(32 + 7 * n, 40, seed=n) for n in range(4)]
    return [*map(codec(case).compress, pictures[:3]), codec(case).compress_jointly(pictures)]


@pytest.mark.parametrize("case", CASES)
def test_mangled_streams(case: str) -> None:
    generator, whole = np.random.default_rng(1), streams(case)
    assert shown_of(codec(case), lambda: mangled(whole, generator), 400, LIMIT) < 100


@pytest.mark.parametrize("case", CASES)
def test_hostile_headers(case: str) -> None:
    generator, writer = np.random.default_rng(2), codec(case).writer_fingerprint
    assert shown_of(codec(case), lambda: header(writer, generator), 400, LIMIT) < 50


@pytest.mark.parametrize("case", CASES)
def test_large_claims(case: str) -> None:
    require_claims_are_refused(codec(case), streams(case))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("case", CASES)
def test_5_000_mangled_streams_and_1_000_hostile_headers(case: str, seed: int) -> None:
    """Of each kind, seven times: 105,000 mangled streams and 21,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(case)
    writer = codec(case).writer_fingerprint
    shown_of(codec(case), lambda: mangled(whole, generator), 5_000, LIMIT)
    shown_of(codec(case), lambda: header(writer, generator), 1_000, LIMIT)
