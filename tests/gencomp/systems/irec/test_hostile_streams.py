"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one. A lossless stream then still ends in an `InputError`, as the hash of its image is wrong; a
lossy one may be what an encoder has written for another picture, and is shown.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from gencomp.coding import container
from gencomp.errors import InputError
from tests.gencomp.mangled_streams import header, mangled
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, codec

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 64 * 64
# A picture of the limit takes less than this, in CPU seconds and in bytes that Python holds.
SECONDS = 5.0
MEMORY = 100e6


def streams(kind: str) -> list[bytes]:
    pictures = codec_cases.crops(4, 4, 20, seed=7)
    alone = [codec(kind).compress(picture) for picture in pictures[:3]]
    return [*alone, codec(kind).compress_jointly(pictures)]


def hostile(kind: str, generator: np.random.Generator) -> bytes:
    return header(codec(kind).writer_fingerprint, generator, exact=kind in LOSSLESS)


def attempt(kind: str, data: bytes, place: int) -> bool:
    """Whether a stream is shown; else it was refused by name."""
    try:
        image_HWC = codec(kind).decompress(data, place=place, max_pixels=LIMIT, name="a.gcp")
    except InputError as error:
        assert "a.gcp" in str(error), str(error)
        return False
    member = container.unpack(data).members[place]
    assert image_HWC.shape == (member.height, member.width, 3)
    return True


def attempt_all(kind: str, made: Callable[[], bytes], count: int) -> int:
    """The number of streams that are shown, all of them within bounds of time and memory."""
    shown = 0
    tracemalloc.start()
    for number in range(count):
        data, place = made(), number % 3 * (number % 2)
        tracemalloc.reset_peak()
        held, began = tracemalloc.get_traced_memory()[0], time.process_time()
        shown += attempt(kind, data, place)
        assert time.process_time() - began < SECONDS
        assert tracemalloc.get_traced_memory()[1] - held < MEMORY
    tracemalloc.stop()
    return shown


@pytest.mark.parametrize("kind", KINDS)
def test_mangled_streams(kind: str) -> None:
    generator, whole = np.random.default_rng(1), streams(kind)
    shown = attempt_all(kind, lambda: mangled(whole, generator), 600)
    assert shown < 300 if kind not in LOSSLESS else shown < 30


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_headers(kind: str) -> None:
    generator = np.random.default_rng(2)
    assert attempt_all(kind, lambda: hostile(kind, generator), 400) < 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_5_000_mangled_streams_and_1_000_hostile_headers(kind: str, seed: int) -> None:
    """Of each kind, four times: 100,000 mangled streams and 20,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(kind)
    attempt_all(kind, lambda: mangled(whole, generator), 5_000)
    attempt_all(kind, lambda: hostile(kind, generator), 1_000)
