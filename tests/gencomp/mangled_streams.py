"""Streams as no encoder writes them: with changed bytes, or with headers that say anything."""

from __future__ import annotations

import binascii
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from gencomp.coding import container
from gencomp.coding.fields import varints
from gencomp.errors import InputError
from gencomp.system import Codec
from tests.mutation import mutated
from tests.resident_memory import forget_peak, peak

_EXACT = 8  # the bit of exact containers in the third byte
# What a refusal may cost, in CPU seconds and in bytes of resident memory.
SECONDS, MEMORY = 0.1, 100e6
# The CPU seconds in which a small picture is decoded.
_SECONDS_OF_A_PICTURE = 5.0
# As many pixels as a container can claim.
_ALL_PIXELS = container.MAX_SIDE**2
# Heights and widths that are much larger than those of the streams.
_LARGE = ((2048, 2048), (8192, 8192), (65535, 65535), (1, 65535), (65535, 1))


class Cost:
    """The most that a refusal took, in CPU seconds and in bytes of resident memory.

    A picture that decodes to other pixels is refused after it was decoded, so it costs what a
    picture costs, and is not counted here.
    """

    def __init__(self) -> None:
        self.seconds = self.memory = 0.0
        self.refused = self.late = self.shown = 0

    def attempt(self, decode: Callable[[], np.ndarray]) -> np.ndarray | None:
        """The image that is shown; None if it is refused."""
        before, began = forget_peak(), time.process_time()
        try:
            image_HWC = decode()
        except InputError as error:
            spent = time.process_time() - began
            self.refused += 1
            if "decodes to other pixels" in str(error):
                self.late += 1
                return None
            self.memory = max(self.memory, peak() - before)
            if spent > SECONDS:  # a busy machine slows any work down, but not every time
                spent = min(spent, *(self._again(decode) for _ in range(5)))
            self.seconds = max(self.seconds, spent)
            return None
        assert time.process_time() - began < _SECONDS_OF_A_PICTURE
        self.shown += 1
        return image_HWC

    @staticmethod
    def _again(decode: Callable[[], np.ndarray]) -> float:
        began = time.process_time()
        with pytest.raises(InputError):
            decode()
        return time.process_time() - began

    def require(self) -> None:
        """Require that every refusal was within its bounds."""
        assert self.seconds < SECONDS and self.memory < MEMORY, str(self)

    def __str__(self) -> str:
        return (
            f"{self.refused} refused, {self.late} of them by their digest, {self.shown} shown; at"
            f" most {self.seconds * 1e3:.1f} ms and {self.memory / 1e6:.2f} MB a refusal"
        )


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


def claiming(stream: bytes, height: int, width: int) -> bytes:
    """A stream all of whose pictures claim another size, with the right checksum."""
    found = container.unpack(stream)
    members = tuple(one._replace(height=height, width=width) for one in found.members)
    return container.pack(replace(found, members=members))


def claims(streams: Sequence[bytes]) -> Iterator[bytes]:
    """Streams of small pictures that claim large ones, with the right checksum."""
    for stream in streams:
        for height, width in _LARGE:
            yield claiming(stream, height, width)


def require_claims_are_refused(codec: Codec, streams: Sequence[bytes]) -> None:
    """Whole streams of small pictures that claim large ones are refused, in bounds and by name.

    Even a receiver who allows any number of pixels is safe.
    """
    cost = Cost()
    for data in claims(streams):
        assert cost.attempt(lambda: _decoded(codec, data, 0, _ALL_PIXELS)) is None  # noqa: B023
    assert not cost.late
    cost.require()


def shown_of(codec: Codec, made: Callable[[], bytes], count: int, limit: int) -> int:
    """The number of streams that are shown; others are refused by name, all of them in bounds.

    Args:
        codec: the codec that reads them.
        made: gives one stream after the other.
        count: the number of streams.
        limit: the number of pixels that are decoded at most.
    """
    cost = Cost()
    for number in range(count):
        data, place = made(), number % 3 * (number % 2)
        image_HWC = cost.attempt(lambda: _decoded(codec, data, place, limit))  # noqa: B023
        if image_HWC is not None:
            member = container.unpack(data).members[place]
            assert image_HWC.shape == (member.height, member.width, 3)
    cost.require()
    print(cost)
    return cost.shown


def _decoded(codec: Codec, data: bytes, place: int, limit: int) -> np.ndarray:
    """The image of a stream, or an error that names the stream."""
    try:
        return codec.decompress(data, place=place, max_pixels=limit, name="a.gcp")
    except InputError as error:
        assert "a.gcp" in str(error), str(error)
        raise
