"""The container: round trip, every byte flipped, every truncation, other models."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding.container import Container, pack, require_model, unpack
from gencomp.errors import InputError

MODEL = bytes.fromhex("0123456789abcdef")
DPLC = Container("dplc", MODEL, 64, 64, (bytes(range(16)),))

containers = st.builds(
    Container,
    codec_id=st.text("abcxyz0189_./-", min_size=1, max_size=20),
    fingerprint=st.binary(min_size=8, max_size=8),
    height=st.integers(1, 65535),
    width=st.integers(1, 65535),
    sections=st.lists(st.binary(max_size=40), min_size=1, max_size=5).map(tuple),
)


@given(containers)
def test_round_trip(container: Container) -> None:
    data = pack(container)
    assert unpack(data) == container
    content = sum(len(section) for section in container.sections)
    assert container.overhead_bits == 8 * (len(data) - content)


def test_documented_layout() -> None:
    data = pack(DPLC)
    assert data[:5] == bytes([0x9D, 0x47, 1, 17, 4])
    assert data[5:9] == b"dplc" and data[9:17] == MODEL
    assert data[17:21] == bytes([64, 64, 1, 16])
    assert data[23:39] == bytes(range(16))
    assert len(data) == 43
    assert DPLC.overhead_bits == 8 * (23 + len("dplc"))


@given(containers)
@settings(max_examples=30)
def test_every_flipped_byte_is_found(container: Container) -> None:
    data = pack(container)
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF, random.Random(at).randrange(1, 256)):
            damaged = bytearray(data)
            damaged[at] ^= mask
            with pytest.raises(InputError):
                unpack(bytes(damaged))


def test_every_value_of_every_byte_is_found() -> None:
    data = pack(Container("irec", MODEL, 300, 20000, (b"\xff\xff\xff", b"")))
    for at in range(len(data)):
        for value in range(256):
            damaged = data[:at] + bytes([value]) + data[at + 1 :]
            if damaged != data:
                with pytest.raises(InputError):
                    unpack(damaged)


@given(containers)
@settings(max_examples=30)
def test_every_truncation_is_found(container: Container) -> None:
    data = pack(container)
    for length in range(len(data)):
        with pytest.raises(InputError):
            unpack(data[:length])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a gencomp container"),
        (b"\x89PNG\r\n", "not a gencomp container"),
        (pack(DPLC)[:1], "truncated at byte 1 of at least 4"),
        (pack(DPLC)[:20], "truncated at byte 20 of at least 23"),
        (pack(DPLC)[:30], "truncated at byte 30 of 43"),
        (pack(DPLC) + b"xy", "ends at byte 43, 2 more follow"),
        (b"\x9dG\x02" + pack(DPLC)[3:], "format version 2, which is not supported"),
        (pack(DPLC)[:10] + b"?" + pack(DPLC)[11:], "checksum of the container's header is wrong"),
        (pack(DPLC)[:25] + b"?" + pack(DPLC)[26:], "checksum of section 1 of 1 is wrong"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        unpack(data)


def test_the_damaged_section_is_named() -> None:
    data = bytearray(pack(Container("irec", MODEL, 8, 8, (b"one", b"two", b"three"))))
    data[-6] ^= 1
    with pytest.raises(InputError, match="checksum of section 3 of 3"):
        unpack(bytes(data))


def test_trailing_sections_can_be_dropped() -> None:
    whole = Container("irec", MODEL, 8, 8, (b"base", b"refinement"))
    base = Container("irec", MODEL, 8, 8, unpack(pack(whole)).sections[:1])
    assert unpack(pack(base)).sections == (b"base",)


def test_another_model_is_refused() -> None:
    require_model(DPLC, "dplc", MODEL, "a.gc")
    with pytest.raises(InputError, match=r"a.gc .* 0123456789abcdef .* ffffffffffffffff"):
        require_model(DPLC, "dplc", b"\xff" * 8, "a.gc")
    with pytest.raises(InputError, match=r"model dplc .* model irec"):
        require_model(DPLC, "irec", MODEL, "a.gc")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"codec_id": ""}, "codec id"),
        ({"codec_id": "DPLC"}, "codec id"),
        ({"codec_id": "dplc\n"}, "codec id"),
        ({"fingerprint": b"short"}, "has 8 bytes, not 5"),
        ({"height": 0}, "0×64"),
        ({"width": 65536}, "64×65536"),
        ({"sections": ()}, "at least one section"),
    ],
)
def test_bad_fields_are_refused(change: dict[str, object], sentence: str) -> None:
    fields = {"codec_id": "dplc", "fingerprint": MODEL, "height": 64, "width": 64}
    with pytest.raises(InputError, match=sentence):
        Container(**{**fields, "sections": (b"",), **change})  # type: ignore[arg-type]


def test_a_header_that_cannot_list_its_sections_is_refused() -> None:
    with pytest.raises(InputError, match="use fewer sections"):
        pack(Container("dplc", MODEL, 8, 8, (b"",) * 300))
