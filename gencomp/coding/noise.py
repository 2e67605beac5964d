"""Noise that decoders draw: it is a function of the model, the code, and a few bits of salt.

Without salt, pictures with equal codes are shown as equal images. Codes of few bits are often
equal, so a receiver would see the same image again and again where the model means many. The salt
tells such pictures apart. It is a function of the picture's pixels, so a picture has one stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gencomp.errors import InputError

MAX_DRAW = 2**64 - 1


def salt_of(image_HWC: np.ndarray, bits: int) -> int:
    """The salt of a picture, a number of at most 64 bits that its pixels decide.

    Args:
        image_HWC: the uint8 pixels of the picture.
        bits: the number of bits of the salt, 0..64.
    """
    shape = " ".join(map(str, image_HWC.shape)).encode()
    digest = hashlib.blake2b(shape + b"\n", digest_size=8, person=b"salt")
    digest.update(np.ascontiguousarray(image_HWC).data)
    return int.from_bytes(digest.digest(), "little") & ((1 << bits) - 1)


def first_index(files: Iterable[bytes]) -> int:
    """The index of the first of some pictures, from which those of the others count up.

    Sender and receiver derive randomness from it, which no other pictures may share, so it is a
    hash of the files: other files get other indices, and the same ones get the same again.

    Args:
        files: the content of each picture's file.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"index")
    for data in files:
        digest.update(hashlib.blake2b(data).digest())
    return int.from_bytes(digest.digest(), "big") >> 1  # so that counting up stays below 2^64


def keyed_uniform(
    code: bytes,
    model: bytes,
    shape: tuple[int, ...],
    place: int = 0,
    draw: int = 0,
    salt: int = 0,
) -> npt.NDArray[np.float64]:
    """Uniform multiples of 2^-52 in [−1, 1), which are the same on every machine.

    Args:
        code: the bytes that are decoded.
        model: the fingerprint of the decoder's weights.
        shape: the shape of the result.
        place: the number of the tile within its image, so that equal tiles look different.
        draw: the number of the draw; 0 is the noise that every decoder uses by default.
        salt: the salt of the picture, 0..2^64 − 1.

    Raises:
        InputError: `draw` lies outside 0..2^64 − 1.
    """
    require_draw(draw)
    where = place.to_bytes(8, "little") + draw.to_bytes(8, "little")
    picture = salt.to_bytes(8, "little")
    key = hashlib.blake2b(code, key=model, salt=where, person=picture, digest_size=16).digest()
    # Philox (Salmon et al., 2011) computes in integers, and 53 bits fit a float64 exactly.
    raw = np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(int(np.prod(shape)))
    unit = (np.atleast_1d(raw) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (2 * unit - 1).reshape(shape)


def require_draw(draw: int) -> None:
    """Refuse a number that no draw can have."""
    if not 0 <= draw <= MAX_DRAW:
        raise InputError(f"a draw is a number from 0 to {MAX_DRAW}, not {draw}")
