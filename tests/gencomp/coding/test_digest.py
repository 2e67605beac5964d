"""Digests of pixels: everything counts, only the decoder that was named is held to them."""

from __future__ import annotations

import numpy as np
import pytest

from gencomp.coding import digest
from gencomp.coding.container import Container, Member
from gencomp.errors import InputError

READER, OTHER = b"RRreader", b"OOreader"
IMAGES = [np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + i for i in range(3)]


def container(reader: bytes = READER) -> Container:
    digests = digest.of((digest.hashed(image, reader) for image in IMAGES), reader)
    return Container(b"writer", (Member(2, 4),) * 3, digests=digests)


def test_pixels_shape_and_decoder_decide_the_hash() -> None:
    one = IMAGES[0]
    changed = one.copy()
    changed[1, 2, 0] ^= 1
    hashes = {
        digest.hashed(one, READER),
        digest.hashed(changed, READER),
        digest.hashed(one.reshape(4, 2, 3), READER),
        digest.hashed(one, OTHER),
    }
    assert len(hashes) == 4 and {len(found) for found in hashes} == {4}
    strided = np.repeat(one, 2, axis=1)[:, ::2]
    assert digest.hashed(strided, READER) == digest.hashed(one, READER)
    assert digest.hashed(one, READER).hex() == GOLDEN


def test_each_picture_is_held_to_its_own() -> None:
    for place, image in enumerate(IMAGES):
        digest.require(container(), place, image, READER, "a.gcp")
        with pytest.raises(InputError, match=r"a.gcp decodes to other pixels here than where it"):
            digest.require(container(), place, image ^ 1, READER, "a.gcp")
    with pytest.raises(InputError, match=r"a.gcp decodes to other pixels"):
        digest.require(container(), 1, IMAGES[0], READER, "a.gcp")


def test_other_decoders_and_containers_without_digests_are_not() -> None:
    digest.require(container(), 0, IMAGES[1], OTHER, "a.gcp")
    digest.require(Container(b"writer", (Member(2, 4),)), 0, IMAGES[1], READER, "a.gcp")


def test_every_decoder_is_held_to_an_exact_image() -> None:
    hashes = [digest.hashed(image, b"writer") for image in IMAGES]
    found = Container(b"writ", (Member(2, 4),) * 3, digests=digest.of_exact(hashes))
    digest.require(found, 2, IMAGES[2], b"writer", "a.gcp")
    with pytest.raises(InputError, match=r"a.gcp decodes to other pixels here than where it"):
        digest.require(found, 2, IMAGES[1], b"writer", "a.gcp")


GOLDEN = "4721a528"
