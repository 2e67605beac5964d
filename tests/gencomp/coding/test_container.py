"""The container: round trips, every byte changed, every cut, hostile headers, other writers."""

from __future__ import annotations

import binascii
import random
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding import fixed_length
from gencomp.coding.container import (
    MAX_PIXELS,
    Container,
    Digests,
    Member,
    member_at,
    pack,
    require_writer,
    unpack,
)
from gencomp.coding.fields import varints
from gencomp.coding.joint import MAX_ENTRIES
from gencomp.errors import InputError

WRITER = bytes.fromhex("0123456789ab")
ONE = Container(WRITER, (Member(64, 64, (bytes(range(16)),)),))
LAYERED = Container(WRITER, (Member(300, 20000, (b"\xff\xff\xff", b"", b"top")),))
JOINT = Container(
    WRITER,
    (
        Member(28, 28, (b"a", b"bc")),
        Member(28, 28, (b"", b"defgh")),
        Member(512, 768, (b"i" * 300,)),
        Member(1, 65535),
        Member(28, 28, (b"j", b"")),
    ),
    (b"seed", b"tables"),
)

CHECKED = Container(WRITER, ONE.members, digests=Digests(b"RR", b"pix1"))
EXACT = Container(WRITER[:4], ONE.members, digests=Digests(b"", b"pix1"))

members = st.builds(
    Member,
    height=st.integers(1, 65535),
    width=st.integers(1, 65535),
    sections=st.lists(st.binary(max_size=40), max_size=4).map(tuple),
)
# Pictures alike in runs, as they come from a data set.
runs = st.lists(st.tuples(members, st.integers(1, 5)), min_size=1, max_size=4).map(
    lambda found: tuple(one for one, count in found for _ in range(count))
)
containers = st.builds(
    Container,
    fingerprint=st.binary(min_size=6, max_size=6),
    members=runs,
    shared=st.lists(st.binary(max_size=40), max_size=3).map(tuple),
)
singles = st.builds(
    Container, fingerprint=st.binary(min_size=6, max_size=6), members=st.tuples(members)
)


@st.composite
def checked(draw: st.DrawFn) -> Container:
    """Any container with digests, of one decoder or of the exact image."""
    found = draw(containers | singles)
    size = 4 * len(found.members)
    pixels = draw(st.binary(min_size=size, max_size=size))
    if draw(st.booleans()):
        exact = Digests(b"", pixels)
        return Container(found.fingerprint[:4], found.members, found.shared, exact)
    return Container(found.fingerprint, found.members, found.shared, Digests(b"RR", pixels))


def sealed(body: bytes) -> bytes:
    """Bytes with the right checksum, whatever they say."""
    if body[2] & 8:
        return body + (binascii.crc_hqx(body, 0xFFFF) ^ 0xFFFF).to_bytes(2, "big")
    return body + zlib.crc32(body).to_bytes(4, "big")


@given(containers | singles | checked())
def test_round_trip(container: Container) -> None:
    data = pack(container)
    assert unpack(data) == container
    own = [section for member in container.members for section in member.sections]
    assert container.code_bytes == sum(map(len, (*container.shared, *own)))


@given(st.integers(1, 65535), st.integers(1, 65535), st.binary(max_size=300))
def test_a_picture_has_a_header_of_at_most_16_bytes(height: int, width: int, code: bytes) -> None:
    """The checksum stands behind the content; digests take 6 bytes more."""
    data = pack(Container(WRITER, (Member(height, width, (code,)),)))
    assert data[-4 - len(code) : -4] == code
    assert len(data) - len(code) - 4 <= 15
    digests = Digests(b"RR", b"abcd")
    more = pack(Container(WRITER, (Member(height, width, (code,)),), digests=digests))
    assert len(more) == len(data) + 6 <= len(code) + 25
    exact = pack(Container(WRITER[:4], (Member(height, width, (code,)),), digests=EXACT.digests))
    assert len(exact) == len(data)


