"""What a run's files would be if the coder of their latents lost nothing.

The latents are then samples of the posterior and cost its divergence from the prior, which the
Gaussian posteriors give in closed form for the sample of the layers before. Real files are a little
longer, and what they show is a little worse.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from gencomp.coding import logistic, relative_entropy
from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.system import Ideal, Picture
from gencomp.systems.common.pictures import required
from gencomp.systems.irec.codec import Coded
from gencomp.systems.irec.pictures import cut


def of_picture(coded: Coded, picture: Picture) -> Ideal:
    """What the file of a picture would be; a picture always gets the same sample.

    Raises:
        InputError: the codec does not take the image.
    """
    model, kind = coded.model, coded.kind
    image_HWC = required(picture.image_HWC)
    shown_HWC, nats = np.empty_like(image_HWC), 0.0
    for number, tile in enumerate(coded.tiles(*image_HWC.shape[:2])):
        part_HWC = cut(image_HWC, tile)
        draw = np.random.Generator(np.random.Philox(key=[picture.index % 2**64, number]))
        state = model.start(tile.height, tile.width, part_HWC)
        for _ in range(model.layers):
            prior, posterior = model.prior(state), model.posterior(state)
            if kind == "uniform":
                z_D = posterior.mean_D + draw.random(len(posterior.mean_D)) - 0.5
                nats += uniform_nats(z_D, prior)
            else:
                noise_D = draw.standard_normal(len(posterior.mean_D))
                z_D = posterior.mean_D + posterior.scale_D * noise_D
                nats += gaussian_nats(posterior, prior)
            state = model.after(state, z_D)
        if kind == "lossless":
            likelihood = model.likelihood(state)
            nats -= logistic.log_likelihood(likelihood, part_HWC.reshape(-1).astype(np.int64))
            cut(shown_HWC, tile)[...] = part_HWC
        else:
            cut(shown_HWC, tile)[...] = model.shown(state)
    return Ideal(nats / math.log(2), shown_HWC)


def targets(coded: Coded, picture: Picture) -> list[Gaussian]:
    """The standardised posteriors of all blocks of latents of a picture, at means of the layers.

    Raises:
        InputError: the codec does not take the image.
    """
    model, image_HWC = coded.model, required(picture.image_HWC)
    found: list[Gaussian] = []
    for number, tile in enumerate(coded.tiles(*image_HWC.shape[:2])):
        state = model.start(tile.height, tile.width, cut(image_HWC, tile))
        for layer in range(model.layers):
            prior, posterior = model.prior(state), model.posterior(state)
            key = relative_entropy.Key(0, number, layer)
            found += relative_entropy.targets(posterior, prior, model.expected_D(state), key)
            state = model.after(state, posterior.mean_D)
    return found


def gaussian_nats(posterior: Gaussian, prior: Gaussian) -> float:
    """The divergence of Gaussian latents from their prior."""
    ratio_D = posterior.scale_D / prior.scale_D
    distance_D = (posterior.mean_D - prior.mean_D) / prior.scale_D
    return float(((ratio_D**2 + distance_D**2 - 1) / 2 - np.log(ratio_D)).sum())


def uniform_nats(z_D: Floats, prior: Gaussian) -> float:
    """−ln of the prior's probability of the intervals of width 1 about latents."""
    # By symmetry the interval may lie on the left, where log Φ is exact.
    far_D = -np.abs(z_D - prior.mean_D)
    upper, lower = (
        torch.special.log_ndtr(torch.from_numpy((far_D + half) / prior.scale_D))
        for half in (0.5, -0.5)
    )
    return float(-(upper + torch.log(-torch.expm1(lower - upper))).sum())
