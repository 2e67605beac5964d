"""The coders of an image's latents, which share one interface and each have a number in a file.

    ( z_1 … z_L ) ──encode──▶ ( stream ) ──decode──▶ ( z_1 … z_L )

    0  relative entropy   latents like samples of their posterior, at little more than their
                          divergence from the prior; for any Gaussian posterior
    1  bits-back          at that divergence, on average over the pictures of a chain; for lossless
                          models, whose receiver learns the image and so the posterior
    2  universal          latents like samples of a posterior that is uniform of width 1, at the
                          least rate of such a channel (Agustsson and Theis, 2020)

The first and the third code one image into a range coder, layer by layer, and leave the state of
the model after the last layer behind, in which the residual is coded. Both sides go through the
same states, since the sender takes the latents that the receiver will get. Bits-back codes images
and latents together (`gencomp.coding.bits_back`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from gencomp.coding import relative_entropy, universal_quantization
from gencomp.coding.dither import unit_dither
from gencomp.coding.latent_model import Floats, LatentModel
from gencomp.coding.range_coder import Decoder, Encoder

RELATIVE_ENTROPY, BITS_BACK, UNIVERSAL = range(3)

State = TypeVar("State")


class Model(LatentModel[State], Protocol[State]):
    """A model of latents that says what each costs on average."""

    def expected_D(self, state: State) -> Floats:
        """The expected divergence of each latent of the next layer in nats, [D]."""
        ...


class Place(NamedTuple):
    """The key of the randomness that both sides share for one image.

    Attributes:
        seed: 64 bits of the writer's fingerprint.
        tile: the number of the image among the tiles of its picture.
    """

    seed: int
    tile: int


class LatentCoder(Protocol):
    """A coder of the latents of one image into a range coder."""

    def encode(
        self, encoder: Encoder, model: Model[Any], image_HWC: np.ndarray, place: Place
    ) -> Any:
        """Append the latents of an image.

        Args:
            encoder: the encoder.
            model: the model of the image.
            image_HWC: the image, uint8 [H, W, 3].
            place: the key of the shared randomness.

        Returns:
            The model's state after the last layer, at the latents that the receiver gets.
        """
        ...

    def decode(
        self,
        decoder: Decoder,
        model: Model[Any],
        size: tuple[int, int],
        place: Place,
        finish: Callable[[], None],
    ) -> Any:
        """Read the latents of an image; the state after the last layer.

        Args:
            decoder: the decoder.
            model: the model of the image.
            size: the height and the width of the image.
            place: the key of the shared randomness.
            finish: is called when the last latent was read, before whatever work can wait.

        Raises:
            InputError: the stream holds no such latents, or `finish` raises it.
        """
        ...


class RelativeEntropy(NamedTuple):
    """The coder of Gaussian posteriors.

    Attributes:
        settings: how hard the sender searches, of which the receiver needs nothing.
    """

    settings: relative_entropy.Settings

    def encode(
        self, encoder: Encoder, model: Model[Any], image_HWC: np.ndarray, place: Place
    ) -> Any:
        (height, width), codes = image_HWC.shape[:2], []
        state = model.start(height, width, image_HWC)
        for layer in range(model.layers):
            key, prior = _key(place, layer), model.prior(state)
            expected_D = model.expected_D(state)
            code = relative_entropy.encode_layer(
                model.posterior(state), prior, expected_D, key, self.settings
            )
            codes.append(code)
            z_D = relative_entropy.decode_layer(code, prior, expected_D, key)
            state = model.after(state, z_D)
        # One coder of all layers, whose counts adapt over all of them.
        relative_entropy.coder(model.dimensions(height, width)).encode(encoder, codes)
        return state

    def decode(
        self,
        decoder: Decoder,
        model: Model[Any],
        size: tuple[int, int],
        place: Place,
        finish: Callable[[], None],
    ) -> Any:
        codes = relative_entropy.coder(model.dimensions(*size)).decode(decoder)
        finish()  # no network has run yet
        state = model.start(*size)
        for layer, code in enumerate(codes):
            z_D = relative_entropy.decode_layer(
                code, model.prior(state), model.expected_D(state), _key(place, layer)
            )
            state = model.after(state, z_D)
        return state


class Universal(NamedTuple):
    """The coder of posteriors that are uniform of width 1."""

    def encode(
        self, encoder: Encoder, model: Model[Any], image_HWC: np.ndarray, place: Place
    ) -> Any:
        state = model.start(image_HWC.shape[0], image_HWC.shape[1], image_HWC)
        for layer in range(model.layers):
            prior, mean_D = model.prior(state), model.posterior(state).mean_D
            dither_D = _dither(place, layer, len(mean_D))
            z_D = universal_quantization.encode(encoder, mean_D, prior, dither_D)
            state = model.after(state, z_D)
        return state

    def decode(
        self,
        decoder: Decoder,
        model: Model[Any],
        size: tuple[int, int],
        place: Place,
        finish: Callable[[], None],
    ) -> Any:
        state = model.start(*size)
        for layer in range(model.layers):
            prior = model.prior(state)
            dither_D = _dither(place, layer, len(prior.mean_D))
            z_D = universal_quantization.decode(decoder, prior, dither_D)
            state = model.after(state, z_D)
        finish()
        return state


def _key(place: Place, layer: int) -> relative_entropy.Key:
    return relative_entropy.Key(place.seed, place.tile, layer)


def _dither(place: Place, layer: int, count: int) -> Floats:
    return unit_dither(place.seed, [place.tile], count, layer)[0]
