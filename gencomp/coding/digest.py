"""Digests of decoded pixels: what has one is shown as it was when it was written, or refused.

A decoder that computes in floating point may round a value to the next grey level on another
processor: at float64 in about one value of 10^12, which nobody would see and no checksum of the
file can find. So the writer decodes each picture that it has coded, and the container carries a
hash of its pixels beside the name of the decoder (`gencomp.coding.container`). A decoder of that
name must show the same pixels. Another decoder of the same encoder shows other pixels, and has
nothing to compare with. A codec hashes each image that it shows with `hashed` and joins the hashes
with `of` when it compresses, and calls `require` when it decompresses.

The hash is BLAKE2b of 4 bytes, whose key is the whole fingerprint of the decoder. Wrong pixels pass
with a probability of 2^-32, and a decoder is taken for the writer's by mistake with one of 2^-16;
it then refuses the stream. A codec may leave them out, and then says in its docstring what another
processor shows.

Where every decoder is to show the very image that was written, the container is an exact one: it
names no decoder, the key of the hashes is the fingerprint of the writer, and any other image is
refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from gencomp.coding.container import DIGEST_BYTES, READER_TAG_BYTES, Container, Digests
from gencomp.errors import InputError


def hashed(image_HWC: np.ndarray, reader: bytes) -> bytes:
    """The hash of decoded pixels, 4 bytes.

    Args:
        image_HWC: the uint8 pixels [H, W, C] that the decoder shows, at the draw that every decoder
            shows.
        reader: the fingerprint of the decoder, of 2 to 64 bytes.
    """
    shape = " ".join(map(str, image_HWC.shape)).encode()
    digest = hashlib.blake2b(shape + b"\n", key=reader, digest_size=DIGEST_BYTES, person=b"pixels")
    digest.update(np.ascontiguousarray(image_HWC).data)
    return digest.digest()


def of(hashes: Iterable[bytes], reader: bytes) -> Digests:
    """The digests of a container whose pictures have these hashes, in their order."""
    return Digests(reader[:READER_TAG_BYTES], b"".join(hashes))


def of_exact(hashes: Iterable[bytes]) -> Digests:
    """The digests of an exact container whose pictures have these hashes, in their order."""
    return Digests(b"", b"".join(hashes))


def require(
    container: Container, place: int, image_HWC: np.ndarray, reader: bytes, name: str
) -> None:
    """Refuse decoded pixels that are not those that the writer has seen.

    Nothing is refused if the container has no digests, or those of another decoder; in an exact
    container they are those of all decoders.

    Args:
        container: the container.
        place: the place of the picture in it.
        image_HWC: the uint8 pixels of the picture, at the draw that every decoder shows.
        reader: the fingerprint of the decoder that has decoded them, or that of the writer if the
            container is exact.
        name: the name of the stream in the message, such as its path.

    Raises:
        InputError: this decoder has shown other pixels where the stream was written.
    """
    digests = container.digests
    if digests is None or digests.reader not in (b"", reader[:READER_TAG_BYTES]):
        return
    expected = digests.pixels[DIGEST_BYTES * place : DIGEST_BYTES * (place + 1)]
    if hashed(image_HWC, reader) != expected:
        raise InputError(
            f"{name} decodes to other pixels here than where it was written, so it is not shown:"
            " this processor or this version of PyTorch rounds otherwise. Decode it where it was"
            " written, or compress the image again here."
        )
