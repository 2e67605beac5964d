"""The system `vae`, with its objective, its evaluation and its decoder for curves."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.collectives import global_mean
from gencomp.draws import Draws
from gencomp.networks import decoders, vae
from gencomp.networks.calibration import reestimate_statistics
from gencomp.rate_distortion.priors import Gaussian
from gencomp.sums import Sums
from gencomp.system import Batch, LatentDecoder, Latents, Phase, PhaseLoss, Progress, Supply
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.common.pixels import Pixels
from gencomp.systems.vae.recipe import VaeNetworks, VaeRecipe

# The number of global batches over which batch statistics are estimated once weights are final.
_CALIBRATION_BATCHES = 32


class Bound(NamedTuple):
    """The parts of ELBO = log_likelihood − kl, in nats per image, and the mean images."""

    log_likelihood_B: Tensor
    kl_B: Tensor
    mean_BN: Tensor

    @property
    def elbo_B(self) -> Tensor:
        return self.log_likelihood_B - self.kl_B


def encode(encoder: nn.Module, x_BN: Tensor, draws: Draws) -> tuple[vae.Posterior, Tensor]:
    """The posterior q(z|x) of each image, and one sample z from it, [B, k]."""
    posterior = vae.Posterior.of(encoder(x_BN))
    normals_BK = draws.normal("posterior", posterior.mean_BK.shape[1])
    return posterior, posterior.at(normals_BK.to(posterior.mean_BK.dtype))


def bound(networks: nn.ModuleDict, x_BN: Tensor, draws: Draws) -> Bound:
    """The single-sample estimate of the ELBO of each image.

    Args:
        networks: the networks `encoder`, `decoder` and `likelihood`.
        x_BN: the images on the decoder's scale.
        draws: the draws of this batch.
    """
    posterior, z_BK = encode(networks["encoder"], x_BN, draws)
    mean_BN = networks["decoder"](z_BK)
    return Bound(networks["likelihood"](x_BN, mean_BN), posterior.kl_B(), mean_BN)


class ElboPhase(Phase):
    """The objective −ELBO over the encoder, the decoder and, if it is learnt, the variance."""

    def __init__(self, networks: Mapping[str, nn.Module], pixels: Pixels) -> None:
        super().__init__(networks, trains=tuple(networks))
        self.pixels = pixels

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        found = bound(self.networks, self.pixels.to_values(batch.images_BCHW), draws)
        kl, log_likelihood = global_mean(found.kl_B), global_mean(found.log_likelihood_B)
        terms = {"kl": kl.detach(), "log_likelihood": log_likelihood.detach()}
        return PhaseLoss(kl - log_likelihood, terms)


class Vae(SystemOfObjectives):
    """A system of an encoder, a decoder and a pixel model."""

    def __init__(self, recipe: VaeRecipe) -> None:
        sizes = recipe.networks
        self.recipe, self.pixels = recipe, pixels_of(sizes)
        learnt = recipe.likelihood.variance == "learnt"
        nets = {
            "encoder": build_encoder(sizes, self.pixels),
            "decoder": build_decoder(sizes, self.pixels),
            "likelihood": vae.GaussianPixels(recipe.likelihood.value, learnt),
        }
        phase = ElboPhase(nets, self.pixels)
        super().__init__(nets, {"elbo": Objective(phase, recipe.optimizer)})

    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Check on the first batch that the images fit the recipe; no network changes.

        Raises:
            InputError: the images have another size, or are in colour where grey ones are modelled.
        """
        batch, _ = next(supply)
        self.pixels.require(batch.images_BCHW)

    def finalise(self, supply: Supply) -> None:
        """Re-estimate batch statistics: the encoder's over images, the decoder's over latents."""
        if not any(isinstance(module, nn.BatchNorm2d) for module in self.networks.modules()):
            return
        batches = [
            (self.pixels.to_values(batch.images_BCHW), draws)
            for batch, draws in islice(supply, _CALIBRATION_BATCHES)
        ]
        encoder = self.networks["encoder"]
        reestimate_statistics(encoder, (x_BN for x_BN, _ in batches))
        encoder.eval()
        with torch.no_grad():
            latents = [encode(encoder, x_BN, draws)[1] for x_BN, draws in batches]
        reestimate_statistics(self.networks["decoder"], latents)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        self.pixels.require(batch.images_BCHW)
        x_BN = self.pixels.to_values(batch.images_BCHW)
        found = bound(self.networks, x_BN, draws)
        sums = squared_errors(x_BN, found.mean_BN, self.pixels.range)
        sums.add("elbo", found.elbo_B)
        sums.add("kl", found.kl_B)
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The ELBO and KL in nats per image, and the variance on the decoder's scale."""
        return {
            "elbo": sums.mean("elbo"),
            "elbo_standard_error": sums.standard_error("elbo"),
            "kl": sums.mean("kl"),
            **errors_summary(sums),
            "variance": float(self._log_variance().exp()),
            "images": sums.count("mse"),
        }

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        """The images f(z) for one z from q(z|x) each, without pixel noise."""
        return self.pixels.to_images(self.networks["decoder"](self.latents(batch, draws).z_BK))

    def latents(self, batch: Batch, draws: Draws) -> Latents:
        """One sample z from q(z|x) for each image."""
        self.pixels.require(batch.images_BCHW)
        x_BN = self.pixels.to_values(batch.images_BCHW)
        _, z_BK = encode(self.networks["encoder"], x_BN, draws)
        return Latents(z_BK, variance=1.0)

    def sample(self, draws: Draws, like: Batch) -> Tensor:
        """The images f(z) for z from the prior, without pixel noise."""
        self.pixels.require_size(like.images_BCHW)
        z_BK = draws.normal("prior", self.recipe.networks.latent_dim)
        dtype = next(self.networks["decoder"].parameters()).dtype
        return self.pixels.to_images(self.networks["decoder"](z_BK.to(dtype)))

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {
            "originals": batch.images_BCHW,
            "reconstructions": self.reconstruct(batch, draws),
            "samples from the prior": self.sample(draws, like=batch),
        }

    def latent_decoder(self) -> LatentDecoder:
        def target(images_BCHW: Tensor) -> Tensor:
            self.pixels.require(images_BCHW)
            return self.pixels.to_values(images_BCHW)

        return LatentDecoder(
            decode=self.networks["decoder"].eval().requires_grad_(False),
            target=target,
            prior=Gaussian(self.recipe.networks.latent_dim),
            values=self.pixels.values,
            log_variance=self._log_variance(),
        )

    def _log_variance(self) -> Tensor:
        likelihood = self.networks["likelihood"]
        assert isinstance(likelihood, vae.GaussianPixels)
        return likelihood.log_variance.detach()


def pixels_of(sizes: VaeNetworks) -> Pixels:
    """The format of the images; its scale is [−1, 1] for a last tanh and [0, 1] for a sigmoid."""
    height, width = sizes.image_size
    return Pixels(sizes.channels, height, width, signed=sizes.decoder == "dcgan")


def build_encoder(sizes: VaeNetworks, pixels: Pixels) -> nn.Sequential:
    if sizes.decoder == "dcgan":
        return vae.dcgan_encoder(sizes.latent_dim, sizes.widths[0], sizes.channels)
    return vae.mlp_encoder(pixels.values, sizes.widths[::-1], sizes.latent_dim)


def build_decoder(sizes: VaeNetworks, pixels: Pixels) -> nn.Sequential:
    match sizes.decoder:
        case "dcgan":
            return decoders.dcgan_decoder(sizes.latent_dim, sizes.widths[0], sizes.channels)
        case "linear":
            return decoders.linear_decoder(sizes.latent_dim, pixels.values)
        case "deep":
            return decoders.mlp_decoder(sizes.latent_dim, sizes.widths, pixels.values)
