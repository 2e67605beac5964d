"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one. Any symbols are those of some picture, so such a stream is often shown.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gencomp.coding import container, joint
from gencomp.system import Picture
from gencomp.systems.urdp.codec import UrdpCodec
from tests.gencomp import urdp_cases
from tests.gencomp.mangled_streams import (
    Cost,
    header,
    mangled,
    require_claims_are_refused,
    shown_of,
)

STAGES = ("end_to_end", "refinement")
LIMIT = 28 * 28


@cache
def codec(stage: str) -> UrdpCodec:
    """A codec whose tables have counted images, so that long codes are entropy-coded."""
    system = urdp_cases.made(stage)
    system.finalise(urdp_cases.supply(system))
    return system.codec()


def streams(stage: str) -> list[bytes]:
    """Files of one picture and of many, whose indices are counted or listed."""
    numbers = np.random.default_rng(0)
    pixels = np.repeat(numbers.integers(0, 256, (60, 28, 28, 1), np.uint8), 3, axis=-1)
    counted = [Picture(image_HWC, index=place) for place, image_HWC in enumerate(pixels)]
    listed = [Picture(one.image_HWC, index=7 * one.index) for one in counted[:5]]
    made = codec(stage)
    return [made.compress(counted[3]), made.compress(counted[4])] + [
        made.compress_jointly(some) for some in (counted[:4], listed, counted)
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_mangled_streams(stage: str) -> None:
    generator, whole = np.random.default_rng(1), streams(stage)
    assert shown_of(codec(stage), lambda: mangled(whole, generator), 1000, LIMIT) < 400


@pytest.mark.parametrize("stage", STAGES)
def test_hostile_headers(stage: str) -> None:
    generator, writer = np.random.default_rng(2), codec(stage).writer_fingerprint
    assert shown_of(codec(stage), lambda: header(writer, generator), 400, LIMIT) < 10


@pytest.mark.parametrize("stage", STAGES)
def test_large_claims(stage: str) -> None:
    require_claims_are_refused(codec(stage), streams(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_claims_of_many_pictures(stage: str) -> None:
    """As many as a container may list, with the symbols of a few."""
    cost = Cost()
    for stream in streams(stage):
        found = container.unpack(stream)
        members = (container.Member(28, 28),) * joint.MAX_ENTRIES
        many = container.pack(container.Container(found.fingerprint, members, found.shared))
        assert cost.attempt(lambda: codec(stage).decompress(many)) is None  # noqa: B023
    print(cost)
    cost.require()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stage", STAGES)
def test_10_000_mangled_streams_and_1_000_hostile_headers(stage: str, seed: int) -> None:
    """Of each stage, five times: 100,000 mangled streams and 10,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(stage)
    writer = codec(stage).writer_fingerprint
    shown_of(codec(stage), lambda: mangled(whole, generator), 10_000, LIMIT)
    shown_of(codec(stage), lambda: header(writer, generator), 1_000, LIMIT)
