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
from gencomp.coding.fields import varints
from gencomp.errors import InputError
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, codec, sealed

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 64 * 64
# A picture of the limit takes less than this, in CPU seconds and in bytes that Python holds.
SECONDS = 5.0
MEMORY = 100e6


def streams(kind: str) -> list[bytes]:
    pictures = codec_cases.crops(4, 4, 20, seed=7)
    alone = [codec(kind).compress(picture) for picture in pictures[:3]]
    return [*alone, codec(kind).compress_jointly(pictures)]


def mangled(streams: list[bytes], generator: np.random.Generator) -> bytes:
    """A stream with bytes changed, cut, added or taken from another stream; in half of the cases
    with the right checksum."""
    stream = streams[generator.integers(len(streams))]
    data = bytearray(stream)
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
            other = streams[generator.integers(len(streams))]
            data[at:] = other[int(generator.integers(len(other))) :]
        elif at < len(data):
            data[at] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF]))
    if len(data) > 8 and generator.integers(2):
        return sealed(bytes(data[: -2 if data[2] & 8 else -4]))
    return bytes(data)


def header(kind: str, generator: np.random.Generator) -> bytes:
    """A container of the right writer with the right checksum, whose fields say what they like."""
    exact = kind in LOSSLESS
    bits = int(generator.integers(4)) | (8 if exact else 0)
    number = [
        lambda: int(generator.integers(4)),
        lambda: int(generator.integers(1, 64)),
        lambda: int(generator.integers(60_000, 70_000)),
        lambda: 1 << int(generator.integers(35)),
    ]
    fields = b"".join(
        varints([number[generator.integers(len(number))]()])
        for _ in range(generator.integers(1, 12))
    )
    rest = generator.bytes(int(generator.choice([0, 1, 5, 8, 40, 300])))
    writer = codec(kind).writer_fingerprint[: 4 if exact else 6]
    return sealed(container.MAGIC + bytes([container.VERSION << 4 | bits]) + writer + fields + rest)


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
    assert attempt_all(kind, lambda: header(kind, generator), 400) < 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_5_000_mangled_streams_and_1_000_hostile_headers(kind: str, seed: int) -> None:
    """Of each kind, four times: 100,000 mangled streams and 20,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(kind)
    attempt_all(kind, lambda: mangled(whole, generator), 5_000)
    attempt_all(kind, lambda: header(kind, generator), 1_000)
