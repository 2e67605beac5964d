"""Streams as no encoder writes them: with changed bytes, or with headers that say anything."""

from __future__ import annotations

import binascii
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from gencomp.coding import container
from gencomp.coding.fields import varints
from gencomp.errors import InputError
from gencomp.system import Codec
from tests.mutation import mutated

_EXACT = 8  # the bit of exact containers in the third byte
# A small picture is shown or refused within so many CPU seconds, and bytes that Python holds.
_SECONDS = 5.0
_MEMORY = 100e6


def sealed(body: bytes) -> bytes:
    """Bytes with the right checksum behind them, whatever they say."""
    if body[2] & _EXACT:
        return body + (binascii.crc_hqx(body, 0xFFFF) ^ 0xFFFF).to_bytes(2, "big")
    return body + zlib.crc32(body).to_bytes(4, "big")


def mangled(streams: Sequence[bytes], generator: np.random.Generator) -> bytes:
    """A stream with bytes changed, cut, added or taken from another stream; in half of the cases
    with the right checksum."""
    data = mutated(streams, generator)
    if len(data) > 8 and generator.integers(2):
        return sealed(data[: -2 if data[2] & _EXACT else -4])
    return data


def header(writer: bytes, generator: np.random.Generator, exact: bool = False) -> bytes:
    """A container of the right writer with the right checksum, whose fields say what they like."""
    bits = int(generator.integers(4 if exact else 8)) | (_EXACT * exact)
    number = [
        lambda: int(generator.integers(4)),
        lambda: int(generator.integers(1, 64)),
        lambda: int(generator.integers(60_000, 70_000)),
        lambda: 1 << int(generator.integers(35)),
        lambda: int(generator.choice([8192, 65535, 65536, 2**17, 2**26, 2**32 - 1, 2**35 - 1])),
    ]
    fields = b"".join(
        varints([number[generator.integers(len(number))]()])
        for _ in range(generator.integers(1, 12))
    )
    rest = generator.bytes(int(generator.choice([0, 1, 5, 8, 40, 300])))
    prefix = container.MAGIC + bytes([container.VERSION << 4 | bits])
    return sealed(prefix + writer[: 4 if exact else 6] + fields + rest)


def shown_of(codec: Codec, made: Callable[[], bytes], count: int, limit: int) -> int:
    """The number of streams that are shown; others are refused by name, all of them in bounds.

    Args:
        codec: the codec that reads them.
        made: gives one stream after the other.
        count: the number of streams.
        limit: the number of pixels that are decoded at most.
    """
    shown = 0
    tracemalloc.start()
    for number in range(count):
        data, place = made(), number % 3 * (number % 2)
        tracemalloc.reset_peak()
        held, began = tracemalloc.get_traced_memory()[0], time.process_time()
        shown += _is_shown(codec, data, place, limit)
        assert time.process_time() - began < _SECONDS
        assert tracemalloc.get_traced_memory()[1] - held < _MEMORY
    tracemalloc.stop()
    return shown


def _is_shown(codec: Codec, data: bytes, place: int, limit: int) -> bool:
    try:
        image_HWC = codec.decompress(data, place=place, max_pixels=limit, name="a.gcp")
    except InputError as error:
        assert "a.gcp" in str(error), str(error)
        return False
    member = container.unpack(data).members[place]
    assert image_HWC.shape == (member.height, member.width, 3)
    return True
