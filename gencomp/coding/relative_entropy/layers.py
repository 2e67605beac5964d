"""A layer of latents as a model has it: coded in blocks, relative to its prior.

( posterior, prior ) ──encode_layer──▶ ( codes ) ──decode_layer──▶ ( z )
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy import auxiliary, beam_search, blocks
from gencomp.coding.relative_entropy.auxiliary import Floats
from gencomp.coding.relative_entropy.codes import BlockCode, Key, Settings


def encode_layer(
    posterior: Gaussian, prior: Gaussian, expected_D: Floats, key: Key, settings: Settings
) -> list[BlockCode]:
    """Code a layer of D latents; its value is what `decode_layer` gives for the codes.

    Args:
        posterior: the law that the value should have.
        prior: the law that the receiver knows.
        expected_D: the relative entropy in nats that is expected of each latent; both sides must
            have the same table, since it decides which latents are coded together.
        key: the seed, the picture and the number of the layer; equal keys give equal candidates.
        settings: how to search.

    Returns:
        The codes of the blocks; their number is sent by `stream.coder`.

    Raises:
        InputError: an argument is out of range, or the posterior is too far from the prior.
    """
    return beam_search.encode(targets(posterior, prior, expected_D, key), key, settings)


def targets(posterior: Gaussian, prior: Gaussian, expected_D: Floats, key: Key) -> list[Gaussian]:
    """The standardised targets of the blocks of a layer; the arguments are as for `encode_layer`.

    Raises:
        InputError: an argument is out of range.
    """
    target = standardised(posterior, prior)
    number = blocks.count(auxiliary.kl(*target), len(target.mean_D))
    places = blocks.split(expected_D, number, key)
    return [Gaussian(target.mean_D[place], target.scale_D[place]) for place in places]


def decode_layer(
    codes: Sequence[BlockCode], prior: Gaussian, expected_D: Floats, key: Key
) -> Floats:
    """The value of a layer, float64 [D].

    Args:
        codes: the codes of its blocks.
        prior, expected_D, key: as for `encode_layer`.

    Raises:
        InputError: an argument is out of range.
    """
    places = blocks.split(expected_D, len(codes), key)
    values = beam_search.decode(codes, [len(place) for place in places], key)
    x_D = blocks.merge(values, places, len(expected_D))
    return np.asarray(prior.mean_D + prior.scale_D * x_D)


def standardised(posterior: Gaussian, prior: Gaussian) -> Gaussian:
    """The target of (z − μ_p)/σ_p."""
    return Gaussian(
        (posterior.mean_D - prior.mean_D) / prior.scale_D, posterior.scale_D / prior.scale_D
    )
