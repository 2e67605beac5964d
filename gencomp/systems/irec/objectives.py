"""The losses of a global batch: a bound with free bits, and a rate beside a distortion.

Rates are analytic divergences for Gaussian posteriors, where the authors' code takes one sample of
log q(z) − log p(z), which may be negative, also in its free bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gencomp.collectives import global_mean_rows, global_means
from gencomp.draws import Draws
from gencomp.evaluation.ssim import multi_scale, scale_weights
from gencomp.losses import at_least_float32, squared_errors
from gencomp.networks import logistic
from gencomp.networks.latents import LatentNetwork, Noise, Passed, Shape
from gencomp.rate_distortion.units import nats_to_bpp
from gencomp.system import Batch, Phase, PhaseLoss, Progress
from gencomp.systems.irec.recipe import Distortion

WHITE = 255.0


class BoundPhase(Phase):
    """The objective −log p(x|z) + w·Σ max(KL, free bits) in nats per image.

    The sum is over the channels of all layers. A channel's KL is summed over its places and
    averaged over the global batch before it is held against its free bits.

    Args:
        networks: the networks `model` and `likelihood`.
        free_bits: the nats that a channel may cost without a gain from costing less.
        kl_weight: maps the progress to w.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        free_bits: float,
        kl_weight: Callable[[Progress], float],
    ) -> None:
        super().__init__(networks, trains=tuple(networks))
        self.free_bits, self.kl_weight = free_bits, kl_weight

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        passed, log_likelihood_B = bound(self.networks, batch.images_BCHW, draws)
        columns_BC = torch.cat([*passed.nats_BC, log_likelihood_B[:, None]], dim=1)
        kl_C, log_likelihood_1 = global_mean_rows(columns_BC).split([columns_BC.shape[1] - 1, 1])
        log_likelihood = log_likelihood_1[0]
        charged = kl_C.clamp_min(self.free_bits).sum()
        terms = {
            "log_likelihood": log_likelihood.detach(),
            "kl": kl_C.detach().sum(),
            "kl_charged": charged.detach(),
        }
        return PhaseLoss(self.kl_weight(progress) * charged - log_likelihood, terms)


class RateDistortionPhase(Phase):
    """The objective λ·distortion + w·rate, with the rate in bits per pixel.

    Args:
        networks: the network `model`.
        uniform: whether the posterior is uniform, and so the noise.
        distortion: the kind of distortion.
        distortion_weight: λ.
        kl_weight: maps the progress to w.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        uniform: bool,
        distortion: Distortion,
        distortion_weight: float,
        kl_weight: Callable[[Progress], float],
    ) -> None:
        super().__init__(networks, trains=tuple(networks))
        self.uniform, self.distortion = uniform, distortion
        self.distortion_weight, self.kl_weight = distortion_weight, kl_weight

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = to_unit(batch.images_BCHW)
        passed = reconstructed(model_of(self.networks), x_BCHW, draws, self.uniform)
        bpp_B = nats_to_bpp(total_nats_B(passed), pixels_of(x_BCHW))
        distortion_B = distortions_B(x_BCHW, passed.output_BCHW, self.distortion)
        bpp, distortion = global_means(bpp_B, distortion_B)
        terms = {"ideal_bpp": bpp.detach(), self.distortion_name: distortion.detach()}
        loss = self.distortion_weight * distortion + self.kl_weight(progress) * bpp
        return PhaseLoss(loss, terms)

    @property
    def distortion_name(self) -> str:
        """The name of the distortion as a term, with its scale."""
        return {"mse": "mse_bytes", "ms_ssim": "ms_ssim_loss"}[self.distortion]


def bound(networks: nn.ModuleDict, images_BCHW: Tensor, draws: Draws) -> tuple[Passed, Tensor]:
    """The rates of a batch and log p(x|z) in nats, [B], for a sample z of the posterior.

    Args:
        networks: the networks `model` and `likelihood`.
        images_BCHW: uint8 images of any size, or floats in [0, 1).
        draws: the draws of this batch.
    """
    model, levels_BCHW = model_of(networks), logistic.levels_of(images_BCHW)
    height, width = levels_BCHW.shape[2:]
    x_BCHW = model.padded(logistic.centres_of(levels_BCHW))
    nats_BC, mean_BCHW = model(x_BCHW, noise_of(draws))
    mean_BCHW = mean_BCHW[:, :, :height, :width]
    return Passed(nats_BC, mean_BCHW), networks["likelihood"](levels_BCHW, mean_BCHW)


def reconstructed(model: LatentNetwork, x_BCHW: Tensor, draws: Draws, uniform: bool) -> Passed:
    """The rates and reconstructions of images on [0, 1] of any size.

    Args:
        model: a lossy model.
        x_BCHW: the images.
        draws: the draws of this batch.
        uniform: whether the model's posterior is uniform.
    """
    height, width = x_BCHW.shape[2:]
    nats_BC, x_hat_BCHW = model(model.padded(x_BCHW), noise_of(draws, uniform))
    return Passed(nats_BC, x_hat_BCHW[:, :, :height, :width])


def model_of(networks: nn.ModuleDict) -> LatentNetwork:
    """The network `model`."""
    model = networks["model"]
    assert isinstance(model, LatentNetwork)
    return model


def noise_of(draws: Draws, uniform: bool = False, purpose: str = "latents") -> Noise:
    """The noise of each layer: standard normal, or uniform on [−½, ½)."""

    def noise(layer: int, shape: Shape) -> Tensor:
        name = f"{purpose} {layer}"
        return draws.uniform(name, -0.5, 0.5, *shape) if uniform else draws.normal(name, *shape)

    return noise


def to_unit(images_BCHW: Tensor) -> Tensor:
    """Map uint8 images to [0, 1]; floats in [0, 1) stay as they are."""
    if images_BCHW.is_floating_point():
        return images_BCHW
    return images_BCHW.to(torch.get_default_dtype()) / WHITE


def total_nats_B(passed: Passed) -> Tensor:
    """The rate of each image in nats, [B]."""
    return torch.stack([nats_BC.sum(1) for nats_BC in passed.nats_BC]).sum(0)


def pixels_of(x_BCHW: Tensor) -> int:
    """The number of pixels of each image."""
    return x_BCHW.shape[2] * x_BCHW.shape[3]


def distortions_B(x_BCHW: Tensor, x_hat_BCHW: Tensor, distortion: Distortion) -> Tensor:
    """The distortion of each image on [0, 1], [B], on the scale of the published λ."""
    if distortion == "mse":
        return squared_errors(x_hat_BCHW, x_BCHW) * WHITE**2
    with torch.autocast(x_BCHW.device.type, enabled=False):
        a_BCHW, b_BCHW = (at_least_float32(x) * WHITE for x in (x_BCHW, x_hat_BCHW))
        # The published λ belong to exponents of 1; evaluations take the standard ones.
        exponents = [1.0] * len(scale_weights(*x_BCHW.shape[2:]))
        return WHITE * (1 - multi_scale(a_BCHW, b_BCHW, exponents))


def warm_up(steps: int | None) -> Callable[[Progress], float]:
    """The weight of the rate, which grows from 0 to 1 over some steps."""
    return lambda progress: 1.0 if steps is None else min(1.0, progress.step / steps)


def channel_means(nats_BC: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each channel's rate over the global batch, [C] for each layer."""
    means = global_mean_rows(torch.cat([*nats_BC], dim=1))
    return list(means.split([one.shape[1] for one in nats_BC]))
