"""The base classes of the method's systems: batch statistics and evaluation by reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.losses import mmd
from gencomp.networks import dplc as networks
from gencomp.networks.batch_norm import batch_statistics
from gencomp.rate_distortion.priors import Gaussian
from gencomp.sums import Sums
from gencomp.system import Batch, LatentDecoder, Latents
from gencomp.systems.common import pixels
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.dplc import parts
from gencomp.systems.dplc.objectives import (
    CriticPhase,
    LatentDiscriminatorPhase,
    LatentPenalty,
    MmdPenalty,
)
from gencomp.systems.dplc.recipe import CriticSection, LatentDiscriminatorSection


class DplcSystem(SystemOfObjectives):
    """A system of the method; `bn_mode` says which batch statistics its evaluations use."""

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        objectives: Mapping[str, Objective],
        bn_mode: Literal["frozen", "batch"],
    ) -> None:
        super().__init__(nets, objectives)
        self.bn_mode = bn_mode

    @contextmanager
    def statistics(self, draws: Draws) -> Iterator[None]:
        """Let batch norms use the statistics that `bn_mode` names, without moving running ones.

        Raises:
            InputError: `bn_mode` is batch, and the batch has a single image.
        """
        if self.bn_mode == "frozen":
            yield
            return
        if draws.batch_size < 2:
            raise InputError(
                "networks.bn_mode is batch, which needs two images or more in every batch, but one"
                " has a single image: choose another evaluation.batch_size or evaluation.limit"
            )
        # Sample grids are drawn on one rank alone.
        with batch_statistics(self.networks, local=draws.world == 1):
            yield


class ReconstructingSystem(DplcSystem):
    """A system with an encoder, and with a prior if its latents should follow one.

    Attributes:
        encode: the map from images to latents.
        prior: the prior of the latents; None if they are free.
    """

    encode: parts.Latents
    prior: parts.Prior | None

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        require_size(batch)
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with self.statistics(draws):
            z_BM11 = self.encode(self.networks, x_BCHW, draws)
            sums = squared_errors(x_BCHW, self.networks["generator"](z_BM11))
        if self.prior is not None and draws.batch_size >= 2:
            prior_BM11 = self.prior.sample(draws, z_BM11.dtype)
            sums.add_global("mmd", mmd(z_BM11, prior_BM11, self.prior.variance))
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        # There is no MMD without a prior or for a single image.
        latent = {"mmd": sums.mean("mmd")} if "mmd" in sums.values else {}
        return {**errors_summary(sums), **latent, "images": sums.count("mse")}

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        require_size(batch)
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with self.statistics(draws):
            z_BM11 = self.encode(self.networks, x_BCHW, draws)
            return pixels.to_bytes(self.networks["generator"](z_BM11))

    def latents(self, batch: Batch, draws: Draws) -> Latents | None:
        if self.prior is None:
            return None
        require_size(batch)
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with self.statistics(draws):
            z_BM11 = self.encode(self.networks, x_BCHW, draws)
        return Latents(z_BM11.flatten(1), self.prior.variance)

    def sample(self, draws: Draws, like: Batch) -> Tensor | None:
        return None if self.prior is None else prior_images(self, self.prior, draws, like)

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        rows = {
            "originals": batch.images_BCHW,
            "reconstructions": self.reconstruct(batch, draws),
        }
        samples = self.sample(draws, like=batch)
        return rows if samples is None else rows | {"samples from the prior": samples}

    def latent_decoder(self) -> LatentDecoder | None:
        return None if self.prior is None else latent_decoder(self, self.prior)


def latent_discriminator(
    settings: LatentDiscriminatorSection, prior: parts.Prior
) -> dict[str, nn.Module]:
    """The latent discriminator Dz under its name, if the recipe asks for it."""
    if settings.weight == 0:
        return {}
    made = networks.LatentDiscriminator(prior.latent_dim, settings.width, settings.layers)
    return {"latent_discriminator": made}


def discriminator_objective(
    nets: Mapping[str, nn.Module],
    encoders: Sequence[str],
    encode: parts.Latents,
    penalty: LatentPenalty,
    settings: LatentDiscriminatorSection,
) -> dict[str, Objective]:
    """The objective of Dz under its name, if there is a Dz.

    Args:
        nets: all networks of the system.
        encoders: the names of the networks that `encode` runs.
        encode: the map from images to latents.
        penalty: the penalty that the encoders minimise.
        settings: the settings of Dz.
    """
    if isinstance(penalty, MmdPenalty):
        return {}
    used = {name: nets[name] for name in (*encoders, "latent_discriminator")}
    phase = LatentDiscriminatorPhase(used, encode, penalty)
    return {"latent_discriminator": Objective(phase, settings.optimizer)}


def critic_objective(
    nets: Mapping[str, nn.Module],
    encoders: Sequence[str],
    latents: parts.Latents,
    settings: CriticSection,
) -> dict[str, Objective]:
    """The objective of the critic under its name; the critic learns from images of G.

    Args:
        nets: all networks of the system.
        encoders: the names of the networks that `latents` runs.
        latents: the map from images to the latents of the fakes.
        settings: the settings of the critic.
    """
    used = {name: nets[name] for name in (*encoders, "generator", "critic")}
    phase = CriticPhase(used, latents, settings)
    return {"critic": Objective(phase, settings.optimizer, settings.steps)}


def require_size(batch: Batch) -> None:
    """Require images of the only size that the networks take.

    Raises:
        InputError: the images have another size.
    """
    height, width = batch.images_BCHW.shape[2:]
    if (height, width) != (networks.IMAGE_SIDE, networks.IMAGE_SIDE):
        raise InputError(
            "networks of this method take images of 64×64 pixels, but held-out ones are"
            f" {height}×{width}: state evaluation.transforms, such as {{crop: [64, 64]}}"
        )


def prior_images(system: DplcSystem, prior: parts.Prior, draws: Draws, like: Batch) -> Tensor:
    """The uint8 images G(z) for this rank's rows, with z drawn from the prior."""
    require_size(like)
    generator = system.networks["generator"]
    with system.statistics(draws):
        return pixels.to_bytes(generator(prior.sample(draws, parts.dtype_of(generator))))


def latent_decoder(system: DplcSystem, prior: parts.Prior) -> LatentDecoder:
    """G in evaluation mode for any `bn_mode`, since a decoder is a function of one latent."""
    generator = system.networks["generator"].eval().requires_grad_(False)
    return LatentDecoder(
        decode=lambda z_BK: generator(z_BK[:, :, None, None]).flatten(1),
        target=lambda images_BCHW: pixels.to_signed(images_BCHW).flatten(1),
        prior=Gaussian(prior.latent_dim, prior.scale),
        values=3 * networks.IMAGE_SIDE**2,
    )
