"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one; such a stream may be a whole file, which is then decoded.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.systems.gan_compression.codec import GanCodec
from tests.gencomp.gan_cases import coded, picture
from tests.gencomp.mangled_streams import header, mangled

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 96 * 96
# A picture of the limit takes less than this, in CPU seconds and in bytes that Python holds.
SECONDS = 5.0
MEMORY = 100e6
CASES = ("global", "conditional", "selective")


@cache
def codec(case: str) -> GanCodec:
    return coded(case).codec()


def streams(case: str) -> list[bytes]:
    pictures = [picture(32 + 7 * n, 40, seed=n) for n in range(4)]
    return [*map(codec(case).compress, pictures[:3]), codec(case).compress_jointly(pictures)]


def is_shown(case: str, data: bytes, place: int) -> bool:
    """Whether a stream is shown; else it was refused by name."""
    try:
        image_HWC = codec(case).decompress(data, place=place, max_pixels=LIMIT, name="a.gcp")
    except InputError as error:
        assert "a.gcp" in str(error), str(error)
        return False
    member = container.unpack(data).members[place]
    assert image_HWC.shape == (member.height, member.width, 3)
    return True


def shown_of(case: str, made: Callable[[], bytes], count: int) -> int:
    """The number of streams that are shown, all of them within bounds of time and memory."""
    shown = 0
    tracemalloc.start()
    for number in range(count):
        data, place = made(), number % 3 * (number % 2)
        tracemalloc.reset_peak()
        held, began = tracemalloc.get_traced_memory()[0], time.process_time()
        shown += is_shown(case, data, place)
        assert time.process_time() - began < SECONDS
        assert tracemalloc.get_traced_memory()[1] - held < MEMORY
    tracemalloc.stop()
    return shown


@pytest.mark.parametrize("case", CASES)
def test_mangled_streams(case: str) -> None:
    generator, whole = np.random.default_rng(1), streams(case)
    assert shown_of(case, lambda: mangled(whole, generator), 400) < 100


@pytest.mark.parametrize("case", CASES)
def test_hostile_headers(case: str) -> None:
    generator, writer = np.random.default_rng(2), codec(case).writer_fingerprint
    assert shown_of(case, lambda: header(writer, generator), 400) < 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("case", CASES)
def test_5_000_mangled_streams_and_1_000_hostile_headers(case: str, seed: int) -> None:
    """Of each kind, seven times: 105,000 mangled streams and 21,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(case)
    writer = codec(case).writer_fingerprint
    shown_of(case, lambda: mangled(whole, generator), 5_000)
    shown_of(case, lambda: header(writer, generator), 1_000)
