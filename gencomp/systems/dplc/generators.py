"""The systems of stage 1, which train generative models G of the data by three methods."""

from __future__ import annotations

from torch import Tensor, nn

from gencomp.draws import Draws
from gencomp.networks import dplc as networks
from gencomp.networks.calibration import reestimate_statistics
from gencomp.sums import Sums
from gencomp.system import Batch, LatentDecoder, Supply
from gencomp.systems.common import pixels
from gencomp.systems.common.calibration import calibration_batches
from gencomp.systems.common.objectives import Objective
from gencomp.systems.dplc import parts
from gencomp.systems.dplc.base import (
    DplcSystem,
    ReconstructingSystem,
    critic_objective,
    discriminator_objective,
    latent_decoder,
    latent_discriminator,
    prior_images,
    require_size,
)
from gencomp.systems.dplc.objectives import (
    Adversary,
    AutoencoderPhase,
    SamplerPhase,
    latent_penalty,
)
from gencomp.systems.dplc.recipe import (
    GeneratorNetworks,
    GeneratorRecipe,
    WaeRecipe,
    WassersteinPpRecipe,
    WganGpRecipe,
)


class AutoencodingGenerator(ReconstructingSystem):
    """A system of F and G: a Wasserstein autoencoder, or Wasserstein++ if there is a critic."""

    prior: parts.Prior

    def __init__(self, recipe: WaeRecipe | WassersteinPpRecipe) -> None:
        sizes, discriminator = recipe.networks, recipe.latent_discriminator
        self.encode, self.prior = parts.encoder_latent, prior_of(recipe)
        nets = {
            "encoder": networks.Encoder(
                sizes.width,
                sizes.latent_dim,
                sizes.encoder_residual_blocks,
                sizes.latent_batch_norm,
                self.prior.scale,
                sizes.initialisation,
            ),
            "generator": build_generator(sizes),
            **latent_discriminator(discriminator, self.prior),
        }
        penalty = latent_penalty(recipe.loss.mmd_weight, discriminator, self.prior)
        objectives = discriminator_objective(
            nets, ("encoder",), self.encode, penalty, discriminator
        )
        trains = ("encoder", "generator")
        if isinstance(recipe, WassersteinPpRecipe):
            loss, critic = recipe.loss, recipe.critic
            nets["critic"] = networks.Critic(sizes.width, sizes.initialisation)
            latents = parts.chosen_latent(critic.latents, self.encode, self.prior)
            objectives = critic_objective(nets, ("encoder",), latents, critic) | objectives
            adversary = Adversary(
                loss.adversarial_weight, loss.gen_latents, self.prior, loss.adversarial_to_encoder
            )
            phase = AutoencoderPhase(
                nets, trains, self.encode, penalty, adversary, loss.reconstruction_weight
            )
        else:
            phase = AutoencoderPhase(nets, trains, self.encode, penalty)
        objectives |= {"generator": Objective(phase, recipe.optimizer)}
        super().__init__(nets, objectives, sizes.bn_mode)

    def finalise(self, supply: Supply) -> None:
        """Re-estimate the statistics of F over training images, and of G over prior samples.

        From here on both run in evaluation mode, since an image must decode alone.
        """
        batches = calibration_batches(supply)
        images = (pixels.to_signed(batch.images_BCHW) for batch, _ in batches)
        reestimate_statistics(self.networks["encoder"], images)
        calibrate_on_prior(self.networks["generator"], self.prior, batches)


class WganGpGenerator(DplcSystem):
    """A system of G and a critic; it has no encoder, so it reconstructs nothing."""

    def __init__(self, recipe: WganGpRecipe) -> None:
        sizes = recipe.networks
        self.prior = prior_of(recipe)
        nets = {
            "generator": build_generator(sizes),
            "critic": networks.Critic(sizes.width, sizes.initialisation),
        }
        phase = SamplerPhase(nets, recipe.loss.adversarial_weight, self.prior)
        objectives = {
            **critic_objective(nets, (), parts.prior_latent(self.prior), recipe.critic),
            "generator": Objective(phase, recipe.optimizer),
        }
        super().__init__(nets, objectives, sizes.bn_mode)

    def finalise(self, supply: Supply) -> None:
        """Re-estimate the statistics of G over prior samples; it then runs in evaluation mode."""
        batches = calibration_batches(supply)
        calibrate_on_prior(self.networks["generator"], self.prior, batches)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The scores of held-out images and of the same number of samples."""
        require_size(batch)
        generator, critic = self.networks["generator"], self.networks["critic"]
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        with self.statistics(draws):
            fakes_BCHW = generator(self.prior.sample(draws, x_BCHW.dtype))
        sums = Sums()
        sums.add("real_score", critic(x_BCHW)[:, 0])
        sums.add("fake_score", critic(fakes_BCHW)[:, 0])
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The `gap` of the scores, which estimates the Wasserstein distance on held-out images."""
        real, fake = sums.mean("real_score"), sums.mean("fake_score")
        return {"gap": real - fake, "images": sums.count("real_score")}

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {
            "originals": batch.images_BCHW,
            "samples from the prior": self.sample(draws, like=batch),
        }

    def sample(self, draws: Draws, like: Batch) -> Tensor:
        return prior_images(self, self.prior, draws, like)

    def latent_decoder(self) -> LatentDecoder:
        return latent_decoder(self, self.prior)


def prior_of(recipe: GeneratorRecipe) -> parts.Prior:
    return parts.Prior(recipe.networks.latent_dim, recipe.loss.prior_variance)


def build_generator(sizes: GeneratorNetworks) -> networks.Generator:
    return networks.Generator(
        sizes.width, sizes.latent_dim, sizes.generator_residual_blocks, sizes.initialisation
    )


def calibrate_on_prior(
    generator: nn.Module, prior: parts.Prior, batches: list[tuple[Batch, Draws]]
) -> None:
    """Re-estimate the batch statistics of G over samples of the prior."""
    dtype = parts.dtype_of(generator)
    reestimate_statistics(generator, (prior.sample(draws, dtype) for _, draws in batches))
