"""The file format of every codec: the coded sections of pictures, and their writer's fingerprint.

A container of one picture:

| bytes | field | content |
|---|---|---|
| 2 | magic | 9D 47 |
| 1 | version and kind | high nibble: format version 2; low nibble: 1 joint, 2 not one section |
| 6 | writer's fingerprint | hash of the encoder, the quantizer, the tables and the codec's id |
| 1..3 | height | varint, 1..65535 pixels |
| 1..3 | width | varint, 1..65535 pixels |
| … | sections | the content of the one section |
| 4 | checksum | CRC-32 (zlib's) of every byte before it, big-endian |

So at most 15 bytes stand before the content, and 11 where both sides are at most 127 pixels. A
picture that does not have exactly one section (kind 2) has, between width and content, the number
of its sections (a varint, 0..64) and the length of each section but the last (varints); the last
section takes the bytes that are left.

A joint container (kind 1) holds many pictures under one fingerprint, and sections that all of them
share. After the fingerprint come

| bytes | field | content |
|---|---|---|
| 1.. | number of runs | varint, at least 1 |
| 4.. each | runs | pictures in the run, height, width, sections of each picture: four varints |
| 1 | number of shared sections | varint, 0..64 |
| 0.. | their lengths | a varint for each but the last, which takes the bytes that are left |
| 2.. each | tables of lengths | one for the pictures' first sections, one for their second, … |
| … | sections | the shared ones, then those of the first picture, of the second, … |
| 4 | checksum | as above |

A run is a series of pictures with the same height, width and number of sections, as long as it can
be. A table of lengths is the smallest length (a varint), a number of bits w (one byte), and the
excess of each length over the smallest, in w bits each; w is the fewest bits that hold all of them,
and zero bits fill the last byte. So 1,000 pictures of one size that share one section cost 20 bytes
together, and 1,000 sections of equal length cost 2 bytes more. Any picture's sections are found
without reading another picture's.

A varint has seven bits a byte, least significant first; the top bit is set on all bytes but the
last. Every container has exactly one form in bytes, and any other way to write it is refused.

Every change of a single byte is found: a change of the magic or the version by comparison, any
other by the CRC-32, which finds all changes within 32 bits. A file that was cut, lengthened or
changed in more places passes with a probability of 2^-32. Nothing is allocated for a count that the
data could not hold. Sections are separate so that a layered codec can leave out the last ones: pack
the sections that are kept as a new container.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np

from gencomp.coding import fixed_length
from gencomp.errors import InputError

MAGIC = b"\x9dG"
VERSION = 2
FINGERPRINT_BYTES = 6
MAX_SIDE = 65535
MAX_SECTIONS = 64
# A container of any size may list so many pictures and sections; more need a bit of content each.
_FREE_ENTRIES = 65536
_JOINT, _NOT_ONE_SECTION = 1, 2
_FIRST_VERSION = 1
_PREFIX = len(MAGIC) + 1 + FINGERPRINT_BYTES
_CHECKSUM_BYTES = 4
_MAX_VARINT_BYTES = 5
_MAX_LENGTH_BITS = 7 * _MAX_VARINT_BYTES


class Member(NamedTuple):
    """One picture of a container.

    Attributes:
        height, width: the size of the picture in pixels.
        sections: the picture's coded data, in the order in which a decoder needs it.
    """

    height: int
    width: int
    sections: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Container:
    """Compressed pictures of one writer.

    Attributes:
        fingerprint: 6 bytes that name the writer.
        members: the pictures, at least one.
        shared: coded data that belongs to all pictures.

    Raises:
        InputError: a field has a value that the format cannot hold.
    """

    fingerprint: bytes
    members: tuple[Member, ...]
    shared: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.fingerprint) != FINGERPRINT_BYTES:
            raise InputError(
                f"A writer's fingerprint has {FINGERPRINT_BYTES} bytes, not"
                f" {len(self.fingerprint)}."
            )
        if not self.members:
            raise InputError("A container needs at least one picture.")
        for height, width, count in _runs(self.members):
            _require_size(height, width)
            _require_sections(count)
        _require_sections(len(self.shared))
        _require_carried(_entries(self.members), self.code_bytes)

    @property
    def code_bytes(self) -> int:
        """The number of bytes in all sections."""
        own = sum(len(section) for member in self.members for section in member.sections)
        return own + sum(map(len, self.shared))

    @property
    def overhead_bytes(self) -> int:
        """The number of bytes of the packed container besides its sections."""
        return len(_head(self)) + _CHECKSUM_BYTES


def pack(container: Container) -> bytes:
    """The container as bytes, in the short form where it holds one picture and no shared section.

    Raises:
        InputError: a section is longer than the header can express.
    """
    own = (section for member in container.members for section in member.sections)
    data = b"".join((_head(container), *container.shared, *own))
    return data + _checksum(data)


def unpack(data: bytes) -> Container:
    """The container in `data`, which must be whole and hold nothing else.

    Raises:
        InputError: `data` is no container, has another format version, or is damaged or cut.
    """
    data = bytes(data)
    if not data or data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise InputError("This is not a gencomp container: it does not start with the bytes 9D 47.")
    if len(data) > len(MAGIC):
        _require_version(data[len(MAGIC)])
    if len(data) < _PREFIX + _CHECKSUM_BYTES:
        raise InputError(f"The container is cut: only {len(data)} bytes are left.")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body):
        raise InputError("The container's checksum is wrong: it is damaged or cut.")
    fields = _Fields(body, _PREFIX)
    kind = data[len(MAGIC)] & 0xF
    fingerprint = body[len(MAGIC) + 1 : _PREFIX]
    if kind & _JOINT:
        found = Container(fingerprint, *_read_joint(fields))
    else:
        found = Container(fingerprint, (_read_one(fields, bool(kind & _NOT_ONE_SECTION)),))
    if _head(found) != body[: len(body) - found.code_bytes]:
        raise _malformed()
    return found


def require_writer(container: Container, codec_id: str, fingerprint: bytes, name: str) -> None:
    """Refuse a container that another encoder has written.

    Args:
        container: the container to check.
        codec_id, fingerprint: the id of the codec that is to read it, and its writer's fingerprint.
        name: the name of the stream in the message, such as its path.

    Raises:
        InputError: the container has another writer's fingerprint.
    """
    if container.fingerprint != fingerprint:
        raise InputError(
            f"{name} was written by the encoder {container.fingerprint.hex()} and cannot be decoded"
            f" by the codec {codec_id}, which reads those of the encoder {fingerprint.hex()}: give"
            " the run that wrote it."
        )


def member_at(container: Container, place: int, name: str) -> Member:
    """The picture at one place of a container, counted from 0.

    Args:
        container: the container.
        place: the picture's place.
        name: the name of the stream in the message, such as its path.

    Raises:
        InputError: the container holds no such picture.
    """
    if not 0 <= place < len(container.members):
        count = len(container.members)
        raise InputError(
            f"{name} holds {count} picture{'s' * (count > 1)}, there is no number {place}: they are"
            f" counted from 0 to {count - 1}."
        )
    return container.members[place]


def _head(container: Container) -> bytes:
    """All bytes of the container before its sections."""
    members, shared = container.members, container.shared
    joint = len(members) > 1 or bool(shared)
    many = not joint and len(members[0].sections) != 1
    kind = VERSION << 4 | _JOINT * joint | _NOT_ONE_SECTION * many
    parts = [MAGIC, bytes([kind]), container.fingerprint]
    if joint:
        runs = [(len(list(alike)), *run) for run, alike in groupby(_runs(members))]
        parts += [_varint(len(runs)), *(_varint(number) for run in runs for number in run)]
        parts += _lengths(shared)
        parts += map(_table, _columns(members))
    else:
        parts += [_varint(members[0].height), _varint(members[0].width)]
        parts += _lengths(members[0].sections) if many else []
    return b"".join(parts)


def _runs(members: Iterable[Member]) -> Iterator[tuple[int, int, int]]:
    return ((one.height, one.width, len(one.sections)) for one in members)


def _columns(members: Sequence[Member]) -> list[list[int]]:
    """The lengths of the pictures' first sections, those of their second sections, and so on."""
    most = max(len(one.sections) for one in members)
    return [[len(one.sections[i]) for one in members if len(one.sections) > i] for i in range(most)]


