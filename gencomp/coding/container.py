"""The file format of every codec: the coded sections of pictures, and their writer's fingerprint.

A container of one picture:

| bytes | field | content |
|---|---|---|
| 2 | magic | 9D 47 |
| 1 | version, kind | high nibble: 3; low nibble: 1 joint, 2 not one section, 4 digests, 8 exact |
| 6 | writer's fingerprint | hash of the encoder, the quantizer, the tables and the codec's id |
| 1..3 | height | varint, 1..65535 pixels |
| 1..3 | width | varint, 1..65535 pixels |
| 6 | digests (kind 4) | 2 bytes of the reader's fingerprint, 4 bytes of the decoded pixels' hash |
| … | sections | the content of the one section |
| 4 | checksum | CRC-32 (zlib's) of every byte before it, big-endian |

So at most 15 bytes stand before the content without the digests and 21 with them, and 11 and 17
where both sides are at most 127 pixels. The whole overhead is at most 25 bytes, and 21 for such a
small picture. A picture that does not have exactly one section (kind 2) has, between width and
digests, the number of its sections (a varint, 0..64) and the length of each section but the last
(varints); the last section takes the bytes that are left.

A joint container (kind 1) holds many pictures under one fingerprint, and sections that all of them
share. After the fingerprint come

| bytes | field | content |
|---|---|---|
| 1.. | number of runs | varint, at least 1 |
| 4.. each | runs | pictures in the run, height, width, sections of each picture: four varints |
| 1 | number of shared sections | varint, 0..64 |
| 0.. | their lengths | a varint for each but the last, which takes the bytes that are left |
| 2.. each | tables of lengths | one for the pictures' first sections, one for their second, … |
| 2, 4 each | digests (kind 4) | 2 bytes of the reader's fingerprint, 4 bytes for each picture |
| … | sections | the shared ones, then those of the first picture, of the second, … |
| 4 | checksum | as above |

A run is a series of pictures with the same height, width and number of sections, as long as it can
be. A table of lengths is the smallest length (a varint), a number of bits w (one byte), and the
excess of each length over the smallest, in w bits each; w is the fewest bits that hold all of them,
and zero bits fill the last byte. So 1,000 pictures of one size that share one section cost 20 bytes
together, and 1,000 sections of equal length cost 2 bytes more. Any picture's sections are found
without reading another picture's. A container lists at most 131,072 pictures and sections.

The digests (`gencomp.coding.digest`) say which decoder the writer ran, and what it showed: a
decoder with that tag shows the same pixels or refuses. A codec leaves them out where its pixels do
not depend on the processor, or by so little that a refusal would be worse; its docstring says so.

An exact container (kind 8) holds pictures that decode to the very images that were written. The
4 bytes of each picture's hash then do most of the work of the other fields: no decoder need be
named, as all show the same image, the fingerprint keeps its first 4 bytes, and the checksum is a
CRC-16 in 2 bytes (CCITT's, from FFFF and inverted). So 15 bytes stand around the content of a
picture of at most 127 pixels a side, its hash included. What the 2 bytes let pass (a file changed
in many places, with a probability of 2^-16) the hash stops with one of 2^-32 more.

A varint has seven bits a byte, least significant first; the top bit is set on all bytes but the
last. Every container has exactly one form in bytes, and any other way to write it is refused.

Every change of a single byte is found: a change of the magic or the version by comparison, one of
the kind that makes the checksum another one by that one and by the hash, and any other by the
CRC-32, which finds all changes within 32 bits. A file that was cut, lengthened or changed in more
places passes with a probability of 2^-32. Nothing is allocated for a count that the
data could not hold. Sections are separate so that a layered codec can leave out the last ones: pack
the sections that are kept as a new container, without the digests.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gencomp.coding import joint
from gencomp.coding.fields import Fields, malformed, varints
from gencomp.coding.joint import MAX_SECTIONS, Layout, Member, Members
from gencomp.errors import InputError

MAGIC = b"\x9dG"
VERSION = 3
FINGERPRINT_BYTES = 6
EXACT_FINGERPRINT_BYTES = 4
READER_TAG_BYTES = 2
DIGEST_BYTES = 4
MAX_SIDE = 65535
# A picture of 67 megapixels. The memory to decode it is up to the codec: docs/evaluation.md.
MAX_PIXELS = 2**26
_JOINT, _NOT_ONE_SECTION, _DIGESTS, _EXACT = 1, 2, 4, 8
# The third byte of the first version, which had no kinds.
_FIRST_VERSION = 1
_FINGERPRINT = len(MAGIC) + 1  # the place of the fingerprint
_CHECKSUM_BYTES = 4
_EXACT_CHECKSUM_BYTES = 2


class Digests(NamedTuple):
    """What a decoder showed when the pictures were written.

    Attributes:
        reader: 2 bytes that name the decoder; none if every decoder shows the same pixels, those of
            the very image that was written.
        pixels: 4 bytes for each picture, the hash of its decoded pixels.
    """

    reader: bytes
    pixels: bytes


@dataclass(frozen=True)
class Container:
    """Compressed pictures of one writer.

    Attributes:
        fingerprint: 6 bytes that name the writer, or the first 4 of them if the container is exact.
        members: the pictures, at least one.
        shared: coded data that belongs to all pictures.
        digests: what a decoder showed for the pictures; None where decoding needs no check.

    Raises:
        InputError: a field has a value that the format cannot hold.
    """

    fingerprint: bytes
    members: Sequence[Member]
    shared: tuple[bytes, ...] = ()
    digests: Digests | None = None

    def __post_init__(self) -> None:
        if len(self.fingerprint) != (length := _fingerprint_bytes(self.is_exact)):
            raise InputError(
                f"A writer's fingerprint has {length} bytes here, not {len(self.fingerprint)}."
            )
        if not self.members:
            raise InputError("A container needs at least one picture.")
        layout = joint.layout_of(self.members)
        _require_sizes(layout)
        _require_sections(max(int(layout.runs_R4[:, 3].max()), len(self.shared)))
        joint.require_entries(layout)
        if self.digests is not None:
            _require_digests(self.digests, len(self.members))

    @property
    def is_exact(self) -> bool:
        """Whether all pictures decode to the very images that were written."""
        return self.digests is not None and not self.digests.reader

    @property
    def code_bytes(self) -> int:
        """The number of bytes in all sections."""
        return joint.layout_of(self.members).code_bytes + sum(map(len, self.shared))


def pack(container: Container) -> bytes:
    """The container as bytes, in the short form where it holds one picture and no shared section.

    Raises:
        InputError: a section is longer than the header can express.
    """
    own = (section for member in container.members for section in member.sections)
    data = b"".join((_head(container), *container.shared, *own))
    return data + _checksum(data, container.is_exact)


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
    exact = len(data) > len(MAGIC) and bool(data[len(MAGIC)] & _EXACT)
    end = len(data) - (_EXACT_CHECKSUM_BYTES if exact else _CHECKSUM_BYTES)
    if end < _FINGERPRINT + _fingerprint_bytes(exact):
        raise InputError(f"The container is cut: only {len(data)} bytes are left.")
    body, checksum = data[:end], data[end:]
    if checksum != _checksum(body, exact):
        raise InputError("The container's checksum is wrong: it is damaged or cut.")
    read = _read_joint if data[len(MAGIC)] & _JOINT else _read_one
    found = read(Fields(body, _FINGERPRINT), body)
    if _head(found) != body[: len(body) - found.code_bytes]:
        raise malformed()
    return found


def open_for(data: bytes, codec_id: str, fingerprint: bytes, name: str) -> Container:
    """The container that a codec is to decode.

    Args:
        data: the bytes of the stream.
        codec_id, fingerprint: the id of the codec, and its writer's fingerprint of 6 bytes.
        name: the name of the stream in the message, such as its path.

    Raises:
        InputError: the stream is no whole container, or another encoder has written it.
    """
    try:
        found = unpack(data)
    except InputError as error:
        raise InputError(f"{name} cannot be decoded: {error}") from None
    require_writer(found, codec_id, fingerprint, name)
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
    if container.fingerprint != fingerprint[: len(container.fingerprint)]:
        raise InputError(
            f"{name} was written by the encoder {container.fingerprint.hex()} and cannot be decoded"
            f" by the codec {codec_id}, which reads those of the encoder {fingerprint.hex()}: give"
            " the run that wrote it."
        )


def part_bits(container: Container, parts: Sequence[str]) -> dict[str, int]:
    """The bits of each part of all pictures of a container.

    Args:
        container: the container.
        parts: the names of a picture's sections in their order; the last one is also the name of
            sections that pictures share, and of further ones.
    """
    found = dict.fromkeys(parts, 0)
    found[parts[-1]] += 8 * sum(map(len, container.shared))
    for member in container.members:
        for place, section in enumerate(member.sections):
            found[parts[min(place, len(parts) - 1)]] += 8 * len(section)
    return found


def member_at(container: Container, place: int, name: str, max_pixels: int = MAX_PIXELS) -> Member:
    """The picture at one place of a container, counted from 0.

    Args:
        container: the container.
        place: the picture's place.
        name: the name of the stream in the message, such as its path.
        max_pixels: the number of pixels that the receiver is ready to decode.

    Raises:
        InputError: the container holds no such picture, or the picture has more pixels.
    """
    if not 0 <= place < len(container.members):
        count = len(container.members)
        raise InputError(
            f"{name} holds {count} picture{'s' * (count > 1)}, there is no number {place}: they are"
            f" counted from 0 to {count - 1}."
        )
    member = container.members[place]
    if member.height * member.width > max_pixels:
        raise InputError(
            f"{name} claims a picture of {member.height}×{member.width} pixels, which is more than"
            f" the limit of {max_pixels} pixels: raise the limit (--max-pixels) if you trust the"
            " file."
        )
    return member


def _head(container: Container) -> bytes:
    """All bytes of the container before its sections."""
    members, shared, digests = container.members, container.shared, container.digests
    is_joint = len(members) > 1 or bool(shared)
    many = not is_joint and len(members[0].sections) != 1
    checked = _EXACT if container.is_exact else _DIGESTS * (digests is not None)
    kind = _JOINT * is_joint | _NOT_ONE_SECTION * many | checked
    parts = [MAGIC, bytes([VERSION << 4 | kind]), container.fingerprint]
    if is_joint:
        parts.append(joint.write(joint.layout_of(members), shared))
    else:
        parts.append(varints([members[0].height, members[0].width]))
        parts.append(joint.lengths(members[0].sections) if many else b"")
    return b"".join([*parts, *(digests or ())])


def _read_one(fields: Fields, body: bytes) -> Container:
    kind = body[len(MAGIC)]
    fingerprint = fields.take(_fingerprint_bytes(bool(kind & _EXACT)))
    height, width = fields.varint(), fields.varint()
    lengths = joint.read_lengths(fields) if kind & _NOT_ONE_SECTION else [None]
    digests = _read_digests(fields, kind, 1)
    sections = [fields.take(fields.left if length is None else length) for length in lengths]
    members = (Member(height, width, tuple(sections)),)
    return Container(fingerprint, members, digests=digests)


def _read_joint(fields: Fields, body: bytes) -> Container:
    kind = body[len(MAGIC)]
    fingerprint = fields.take(_fingerprint_bytes(bool(kind & _EXACT)))
    layout, lengths = joint.read(fields)
    digests = _read_digests(fields, kind, layout.pictures)
    rest = fields.left - layout.code_bytes - sum(length or 0 for length in lengths)
    if rest < 0:
        raise malformed()
    shared = tuple(fields.take(rest if length is None else length) for length in lengths)
    members = Members(layout, body, fields.at)
    return Container(fingerprint, members, shared, digests)


def _read_digests(fields: Fields, kind: int, pictures: int) -> Digests | None:
    if not kind & (_DIGESTS | _EXACT):
        return None
    reader = b"" if kind & _EXACT else fields.take(READER_TAG_BYTES)
    return Digests(reader, fields.take(DIGEST_BYTES * pictures))


def _fingerprint_bytes(exact: bool) -> int:
    return EXACT_FINGERPRINT_BYTES if exact else FINGERPRINT_BYTES


def _require_version(byte: int) -> None:
    version = byte >> 4
    old = 1 if byte == _FIRST_VERSION else version
    if old in range(1, VERSION):
        raise InputError(
            f"The container was written by an older gencomp: format version {old}, which is no"
            f" longer read; this gencomp reads version {VERSION}."
        )
    if version != VERSION or (byte & _DIGESTS and byte & _EXACT):
        raise InputError(
            f"The container has format version {version}, kind {byte & 0xF}, which is not"
            f" supported: this gencomp reads version {VERSION}."
        )


def _require_sizes(layout: Layout) -> None:
    sizes_R2 = layout.runs_R4[:, 1:3]
    if (wrong_R := ((sizes_R2 < 1) | (sizes_R2 > MAX_SIDE)).any(axis=1)).any():
        height, width = sizes_R2[wrong_R][0].tolist()
        raise InputError(
            f"A container holds images of 1 to {MAX_SIDE} pixels a side, not {height}×{width}."
        )


def _require_sections(count: int) -> None:
    if count > MAX_SECTIONS:
        raise InputError(
            f"A container holds at most {MAX_SECTIONS} sections of a picture, not {count}."
        )


def _require_digests(digests: Digests, pictures: int) -> None:
    found = len(digests.reader), len(digests.pixels)
    if found not in ((0, DIGEST_BYTES * pictures), (READER_TAG_BYTES, DIGEST_BYTES * pictures)):
        raise InputError(
            f"The digests of {pictures} pictures have 0 or {READER_TAG_BYTES} bytes of the reader"
            f" and {DIGEST_BYTES * pictures} of the pixels, not {found[0]} and {found[1]}."
        )


def _checksum(data: bytes, exact: bool) -> bytes:
    if exact:
        return (binascii.crc_hqx(data, 0xFFFF) ^ 0xFFFF).to_bytes(_EXACT_CHECKSUM_BYTES, "big")
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")
