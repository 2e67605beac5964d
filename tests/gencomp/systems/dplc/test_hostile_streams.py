"""Mangled streams and hostile headers: refused by name, with little time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one. Every stream ends in an `InputError`, or is a file that the encoder may have written, shown as
its digest says: never in another error. CPU time and resident memory of each refusal are
bounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gencomp.coding import container, joint
from gencomp.coding.fields import varints
from gencomp.system import Picture
from gencomp.systems.dplc.codec import DplcCodec
from tests.gencomp.dplc_cases import finalised, made
from tests.gencomp.mangled_streams import (
    Cost,
    header,
    mangled,
    require_claims_are_refused,
    sealed,
)


@pytest.fixture(scope="module")
def codec() -> DplcCodec:
    """A codec whose tables have counted images, so that its files are entropy-coded."""
    found = finalised(made("codec"), 64).codec()
    assert isinstance(found, DplcCodec)
    return found


@pytest.fixture(scope="module")
def streams(codec: DplcCodec) -> list[bytes]:
    """Files of one picture and of several, with and without digests."""
    generator = np.random.default_rng(0)

    def picture(*size: int) -> Picture:
        return Picture(generator.integers(0, 256, (*size, 3), dtype=np.uint8))

    found = [
        codec.compress(picture(64, 64)),
        codec.compress(picture(64, 70)),
        codec.compress_jointly([picture(64, 64), picture(64, 64), picture(30, 20)]),
    ]
    opened = [container.unpack(stream) for stream in found]
    plain = (container.Container(one.fingerprint, one.members) for one in opened)
    return [*found, *map(container.pack, plain)]


@pytest.fixture
def cost() -> Cost:
    return Cost()


def check_shown(codec: DplcCodec, data: bytes, place: int, image_HWC: np.ndarray) -> None:
    """Somebody computed the checksum: the file is one that the encoder may have written."""
    found = container.unpack(data)
    assert data == container.pack(found) and found.fingerprint == codec.writer_fingerprint
    member = found.members[place]
    assert image_HWC.shape == (member.height, member.width, 3)
    symbols_TN, salt = codec._read(member, "stream")
    assert codec._payload.pack(symbols_TN, salt) == member.sections[0]


def decode_all(
    codec: DplcCodec, made: Callable[[], bytes], count: int, limit: int, cost: Cost
) -> None:
    for number in range(count):
        data, place = made(), number % 3 * (number % 2)
        image_HWC = cost.attempt(lambda: codec.decompress(data, place=place, max_pixels=limit))  # noqa: B023
        if image_HWC is not None:
            check_shown(codec, data, place, image_HWC)


# A stream whose checksum was computed anew may be a whole file, which is then decoded: so these
# files are small.
SMALL = 4 * 4096


def test_mangled_streams(codec: DplcCodec, streams: list[bytes], cost: Cost) -> None:
    generator = np.random.default_rng(1)
    decode_all(codec, lambda: mangled(streams, generator), 2000, SMALL, cost)
    assert cost.refused > 1500 and cost.late > 10
    cost.require()


def test_hostile_headers(codec: DplcCodec, cost: Cost) -> None:
    generator, writer = np.random.default_rng(2), codec.writer_fingerprint
    decode_all(codec, lambda: header(writer, generator), 2000, container.MAX_PIXELS, cost)
    assert cost.refused > 1900
    cost.require()


def test_large_claims(codec: DplcCodec, streams: list[bytes]) -> None:
    require_claims_are_refused(codec, streams)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_10_000_mangled_streams_and_1_000_hostile_headers(
    codec: DplcCodec, streams: list[bytes], cost: Cost, seed: int
) -> None:
    """Ten times."""
    generator = np.random.default_rng(100 + seed)
    writer = codec.writer_fingerprint
    decode_all(codec, lambda: header(writer, generator), 1000, container.MAX_PIXELS, cost)
    decode_all(codec, lambda: mangled(streams, generator), 10_000, SMALL, cost)
    print(f"seed {seed}: {cost}")
    assert cost.refused > 10_000
    cost.require()


@pytest.mark.slow
def test_the_largest_containers_are_refused_in_time(codec: DplcCodec, cost: Cost) -> None:
    """Headers that list as much as a header may, and payloads as long as their claims need."""
    half = joint.MAX_ENTRIES // 2
    generator = np.random.default_rng(4)
    prefix = container.MAGIC + bytes([container.VERSION << 4 | 1]) + codec.writer_fingerprint
    long = varints(generator.integers(1 << 28, 1 << 35, 4 * joint.MAX_ENTRIES))
    short = varints(np.tile([1, 8, 8, 0, 1, 8, 9, 0], half))
    # As many bytes as 8192² pixels need at least, of symbols that are all likely.
    least = codec._payload._entropy.least_bytes(16384)
    for body in (
        prefix + varints([joint.MAX_ENTRIES]) + long,
        prefix + varints([joint.MAX_ENTRIES]) + short + b"\0",
        prefix + varints([1, half, 8192, 8192, 1, 0, 0]) + b"\0",
        prefix[:2] + b"\x30" + prefix[3:] + varints([8192, 8192]) + bytes(least + 1),
        prefix[:2] + b"\x30" + prefix[3:] + varints([8192, 8192]) + generator.bytes(least + 1),
        prefix[:2] + b"\x30" + prefix[3:] + varints([8192, 8192]) + generator.bytes(30_000),
    ):
        assert cost.attempt(lambda: codec.decompress(sealed(body), place=0)) is None  # noqa: B023
        print(cost)
    cost.require()
