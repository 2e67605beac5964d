"""Losses of discriminators and of the generators that they judge, for each image.

A discriminator gives one score or many (patches) for an image; its loss is the mean over them. With
the scores r of real images and f of generated ones, D minimises and G minimises

    lsgan     (r − 1)² + f²                      (f − 1)²         Mao et al., ICCV 2017
    vanilla   −log σ(r) − log(1 − σ(f))          −log σ(f)        Goodfellow et al., NeurIPS 2014
    hinge     max(0, 1 − r) + max(0, 1 + f)      −f               Lim and Ye, 2017
    wgan_gp   f − r                              −f               Gulrajani et al., NeurIPS 2017

The penalty of wgan_gp is in `gencomp.losses`. All are computed in float32 at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gencomp.losses import at_least_float32

GanLoss = Literal["lsgan", "vanilla", "hinge", "wgan_gp"]


def discriminator_losses(kind: GanLoss, real_B1HW: Tensor, fake_B1HW: Tensor) -> Tensor:
    """The discriminator's loss for each pair of a real and a generated image, [n].

    Args:
        kind: the kind of the loss.
        real_B1HW, fake_B1HW: the scores; vanilla takes logits.
    """
    real, fake = at_least_float32(real_B1HW), at_least_float32(fake_B1HW)
    match kind:
        case "lsgan":
            losses = (real - 1).square() + fake.square()
        case "vanilla":
            losses = F.softplus(-real) + F.softplus(fake)
        case "hinge":
            losses = F.relu(1 - real) + F.relu(1 + fake)
        case "wgan_gp":
            losses = fake - real
    return losses.flatten(1).mean(1)


def generator_losses(kind: GanLoss, fake_B1HW: Tensor) -> Tensor:
    """The generator's loss for each generated image, [n]; vanilla is the non-saturating one."""
    fake = at_least_float32(fake_B1HW)
    match kind:
        case "lsgan":
            losses = (fake - 1).square()
        case "vanilla":
            losses = F.softplus(-fake)
        case "hinge" | "wgan_gp":
            losses = -fake
    return losses.flatten(1).mean(1)


def feature_differences(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], mean_of_scales: bool = False
) -> Tensor:
    """The mean absolute difference of every feature map, summed over layers and scales, [n].

    Args:
        real, fake: the feature maps [n, C, H, W] of each layer of each scale; no gradient flows to
            the real ones.
        mean_of_scales: whether scales are averaged instead.
    """
    terms_B = [
        (at_least_float32(one.detach()) - at_least_float32(other)).abs().flatten(1).mean(1)
        for of_real, of_fake in zip(real, fake, strict=True)
        for one, other in zip(of_real, of_fake, strict=True)
    ]
    total_B = torch.stack(terms_B).sum(0)
    return total_B / len(real) if mean_of_scales else total_B
