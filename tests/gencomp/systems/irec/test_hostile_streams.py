"""Mangled streams and hostile headers: refused by name, with bounded time and memory, or harmless.

Half of the mangled streams have the right checksum, since a hostile sender knows how to compute
one. A lossless stream then still ends in an `InputError`, as the hash of its image is wrong; a
lossy one may be what an encoder has written for another picture, and is shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gencomp.coding.latent_model import Gaussian
from gencomp.errors import InputError
from gencomp.system import Picture
from gencomp.systems.irec.codec import IrecCodec
from gencomp.systems.irec.writing import CodecSection
from tests.gencomp.mangled_streams import (
    claiming,
    header,
    mangled,
    require_claims_are_refused,
    sealed,
    shown_of,
)
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, body, codec

# Pictures of at most so many pixels are decoded; the streams are of smaller ones.
LIMIT = 64 * 64


def streams(kind: str) -> list[bytes]:
    pictures = codec_cases.crops(4, 4, 20, seed=7)
    alone = [codec(kind).compress(picture) for picture in pictures[:3]]
    return [*alone, codec(kind).compress_jointly(pictures)]


def hostile(kind: str, generator: np.random.Generator) -> bytes:
    return header(codec(kind).writer_fingerprint, generator, exact=kind in LOSSLESS)


@pytest.mark.parametrize("kind", KINDS)
def test_mangled_streams(kind: str) -> None:
    generator, whole = np.random.default_rng(1), streams(kind)
    shown = shown_of(codec(kind), lambda: mangled(whole, generator), 600, LIMIT)
    assert shown < 300 if kind not in LOSSLESS else shown < 30


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_headers(kind: str) -> None:
    generator = np.random.default_rng(2)
    assert shown_of(codec(kind), lambda: hostile(kind, generator), 400, LIMIT) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_large_claims(kind: str) -> None:
    require_claims_are_refused(codec(kind), streams(kind))


class Silent:
    """A model whose images say nothing: their posterior is the prior."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def posterior(self, state: Any) -> Gaussian:
        prior: Gaussian = self._model.prior(state)
        return prior


@pytest.mark.parametrize("kind", ["two_level", "one_level"])
def test_a_stream_has_a_byte_for_each_square_of_64_pixels(kind: str) -> None:
    """A picture that costs nothing is filled up with zeros, and nothing else is shown."""
    coded = codec(kind)._coded
    writer = IrecCodec(coded._replace(model=Silent(coded.model)), CodecSection())
    picture = Picture(np.zeros((130, 200, 3), np.uint8))
    stream = writer.compress(picture)
    assert writer.code_bits(stream) == 8 * (1 + 3 * 4)
    assert np.array_equal(writer.decompress(stream), writer.reconstruct(picture))
    with pytest.raises(InputError, match="130×200 pixels take at least 12 bytes, the code has 11"):
        writer.decompress(sealed(body(stream)[:-1]))
    for other in (body(stream) + b"\0", body(stream)[:-1] + b"\1"):
        with pytest.raises(InputError, match="damaged"):
            writer.decompress(sealed(other))


class Idle:
    """A model that only says how many latents there are."""

    def __init__(self, model: Any) -> None:
        self.layers, self.dimensions = model.layers, model.dimensions


@pytest.mark.parametrize("kind", ["two_level", "one_level", "bits_back"])
def test_no_network_runs_for_a_stream_that_cannot_be_whole(kind: str) -> None:
    made = codec(kind)
    stream = made.compress(codec_cases.crops(1, 20, 20)[0])
    coded = made._coded._replace(model=Idle(made._model))
    reader = IrecCodec(coded, CodecSection(coder="bits_back" if kind in LOSSLESS else None))
    longer = sealed(body(stream) + b"\0")
    for other in (claiming(stream, 512, 512), *([] if kind in LOSSLESS else [longer])):
        with pytest.raises(InputError, match=r"damaged|take at least"):
            reader.decompress(other)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_5_000_mangled_streams_and_1_000_hostile_headers(kind: str, seed: int) -> None:
    """Of each kind, four times: 100,000 mangled streams and 20,000 headers in all."""
    generator, whole = np.random.default_rng(100 + seed), streams(kind)
    shown_of(codec(kind), lambda: mangled(whole, generator), 5_000, LIMIT)
    shown_of(codec(kind), lambda: hostile(kind, generator), 1_000, LIMIT)