class TestLayout:
    """Golden bytes: files must be read for ever."""

    def test_of_one_picture(self) -> None:
        data = pack(ONE)
        assert data[:11] == bytes([0x9D, 0x47, 0x30]) + WRITER + bytes([64, 64])
        assert data[11:27] == bytes(range(16))
        assert data[27:] == zlib.crc32(data[:27]).to_bytes(4, "big") and len(data) == 31
        assert data.hex() == "9d47300123456789ab4040" + bytes(range(16)).hex() + "ddea34b9"

    def test_of_one_picture_with_digests(self) -> None:
        data = pack(CHECKED)
        assert data[:17] == bytes([0x9D, 0x47, 0x34]) + WRITER + bytes([64, 64]) + b"RRpix1"
        assert data[17:-4] == bytes(range(16))

    def test_of_one_exact_picture(self) -> None:
        data = pack(EXACT)
        assert data[:13] == bytes([0x9D, 0x47, 0x38]) + WRITER[:4] + bytes([64, 64]) + b"pix1"
        assert data[13:-2] == bytes(range(16)) and len(data) - EXACT.code_bytes == 15
        assert data[-2:] == (binascii.crc_hqx(data[:-2], 0xFFFF) ^ 0xFFFF).to_bytes(2, "big")
        assert data[-2:].hex() == "d351"

    def test_of_many_pictures_with_digests(self) -> None:
        plain = pack(JOINT)
        data = pack(Container(WRITER, JOINT.members, JOINT.shared, Digests(b"RR", bytes(20))))
        content = JOINT.code_bytes + 4
        assert data[2] == 0x35 and len(data) == len(plain) + 22
        assert data[3:-4] == plain[3:-content] + b"RR" + bytes(20) + plain[-content:-4]

    def test_of_several_sections(self) -> None:
        data = pack(LAYERED)
        # 300 = 2·128 + 44, 20000 = 128² + 28·128 + 32; three sections, the first two lengths.
        assert data[:3] == bytes([0x9D, 0x47, 0x32])
        assert data[9:17] == bytes([0xAC, 2, 0xA0, 0x9C, 1, 3, 3, 0])
        assert data[17:-4] == b"\xff\xff\xfftop"

    def test_of_many_pictures(self) -> None:
        data = pack(JOINT)
        assert data[:9] == bytes([0x9D, 0x47, 0x31]) + WRITER
        assert (
            data[9:]
            == bytes.fromhex(
                "04"  # runs: pictures, height, width, sections of each
                "021c1c02"  # 2, 28, 28, 2
                "018004800601"  # 1, 512, 768, 1
                "0101ffff0300"  # 1, 1, 65535, 0
                "011c1c02"  # 1, 28, 28, 2
                "0204"  # shared sections: 2, the first of 4 bytes
                "0009" + "0080258010"  # lengths 1, 0, 300, 1 in 9 bits after 0
                "0003" + "5400"  # lengths 2, 5, 0 in 3 bits after 0
            )
            + b"seedtables"
            + b"abcdefgh"
            + b"i" * 300
            + b"j"
            + data[-4:]
        )


class TestJointContainers:
    @given(containers)
    def test_cost_less_than_their_pictures_alone(self, container: Container) -> None:
        alone = [pack(Container(container.fingerprint, (one,))) for one in container.members]
        whole = pack(Container(container.fingerprint, container.members))
        assert len(whole) < sum(map(len, alone)) or len(alone) < 4

    def test_a_thousand_digits_coded_together(self) -> None:
        """Three symbols of three levels each, 4.755 bits an image: 595 bytes and 20."""
        symbols = np.random.default_rng(0).integers(0, 3, 3000)
        code = fixed_length.pack(symbols, 3)
        found = Container(WRITER, (Member(28, 28),) * 1000, (code,))
        assert len(code) == 595 and len(pack(found)) == 595 + 20
        assert unpack(pack(found)) == found

    def test_a_thousand_sections_of_one_length(self) -> None:
        found = Container(WRITER, tuple(Member(32, 32, (bytes([i % 256]),)) for i in range(1000)))
        assert len(pack(found)) == 1000 + 22
        assert unpack(pack(found)).members[537].sections == (bytes([537 % 256]),)

    def test_one_picture_that_shares_nothing_has_the_form_for_one(self) -> None:
        assert pack(Container(WRITER, JOINT.members[:1]))[2] == 0x32
        assert pack(Container(WRITER, JOINT.members[:1], (b"",)))[2] == 0x31

    def test_layers_can_be_left_out(self) -> None:
        base = tuple(one._replace(sections=one.sections[:1]) for one in JOINT.members)
        kept = Container(WRITER, base, JOINT.shared)
        assert unpack(pack(kept)).members[1].sections == (b"",)
        assert len(pack(kept)) < len(pack(JOINT))

    def test_pictures_are_found_by_their_place(self) -> None:
        assert member_at(JOINT, 2, "a.gcp").width == 768
        for place in (-1, 5):
            with pytest.raises(InputError, match=rf"a.gcp holds 5 pictures, there is no .*{place}"):
                member_at(JOINT, place, "a.gcp")
        with pytest.raises(InputError, match=r"holds 1 picture, .* counted from 0 to 0"):
            member_at(ONE, 1, "a.gcp")


