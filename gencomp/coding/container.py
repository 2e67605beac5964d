"""The file format of every codec: one image's sections with the name of the model that reads them.

| bytes | field | content |
|---|---|---|
| 2 | magic | 9D 47 |
| 1 | format version | 1 |
| 1 | header length | bytes of the seven fields below, without the header checksum |
| 1 | length of the codec id | 1..64 |
| 1..64 | codec id | system or stage, of `a-z 0-9 _ - . /` |
| 8 | model fingerprint | of the weights that can decode the sections |
| 1..3 | height | varint, 1..65535 pixels |
| 1..3 | width | varint, 1..65535 pixels |
| 1..2 | number of sections K | varint |
| 1.. each | section lengths | K varints, in bytes |
| 2 | header checksum | CRC-16/CCITT (initial value FFFF) of every byte before it, big-endian |
| … | sections | K times: content, then its CRC-32 (zlib's), big-endian |

A varint has seven bits a byte, least significant first, the top bit set on all bytes but the last,
in its shortest form. One section under 128 bytes of a 64×64 image costs 23 bytes and the codec id.

The header says how long the whole is, so a cut or lengthened file is seen as such. Any change of a
single byte is found with certainty: in a section by its CRC-32; in the header by its checksum,
whose place depends on the header length alone; in the header length because the fields no longer
end where it says. Sections are separate so that a layered codec can leave out the last ones: pack
what is kept as a new container.
"""

from __future__ import annotations

import binascii
import re
import zlib
from dataclasses import dataclass

from gencomp.errors import InputError

MAGIC = b"\x9dG"
VERSION = 1
FINGERPRINT_BYTES = 8
MAX_SIDE = 65535
_CODEC_ID = re.compile(r"[a-z0-9_./-]{1,64}")
_PREFIX = len(MAGIC) + 2  # magic, version, header length
_MAX_VARINT_BYTES = 5


@dataclass(frozen=True)
class Container:
    """One compressed image.

    Attributes:
        codec_id: short name of the system or stage that decodes it.
        fingerprint: 8 bytes that name the model's weights.
        height, width: of the image, in pixels.
        sections: the coded data, in the order in which a decoder needs it.

    Raises:
        InputError: a field outside what the format can hold.
    """

    codec_id: str
    fingerprint: bytes
    height: int
    width: int
    sections: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not _CODEC_ID.fullmatch(self.codec_id):
            raise InputError(
                f"The codec id {self.codec_id!r} must be 1 to 64 characters of a-z 0-9 _ - . /"
            )
        if len(self.fingerprint) != FINGERPRINT_BYTES:
            raise InputError(
                f"A model fingerprint has {FINGERPRINT_BYTES} bytes, not {len(self.fingerprint)}."
            )
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise InputError(
                f"A container holds images of 1 to {MAX_SIDE} pixels a side, not "
                f"{self.height}×{self.width}."
            )
        if not self.sections:
            raise InputError("A container needs at least one section.")

    @property
    def overhead_bits(self) -> int:
        """Bits of the packed container that are not the sections' content."""
        return 8 * (len(_header(self)) + 4 * len(self.sections))


def pack(container: Container) -> bytes:
    """The container as bytes.

    Raises:
        InputError: more or larger sections than the header can list.
    """
    parts = [_header(container)]
    for section in container.sections:
        parts += [section, _crc32(section)]
    return b"".join(parts)


def unpack(data: bytes) -> Container:
    """The container in `data`, which must be whole and hold nothing else.

    Raises:
        InputError: no container, an unsupported version, a truncated or damaged container, or bytes
            behind its end.
    """
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise InputError("This is not a gencomp container: it does not start with the bytes 9D 47.")
    if len(data) < _PREFIX:
        raise _truncated(len(data), f"at least {_PREFIX}")
    if data[len(MAGIC)] != VERSION:
        raise InputError(
            f"The container has format version {data[len(MAGIC)]}, which is not supported: this "
            f"gencomp reads version {VERSION}."
        )
    end = _PREFIX + data[_PREFIX - 1]
    if len(data) < end + 2:
        raise _truncated(len(data), f"at least {end + 2}")
    if data[end : end + 2] != _crc16(data[:end]):
        raise InputError("The checksum of the container's header is wrong: it is damaged.")
    codec_id, fingerprint, height, width, lengths = _parse_header(data[_PREFIX:end])
    total = end + 2 + sum(lengths) + 4 * len(lengths)
    if len(data) < total:
        raise _truncated(len(data), str(total))
    if len(data) > total:
        raise InputError(f"The container ends at byte {total}, {len(data) - total} more follow it.")
    sections, at = [], end + 2
    for number, length in enumerate(lengths, start=1):
        section, at = data[at : at + length], at + length + 4
        if data[at - 4 : at] != _crc32(section):
            raise InputError(
                f"The checksum of section {number} of {len(lengths)} is wrong: the container is "
                "damaged."
            )
        sections.append(section)
    return Container(codec_id, fingerprint, height, width, tuple(sections))


def require_model(
    container: Container, codec_id: str, fingerprint: bytes, source_name: str
) -> None:
    """Refuse a container that another codec or other weights have written.

    Args:
        container: what was read.
        codec_id, fingerprint: of the codec that is to decode it.
        source_name: the stream's name for the message, such as its path.

    Raises:
        InputError: the container belongs to another model.
    """
    written = f"{container.codec_id} {container.fingerprint.hex()}"
    present = f"{codec_id} {fingerprint.hex()}"
    if written != present:
        raise InputError(
            f"{source_name} was written by the model {written} and cannot be decoded by the model "
            f"{present}: give the run that wrote it."
        )


def _header(container: Container) -> bytes:
    codec_id = container.codec_id.encode("ascii")
    numbers = [container.height, container.width, len(container.sections)]
    numbers += [len(section) for section in container.sections]
    fields = bytes([len(codec_id)]) + codec_id + container.fingerprint
    fields += b"".join(_varint(number) for number in numbers)
    if len(fields) > 255:
        raise InputError(
            f"{len(container.sections)} sections make a header of {len(fields)} bytes, at most 255 "
            "are possible: use fewer sections."
        )
    header = MAGIC + bytes([VERSION, len(fields)]) + fields
    return header + _crc16(header)


def _parse_header(fields: bytes) -> tuple[str, bytes, int, int, list[int]]:
    after_id = 1 + fields[0] if fields else 0
    at = after_id + FINGERPRINT_BYTES
    if not fields or at > len(fields):
        raise _malformed()
    codec_id = fields[1:after_id].decode("ascii", errors="replace")
    fingerprint = fields[after_id:at]
    numbers = []
    while at < len(fields):
        number, at = _read_varint(fields, at)
        numbers.append(number)
    if len(numbers) < 3 or len(numbers) != 3 + numbers[2]:
        raise _malformed()
    return codec_id, fingerprint, numbers[0], numbers[1], numbers[3:]


def _varint(number: int) -> bytes:
    if number >= 1 << (7 * _MAX_VARINT_BYTES):
        raise InputError(f"A container cannot hold a section of {number} bytes.")
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(fields: bytes, at: int) -> tuple[int, int]:
    number = 0
    for i, byte in enumerate(fields[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if byte == 0 and i > 0:
                break
            return number, at + i + 1
    raise _malformed()


def _crc16(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _truncated(length: int, expected: str) -> InputError:
    return InputError(f"The container is truncated at byte {length} of {expected}.")


def _malformed() -> InputError:
    return InputError("The container's header is damaged: its fields do not fill it.")