def _lengths(sections: Sequence[bytes]) -> list[bytes]:
    """The number of the sections and the length of each but the last."""
    return [_varint(len(sections)), *(_varint(len(section)) for section in sections[:-1])]


def _table(lengths: Sequence[int]) -> bytes:
    least, most = min(lengths), max(lengths)
    bits = (most - least).bit_length()
    rest = fixed_length.pack(np.array(lengths) - least, 1 << bits) if bits else b""
    return _varint(least) + bytes([bits]) + rest


class _Fields:
    """A cursor in the bytes before the checksum, which moves forward as fields are read."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body, self._at = body, at

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise _malformed()
        self._at += length
        return self._body[self._at - length : self._at]

    def varint(self) -> int:
        number = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise _malformed()

    def section_count(self) -> int:
        count = self.varint()
        if count > MAX_SECTIONS:
            raise _malformed()
        return count

    def lengths(self) -> list[int | None]:
        """The inverse of `_lengths`; the last length is None and means the bytes that are left."""
        count = self.section_count()
        return [self.varint() for _ in range(count - 1)] + [None] * (count > 0)

    def table(self, count: int) -> Iterator[int]:
        """The inverse of `_table`."""
        least, bits = self.varint(), self.take(1)[0]
        if bits > _MAX_LENGTH_BITS:
            raise _malformed()
        packed = self.take(-(-count * bits // 8))
        if not bits:
            return iter([least] * count)
        try:
            return iter((fixed_length.unpack(packed, 1 << bits, count) + least).tolist())
        except InputError:
            raise _malformed() from None


def _read_one(fields: _Fields, many: bool) -> Member:
    height, width = fields.varint(), fields.varint()
    lengths = fields.lengths() if many else [None]
    sections = [fields.take(fields.left if length is None else length) for length in lengths]
    return Member(height, width, tuple(sections))


def _read_joint(fields: _Fields) -> tuple[tuple[Member, ...], tuple[bytes, ...]]:
    count = fields.varint()
    if 4 * count > fields.left:
        raise _malformed()
    runs = [
        (fields.varint(), fields.varint(), fields.varint(), fields.section_count())
        for _ in range(count)
    ]
    _require_carried(sum(pictures * (1 + own) for pictures, _, _, own in runs), fields.left)
    shared_lengths = fields.lengths()
    tables = [
        fields.table(sum(pictures for pictures, _, _, own in runs if own > i))
        for i in range(max((own for *_, own in runs), default=0))
    ]
    # For each picture: the next length of each table in which the picture has an entry.
    lengths = [
        [next(table) for table in tables[:own]]
        for pictures, _, _, own in runs
        for _ in range(pictures)
    ]
    rest = fields.left - sum(map(sum, lengths)) - sum(length or 0 for length in shared_lengths)
    if rest < 0:
        raise _malformed()
    shared = tuple(fields.take(rest if length is None else length) for length in shared_lengths)
    own_sections = (tuple(fields.take(length) for length in one) for one in lengths)
    members = tuple(
        Member(height, width, sections)
        for pictures, height, width, _ in runs
        for sections in islice(own_sections, pictures)
    )
    return members, shared


def _require_version(byte: int) -> None:
    version = byte >> 4
    if byte == _FIRST_VERSION:
        raise InputError(
            "The container was written by an older gencomp: format version 1, which is no longer"
            f" read; this gencomp reads version {VERSION}."
        )
    if version != VERSION or byte & ~(_JOINT | _NOT_ONE_SECTION) & 0xF:
        raise InputError(
            f"The container has format version {version}, kind {byte & 0xF}, which is not"
            f" supported: this gencomp reads version {VERSION}."
        )


def _require_size(height: int, width: int) -> None:
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(
            f"A container holds images of 1 to {MAX_SIDE} pixels a side, not {height}×{width}."
        )


def _require_sections(count: int) -> None:
    if count > MAX_SECTIONS:
        raise InputError(
            f"A container holds at most {MAX_SECTIONS} sections of a picture, not {count}."
        )


def _entries(members: Sequence[Member]) -> int:
    return sum(1 + len(one.sections) for one in members)


def _require_carried(entries: int, content: int) -> None:
    """Refuse a list of more pictures and sections than `content` bytes can describe."""
    if entries > max(_FREE_ENTRIES, 8 * content):
        raise InputError(
            f"A container that lists {entries} pictures and sections needs at least a bit of"
            f" content for each; with {content} bytes it lists at most"
            f" {max(_FREE_ENTRIES, 8 * content)}."
        )


def _varint(number: int) -> bytes:
    if number >= 1 << _MAX_LENGTH_BITS:
        raise InputError(f"A container cannot hold a section of {number} bytes.")
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def _malformed() -> InputError:
    return InputError("The container's header is damaged: its fields do not fit its length.")
