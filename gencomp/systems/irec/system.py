"""The systems of the stages, each with one model that is trained as a whole."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from gencomp.coding.latent_model import Gaussian
from gencomp.draws import Draws
from gencomp.evaluation.ssim import ms_ssim
from gencomp.networks import logistic
from gencomp.networks.irec.lossy import OneLevel, TwoLevel
from gencomp.networks.irec.rvae import Rvae
from gencomp.networks.latents import LatentNetwork, Passed
from gencomp.networks.weight_norm import starting
from gencomp.rate_distortion import priors
from gencomp.rate_distortion.units import nats_to_bpp
from gencomp.sums import Sums
from gencomp.system import Batch, Ideal, LatentDecoder, Picture, Supply
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.irec.codec import Coded, IrecCodec, least_bits
from gencomp.systems.irec.expected_kl import ExpectedKl
from gencomp.systems.irec.ideal import of_picture, targets
from gencomp.systems.irec.latent_models import LossyLatents, RvaeLatents, tiles
from gencomp.systems.irec.objectives import (
    WHITE,
    BoundPhase,
    RateDistortionPhase,
    bound,
    channel_means,
    distortions_B,
    model_of,
    noise_of,
    pixels_of,
    reconstructed,
    to_unit,
    total_nats_B,
    warm_up,
)
from gencomp.systems.irec.pictures import Kind
from gencomp.systems.irec.recipe import (
    IrecRecipe,
    LossyRecipe,
    OneLevelRecipe,
    RvaeRecipe,
    TwoLevelRecipe,
)

# The number of images over which the expected divergences are taken, or a few more.
_EXPECTED_KL_IMAGES = 256


class IrecSystem(SystemOfObjectives):
    """A system of one model with its table of expected divergences.

    Args:
        model: the model.
        others: further networks that a checkpoint holds.
        objective: the objective of all of them, under the name `model`.
    """

    recipe: IrecRecipe

    def __init__(
        self,
        model: LatentNetwork,
        others: Mapping[str, nn.Module],
        objective: Objective,
    ) -> None:
        nets = {"model": model, **others, "expected_kl": ExpectedKl(model.channels)}
        super().__init__(nets, {"model": objective})

    @property
    def model(self) -> LatentNetwork:
        return model_of(self.networks)

    @property
    def expected_kl(self) -> ExpectedKl:
        """The table of the mean divergence of each channel's latents, which `finalise` fills."""
        found = self.networks["expected_kl"]
        assert isinstance(found, ExpectedKl)
        return found

    @abstractmethod
    def passed(self, batch: Batch, draws: Draws) -> Passed:
        """The rates and outputs of a batch."""

    @abstractmethod
    def latent_model(self) -> RvaeLatents | LossyLatents:
        """The model of one image at a time, with the present weights in float64."""

    @abstractmethod
    def to_images(self, output_BCHW: Tensor) -> Tensor:
        """Map outputs of the model to uint8 images."""

    @abstractmethod
    def coded(self) -> Coded:
        """The model as its codec takes it."""

    def codec(self) -> IrecCodec:
        """The codec of these weights.

        Raises:
            InputError: the recipe names a coder that does not fit this model.
        """
        return IrecCodec(self.coded(), self.recipe.codec)

    def targets(self, picture: Picture) -> list[Gaussian] | None:
        coded = self.coded()
        return None if coded.kind == "uniform" else targets(coded, picture)

    def ideal(self) -> Callable[[Picture], Ideal]:
        return partial(of_picture, self.coded())

    @torch.no_grad()
    def finalise(self, supply: Supply) -> None:
        """Take the mean divergence of each channel's latents over training images."""
        self.model.eval()
        seen, sums_C = 0, None
        while seen < _EXPECTED_KL_IMAGES:
            batch, draws = next(supply)
            places = self.model.places(*batch.images_BCHW.shape[2:])
            means_C = [
                one_C.double() * draws.batch_size / places[layer]
                for layer, one_C in enumerate(channel_means(self.passed(batch, draws).nats_BC))
            ]
            sums_C = (
                means_C if sums_C is None else [a + b for a, b in zip(sums_C, means_C, strict=True)]
            )
            seen += draws.batch_size
        assert sums_C is not None
        self.expected_kl.set([sum_C / seen for sum_C in sums_C])

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        """The images of one sample of the posterior each."""
        return self.to_images(self.passed(batch, draws).output_BCHW)

    def sample(self, draws: Draws, like: Batch) -> Tensor:
        """The images of latents from the prior; those of a lossless model are its means."""
        model = self.model
        height, width = like.images_BCHW.shape[2:]
        noise = noise_of(draws, purpose="prior")
        output_BCHW = model.sample(len(like.images_BCHW), *model.size(height, width), noise)
        return self.to_images(output_BCHW[:, :, :height, :width])

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {
            "originals": batch.images_BCHW,
            "reconstructions": self.reconstruct(batch, draws),
            "samples from the prior": self.sample(draws, like=batch),
        }

    def _rates(self, images_BCHW: Tensor, passed: Passed) -> Sums:
        """The sums of the rate of each layer and of all of them, in bits per pixel."""
        sums, pixels = Sums(), pixels_of(images_BCHW)
        for layer, nats_BC in enumerate(passed.nats_BC):
            sums.add(f"kl_bpp_{layer}", nats_to_bpp(nats_BC.double().sum(1), pixels))
        sums.add("ideal_bpp", nats_to_bpp(total_nats_B(passed).double(), pixels))
        return sums

    def _rates_summary(self, sums: Sums) -> dict[str, float]:
        names = (f"kl_bpp_{layer}" for layer in range(self.expected_kl.layers))
        return {name: sums.mean(name) for name in names}