class TestDamage:
    @given(containers | singles | checked())
    @settings(max_examples=30)
    def test_every_changed_byte_is_found(self, container: Container) -> None:
        data = pack(container)
        for at in range(len(data)):
            for mask in (0x01, 0x80, 0xFF, random.Random(at).randrange(1, 256)):
                damaged = bytearray(data)
                damaged[at] ^= mask
                with pytest.raises(InputError):
                    unpack(bytes(damaged))

    @pytest.mark.parametrize(
        "container",
        [ONE, LAYERED, JOINT, CHECKED, EXACT],
        ids=["one", "layered", "joint", "checked", "exact"],
    )
    def test_every_value_of_every_byte_is_found(self, container: Container) -> None:
        data = pack(container)
        for at in range(len(data)):
            for value in range(256):
                damaged = data[:at] + bytes([value]) + data[at + 1 :]
                if damaged != data:
                    with pytest.raises(InputError):
                        unpack(damaged)

    @given(containers | singles | checked())
    @settings(max_examples=30)
    def test_every_cut_and_every_addition_is_found(self, container: Container) -> None:
        data = pack(container)
        for length in range(len(data)):
            with pytest.raises(InputError):
                unpack(data[:length])
        for more in (b"\0", b"\0" * 8, data[-4:], b"\xff", data):
            with pytest.raises(InputError):
                unpack(data + more)

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"", "not a gencomp container"),
            (b"\x89PNG\r\n", "not a gencomp container"),
            (pack(ONE)[:1], "is cut: only 1 bytes are left"),
            (pack(ONE)[:12], "is cut: only 12 bytes are left"),
            (pack(ONE)[:25], "checksum is wrong: it is damaged or cut"),
            (pack(ONE) + b"xy", "checksum is wrong: it is damaged or cut"),
            (b"\x9dG\x01\x15\x04dplc", "written by an older gencomp: format version 1"),
            (
                b"\x9dG\x20" + pack(ONE)[3:],
                "an older gencomp: format version 2, which is no longer",
            ),
            (b"\x9dG\x21" + pack(ONE)[3:], "an older gencomp: format version 2, .* version 3"),
            (b"\x9dG\x40" + pack(ONE)[3:], "format version 4, kind 0, which is not supported"),
            (b"\x9dG\x3c" + pack(ONE)[3:], "format version 3, kind 12, which is not supported"),
            (pack(EXACT)[:6], "is cut: only 6 bytes are left"),
            (pack(EXACT)[:-1], "checksum is wrong: it is damaged or cut"),
            (b"\x9dG\x00" + pack(ONE)[3:], "format version 0, kind 0, which is not supported"),
        ],
    )
    def test_refusals_say_what_is_wrong(self, data: bytes, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            unpack(data)


class TestHostileHeaders:
    """Containers with a right checksum that say what they cannot hold."""

    HEAD = bytes([0x9D, 0x47, 0x31]) + WRITER
    ONE_HEAD = bytes([0x9D, 0x47, 0x30]) + WRITER
    MANY_HEAD = bytes([0x9D, 0x47, 0x32]) + WRITER

    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (ONE_HEAD, "do not fit its length"),
            (ONE_HEAD + b"\x40", "do not fit its length"),
            (ONE_HEAD + b"\x00\x40", "0×64"),
            (ONE_HEAD + b"\x80\x80\x04\x40", "65536×64"),
            (ONE_HEAD + b"\xc0\x00\x40x", "do not fit its length"),  # 64 in two bytes
            (ONE_HEAD + b"\xff\xff\xff\xff\xff\x01\x40x", "do not fit its length"),
            (MANY_HEAD + b"\x40\x40\x01x", "do not fit its length"),  # one, in the form for many
            (MANY_HEAD + b"\x40\x40\x00x", "do not fit its length"),  # bytes of no section
            (MANY_HEAD + b"\x40\x40\x02\x05abc", "do not fit its length"),
            (MANY_HEAD + b"\x40\x40\x41" + bytes(64), "do not fit its length"),
            (HEAD + b"\x00\x00", "at least one picture"),
            (HEAD + b"\x01\x01\x40\x40\x01\x00\x01\x00x", "do not fit its length"),  # a joint one
            (HEAD + b"\x02\x01\x08\x08\x00\x01\x08\x08\x00\x01x", "do not fit"),  # one run in two
            (HEAD + b"\x02\x00\x09\x09\x00\x02\x08\x08\x00\x01x", "do not fit"),  # an empty run
            (HEAD + b"\x01\x02\x08\x08\x01\x00\x01\x02\x40abc", "do not fit"),  # more than needed
            (HEAD + b"\x01\x02\x08\x08\x01\x00\x01\x24", "do not fit its length"),  # 36 bits
            (HEAD + b"\x01\x02\x08\x08\x01\x00\x00\x01\x60a", "do not fit"),  # padding
            (HEAD + b"\x01\x02\x08\x08\x41\x00", "do not fit its length"),  # 65 sections
        ],
    )
    def test_are_refused(self, body: bytes, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            unpack(sealed(body))

    @pytest.mark.parametrize(
        "body",
        [
            HEAD + b"\xff\xff\xff\xff\x7f" * 8,
            # 10^9 pictures of one size, 10^9 runs, and 10^9 bytes of one section.
            HEAD + b"\x01\x80\x94\xeb\xdc\x03\x1c\x1c\x00\x01" + bytes(600),
            HEAD + b"\x80\x94\xeb\xdc\x03" + b"\x01\x1c\x1c\x00" * 99,
            HEAD + b"\x01\x02\x1c\x1c\x01\x00\x80\x94\xeb\xdc\x03\x00",
            # 65,536 pictures of 64 empty sections each.
            HEAD + b"\x01\x80\x80\x04\x1c\x1c\x40\x01" + b"\x00\x00" * 64,
            # The digests of pictures that are not there.
            bytes([0x9D, 0x47, 0x35]) + WRITER + b"\x01\x80\x80\x04\x1c\x1c\x00\x01" + bytes(600),
            MANY_HEAD + b"\x40\x40\x40" + b"\x80\x94\xeb\xdc\x03" * 63,
        ],
    )
    def test_allocate_nothing(self, body: bytes) -> None:
        peak = traced(lambda: unpack(sealed(body)))
        assert peak < 200_000

    def test_the_largest_headers_take_memory_in_proportion(self) -> None:
        """Runs of one picture each, in the longest numbers, and the most pictures with sections."""
        numbers = np.random.default_rng(0).integers(1 << 28, 1 << 35, 4 * MAX_ENTRIES)
        runs = varints([MAX_ENTRIES]) + varints(numbers)
        assert traced(lambda: unpack(sealed(self.HEAD + runs))) < 100e6
        half = MAX_ENTRIES // 2
        table = varints([0, half, 28, 28, 1])[1:]
        hollow = self.HEAD + b"\x01" + table + b"\x00\x05\x00"
        assert traced(lambda: unpack(sealed(hollow + b"x"))) < 20e6

    @given(st.binary(max_size=40), st.integers(0, 11))
    @settings(max_examples=500)
    def test_any_bytes_are_refused_or_are_what_would_be_written(
        self, fields: bytes, kind: int
    ) -> None:
        data = sealed(b"\x9dG" + bytes([0x30 | kind]) + WRITER + fields)
        try:
            found = unpack(data)
        except InputError:
            return
        assert pack(found) == data

    def test_a_container_lists_so_much_and_no_more(self) -> None:
        many = tuple(Member(28, 28, (bytes([i % 7]),)) for i in range(MAX_ENTRIES // 2))
        found = unpack(pack(Container(WRITER, many)))
        assert len(found.members) == len(many) and found.members[-1] == many[-1]
        sentence = rf"at most {MAX_ENTRIES} pictures and sections, not {MAX_ENTRIES + 1}"
        with pytest.raises(InputError, match=sentence):
            Container(WRITER, (*many, Member(28, 28)))
        with pytest.raises(InputError, match=sentence):
            Container(WRITER, (Member(28, 28),) * (MAX_ENTRIES + 1), (bytes(600),))


def traced(refused: Callable[[], object]) -> int:
    """The most memory in bytes that Python held while it refused something."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            refused()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestMembers:
    """The pictures of an opened container are cut out of it one by one."""

    def test_are_those_that_were_packed(self) -> None:
        found = unpack(pack(JOINT)).members
        assert [found[i] for i in range(len(found))] == list(JOINT.members) == list(found)
        assert found[-1] == JOINT.members[-1] and found[1:3] == JOINT.members[1:3]
        assert found == JOINT.members and hash(found) == hash(JOINT.members)
        with pytest.raises(IndexError):
            found[5]

    def test_can_be_packed_again(self) -> None:
        found = unpack(pack(JOINT))
        assert pack(Container(WRITER, found.members, found.shared)) == pack(JOINT)

    def test_pixels_beyond_the_limit_are_refused(self) -> None:
        large = Container(WRITER, (Member(1, 1), Member(8193, 8192)))
        assert member_at(large, 0, "a.gcp", MAX_PIXELS).height == 1
        with pytest.raises(
            InputError,
            match=r"a.gcp claims a picture of 8193×8192 pixels, .* 67108864 pixels: .*--max-pixels",
        ):
            member_at(large, 1, "a.gcp", MAX_PIXELS)
        assert member_at(large, 1, "a.gcp", 8193 * 8192).height == 8193


def test_another_writer_is_refused() -> None:
    require_writer(ONE, "dplc", WRITER, "a.gcp")
    with pytest.raises(
        InputError,
        match=r"a.gcp was written by the encoder 0123456789ab .* codec dplc, .* ffffffffffff: give",
    ):
        require_writer(ONE, "dplc", b"\xff" * 6, "a.gcp")
    require_writer(EXACT, "irec", WRITER, "a.gcp")
    with pytest.raises(InputError, match=r"a.gcp was written by the encoder 01234567 and"):
        require_writer(EXACT, "irec", b"\x02" + WRITER[1:], "a.gcp")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": b"short"}, "has 6 bytes here, not 5"),
        ({"members": ()}, "at least one picture"),
        ({"members": (Member(0, 64),)}, "0×64"),
        ({"members": (Member(64, 65536),)}, "64×65536"),
        ({"members": (Member(8, 8, (b"",) * 65),)}, "at most 64 sections of a picture, not 65"),
        ({"shared": (b"",) * 65}, "at most 64 sections"),
        (
            {"digests": Digests(b"R", bytes(4))},
            "2 bytes of the reader and 4 of the pixels, not 1 and",
        ),
        ({"digests": Digests(b"", bytes(4))}, "has 4 bytes here, not 6"),
        ({"digests": Digests(b"RR", bytes(8))}, "1 pictures have .* not 2 and 8"),
    ],
)
def test_bad_fields_are_refused(change: dict[str, object], sentence: str) -> None:
    fields = {"fingerprint": WRITER, "members": (Member(8, 8, (b"",)),)}
    with pytest.raises(InputError, match=sentence):
        Container(**{**fields, **change})  # type: ignore[arg-type]