class Lossless(IrecSystem):
    """The ResNet VAE with its likelihood."""

    def __init__(self, recipe: RvaeRecipe) -> None:
        self.recipe = recipe
        sizes = recipe.networks
        model = Rvae(sizes.blocks, sizes.deterministic, sizes.stochastic)
        likelihood = logistic.LogisticPixels(recipe.likelihood.scale)
        nets = {"model": model, "likelihood": likelihood}
        weight = warm_up(recipe.loss.warm_up_steps)
        phase = BoundPhase(nets, recipe.loss.free_bits, weight)
        objective = Objective(phase, recipe.optimizer)
        super().__init__(model, {"likelihood": likelihood}, objective)

    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        settings = self.recipe.optimizer
        return torch.optim.Adamax(
            self.phases[phase].trained_parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )

    @torch.no_grad()
    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Set the start of the weight normalisation by a first batch with latents of the prior."""
        batch, draws = next(supply)
        x_BCHW = logistic.centres_of(logistic.levels_of(batch.images_BCHW))
        model = self.model
        with starting(model):
            model(model.padded(x_BCHW), noise_of(draws), from_prior=True)

    def coded(self) -> Coded:
        likelihood = self.networks["likelihood"]
        assert isinstance(likelihood, logistic.LogisticPixels)
        scale = float(likelihood.log_scale.detach().double().exp())
        return Coded(self.latent_model(), "lossless", self.networks, tiles, least_bits(scale))

    def passed(self, batch: Batch, draws: Draws) -> Passed:
        return bound(self.networks, batch.images_BCHW, draws)[0]

    def to_images(self, output_BCHW: Tensor) -> Tensor:
        return logistic.bytes_of(output_BCHW)

    def latent_model(self) -> RvaeLatents:
        model, likelihood = self.model, self.networks["likelihood"]
        assert isinstance(model, Rvae) and isinstance(likelihood, logistic.LogisticPixels)
        return RvaeLatents(model, likelihood, self.expected_kl)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The bound in bits, without free bits, and the errors of the means of the likelihood."""
        passed, log_likelihood_B = bound(self.networks, batch.images_BCHW, draws)
        sums = self._rates(batch.images_BCHW, passed)
        values = 3 * pixels_of(batch.images_BCHW)
        nats_B = total_nats_B(passed).double() - log_likelihood_B.double()
        sums.add("bits_per_dim", nats_B / (values * math.log(2)))
        levels_BCHW = logistic.levels_of(batch.images_BCHW)
        sums.merge(_errors(levels_BCHW, self.to_images(passed.output_BCHW)))
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The bound in bits for each value of an image, the share of the latents, and the errors.

        The bound, `bits_per_dim`, is −ELBO: all bits of an ideal lossless code. The divergence is
        in bits per pixel, `kl_bpp` and `kl_bpp_0`, `kl_bpp_1`, … for each layer.
        """
        likelihood = self.networks["likelihood"]
        assert isinstance(likelihood, logistic.LogisticPixels)
        return {
            "bits_per_dim": sums.mean("bits_per_dim"),
            "bits_per_dim_standard_error": sums.standard_error("bits_per_dim"),
            "kl_bpp": sums.mean("ideal_bpp"),
            **self._rates_summary(sums),
            **errors_summary(sums),
            "scale": float(likelihood.log_scale.detach().exp()),
            "images": sums.count("mse"),
        }


class Lossy(IrecSystem):
    """A lossy model, with one or two layers of latents."""

    recipe: LossyRecipe

    def __init__(self, recipe: LossyRecipe, model: TwoLevel | OneLevel) -> None:
        self.recipe = recipe
        loss = recipe.loss
        self._uniform = recipe.networks.posterior == "uniform"
        phase = RateDistortionPhase(
            {"model": model},
            self._uniform,
            loss.distortion,
            loss.distortion_weight,
            warm_up(loss.warm_up_steps),
        )
        super().__init__(model, {}, Objective(phase, recipe.optimizer))

    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        """Adam, before whose steps long gradients are scaled down.

        Inverse normalisations grow without bound: one rare sample far from its mean gives a
        gradient that Adam's moments keep for a thousand steps.
        """
        found = super().optimizer(phase)
        most = self.recipe.optimizer.max_gradient_norm
        if most is not None:
            weights = self.phases[phase].trained_parameters()

            def scale_down(*_: object) -> None:
                nn.utils.clip_grad_norm_(weights, most)

            found.register_step_pre_hook(scale_down)
        return found

    def coded(self) -> Coded:
        kind: Kind = "uniform" if self._uniform else "gaussian"
        return Coded(self.latent_model(), kind, self.networks)

    def passed(self, batch: Batch, draws: Draws) -> Passed:
        return reconstructed(self.model, to_unit(batch.images_BCHW), draws, self._uniform)

    def to_images(self, output_BCHW: Tensor) -> Tensor:
        return (output_BCHW * WHITE).round().clamp(0, WHITE).to(torch.uint8)

    def latent_model(self) -> LossyLatents:
        model = self.model
        assert isinstance(model, TwoLevel | OneLevel)
        return LossyLatents(model, self.expected_kl)

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The ideal rate, and the errors of reconstructions of 8 bits."""
        passed = self.passed(batch, draws)
        images_BCHW = self.to_images(passed.output_BCHW)
        sums = self._rates(batch.images_BCHW, passed)
        originals_BCHW = self.to_images(to_unit(batch.images_BCHW))
        sums.merge(_errors(originals_BCHW, images_BCHW))
        loss = self.recipe.loss
        if loss.distortion == "ms_ssim":
            sums.add("ms_ssim", ms_ssim(originals_BCHW, images_BCHW))
        distortion_B = distortions_B(
            to_unit(batch.images_BCHW), passed.output_BCHW, loss.distortion
        ).double()
        sums.add("distortion", distortion_B)
        return sums

    def summary(self, sums: Sums) -> dict[str, float]:
        """The objective λ·distortion + rate, the ideal rate, also of each layer, and the errors.

        The ideal rate in bits per pixel is the divergence of the posterior from the prior, and the
        errors are those of a sample of the posterior. Files are a little longer, and their images a
        little worse. The distortion is that of the recipe, on the scale of its λ.
        """
        similarity = {"ms_ssim": sums.mean("ms_ssim")} if "ms_ssim" in sums.values else {}
        distortion, bpp = sums.mean("distortion"), sums.mean("ideal_bpp")
        return {
            "loss": self.recipe.loss.distortion_weight * distortion + bpp,
            "distortion": distortion,
            "ideal_bpp": bpp,
            "ideal_bpp_standard_error": sums.standard_error("ideal_bpp"),
            **self._rates_summary(sums),
            **errors_summary(sums),
            **similarity,
            "images": sums.count("mse"),
        }


class TwoLevelSystem(Lossy):
    """A lossy model whose second layer of latents depends on the first."""

    def __init__(self, recipe: TwoLevelRecipe) -> None:
        sizes = recipe.networks
        super().__init__(recipe, TwoLevel(sizes.filters, sizes.hyper_filters, sizes.posterior))


class OneLevelSystem(Lossy):
    """A lossy model with a single layer of latents, which has a rate-distortion curve."""

    recipe: OneLevelRecipe

    def __init__(self, recipe: OneLevelRecipe) -> None:
        super().__init__(recipe, OneLevel(recipe.networks.filters, recipe.networks.posterior))

    def latent_decoder(self) -> LatentDecoder | None:
        """The synthesis as a function of standard normal latents, for images of one stated size.

        The size is that to which evaluations cut images, or else training. It is None where images
        stay whole, as their sizes differ, and for sizes that are padded, because they are below 32
        or no multiples of 16.
        """
        size = self.recipe.evaluation.transforms.size or self.recipe.data.transforms.size
        model = self.model
        assert isinstance(model, OneLevel)
        if size is None or model.size(*size) != size:
            return None
        return _decoder(model, *size)


def _decoder(model: OneLevel, height: int, width: int) -> LatentDecoder:
    """The decoder of `OneLevelSystem.latent_decoder` for images of a size."""
    model.eval().requires_grad_(False)
    shape = (model.channels[0], height // model.unit, width // model.unit)
    mean_1CHW, scale_1CHW = (x.detach() for x in model.prior(1, *shape[1:]))

    def decode(z_BK: Tensor) -> Tensor:
        z_BCHW = z_BK.unflatten(1, shape)
        return model.synthesis(mean_1CHW + scale_1CHW * z_BCHW).flatten(1)

    def target(images_BCHW: Tensor) -> Tensor:
        return to_unit(images_BCHW).flatten(1)

    return LatentDecoder(
        decode=decode,
        target=target,
        prior=priors.Gaussian(math.prod(shape)),
        values=3 * height * width,
    )


def _errors(images_BCHW: Tensor, reconstructions_BCHW: Tensor) -> Sums:
    """The squared errors of reconstructions, both on 0..255."""
    return squared_errors(images_BCHW.double(), reconstructions_BCHW.double(), WHITE)
