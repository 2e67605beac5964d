"""The system `vae`: its bound, its evaluation, its decoder, and whole runs of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencomp import recipes
from gencomp.cli import main
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.rate_distortion.priors import Gaussian
from gencomp.system import System, Update, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.common.pixels import Pixels
from gencomp.systems.vae.recipe import VaeRecipe
from gencomp.systems.vae.system import Bound, Vae, bound, encode
from tests import tiny
from tests.gencomp.vae_cases import DECODERS, START, batch, blobs, draws, made, recipe

KINDS = tuple(DECODERS)


def estimate(system: Vae, number: int = 0) -> Bound:
    """The bound of one batch with gradients in place, as the loop gets it."""
    phase = system.phases["elbo"]
    phase.take_over()
    loss, _ = phase(batch(system), draws(number), START)
    loss.backward()
    with torch.no_grad():
        return bound(system.networks, values(system), draws(number))


def values(system: Vae) -> Tensor:
    return system.pixels.to_values(batch(system).images_BCHW)


class TestRecipes:
    def test_the_published_sizes(self) -> None:
        with torch.device("meta"):
            made = {
                name: build_system(recipes.load(name), {})
                for name in recipes.names()
                if name.startswith("vae_")
            }
        sizes = {
            name: [sum(p.numel() for p in net.parameters()) for net in system.networks.values()]
            for name, system in made.items()
        }
        assert sizes == {
            "vae_mnist": [2_923_540, 2_914_064, 1],
            "vae_linear_mnist": [157_000, 79_184, 0],
            "vae_conv_cifar10": [11_839_304, 11_429_632, 1],
            "vae_digits": [8_840, 8_640, 1],
        }

    def test_the_published_training(self) -> None:
        found = recipes.load("vae_mnist")
        assert isinstance(found, VaeRecipe)
        assert (found.data.batch_size, found.training.epochs) == (100, 1000)
        assert (found.optimizer.learning_rate, found.optimizer.betas) == (1e-4, (0.9, 0.999))
        assert (found.likelihood.variance, found.likelihood.value) == ("learnt", 0.03)
        linear = recipes.load("vae_linear_mnist")
        assert isinstance(linear, VaeRecipe) and linear.training.epochs == 100
        assert (linear.likelihood.variance, linear.likelihood.value) == ("fixed", 1)

    @pytest.mark.parametrize(
        ("overrides", "said"),
        [
            (
                {"networks.widths": []},
                "networks: widths is [], but decoder deep takes at least one hidden layer, such",
            ),
            (
                {"networks.decoder": "linear"},
                "networks: widths is [64, 64], but decoder linear takes no hidden layer, []",
            ),
            (
                {"networks.decoder": "dcgan"},
                "widths is [64, 64], but decoder dcgan takes one number, the channels before",
            ),
            (
                {"networks.decoder": "dcgan", "networks.widths": [8]},
                "image_size is [8, 8], but decoder dcgan makes images of [32, 32]",
            ),
            (
                DECODERS["dcgan"] | {"data.batch_size": 1},
                "data.batch_size is 1, but the statistics of batch norm in networks.decoder dcgan",
            ),
            ({"networks.channels": 2}, "networks.channels is 2, but it should be 1 or 3"),
            ({"networks.widths": [0]}, "networks.widths.0 is 0, but it should be greater than"),
            ({"networks.latent_dim": 0}, "networks.latent_dim is 0, but it should be greater"),
            ({"likelihood.value": 0}, "likelihood.value is 0, but it should be greater than 0"),
            ({"likelihood.variance": 0.1}, "likelihood.variance is 0.1, but it should be 'learnt'"),
            ({"loss.beta": 1}, "unknown key loss; allowed here are data, evaluation, likelihood,"),
        ],
    )
    def test_what_does_not_fit_is_named(self, overrides: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError) as caught:
            recipes.load("vae_digits", overrides)
        assert said in str(caught.value) and "\n" not in str(caught.value)


class TestPixels:
    GREY, SIGNED = Pixels(1, 2, 3, signed=False), Pixels(3, 2, 3, signed=True)

    def test_scales(self) -> None:
        every = torch.arange(256, dtype=torch.uint8)[:252].view(-1, 1, 2, 3)
        x_BN = self.GREY.to_values(every.expand(-1, 3, -1, -1))
        assert x_BN.shape == (42, 6) and self.GREY.values == 6
        torch.testing.assert_close(x_BN.flatten(), torch.arange(252) / 255)
        assert torch.equal(self.GREY.to_images(x_BN), every.expand(-1, 3, -1, -1))
        colours = torch.arange(252, dtype=torch.uint8).view(-1, 3, 2, 3) + 4
        y_BN = self.SIGNED.to_values(colours)
        torch.testing.assert_close(y_BN.flatten(), torch.arange(4, 256) / 127.5 - 1)
        assert torch.equal(self.SIGNED.to_images(y_BN), colours)
        assert self.SIGNED.to_images(torch.full((1, 18), 9.0)).unique().tolist() == [255]

    def test_dithered_images_keep_their_values(self) -> None:
        x = torch.rand(2, 3, 2, 3, dtype=torch.float64)
        assert torch.equal(self.SIGNED.to_values(x), 2 * x.flatten(1) - 1)
        assert torch.equal(self.GREY.to_values(x), x[:, 0].flatten(1))

    def test_other_images_are_refused(self) -> None:
        wide = torch.zeros(1, 3, 2, 4, dtype=torch.uint8)
        said = r"image_size is \[2, 3\], but images are \[2, 4\]: set one to the other, or data"
        for call in (self.GREY.to_values, self.SIGNED.require):
            with pytest.raises(InputError, match=said):
                call(wide)
        coloured = torch.zeros(1, 3, 2, 3, dtype=torch.uint8)
        coloured[0, 2, 1, 1] = 1
        self.SIGNED.require(coloured)
        with pytest.raises(InputError, match="channels is 1, but there are images in colour"):
            self.GREY.require(coloured)


class TestBound:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_made_of_normal_densities(self, kind: str) -> None:
        system = made(kind)
        system.networks.double().eval()
        x_BN = values(system).double()
        with torch.no_grad():
            found = bound(system.networks, x_BN, draws())
            posterior, z_BK = encode(system.networks["encoder"], x_BN, draws())
            mean_BN = system.networks["decoder"](z_BK)
        q = torch.distributions.Normal(posterior.mean_BK, (posterior.log_variance_BK / 2).exp())
        p = torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double())
        pixels = torch.distributions.Normal(mean_BN, math.sqrt(0.03))
        kl_B = torch.distributions.kl_divergence(q, p).sum(1)
        expected_B = pixels.log_prob(x_BN).sum(1) - kl_B
        torch.testing.assert_close(found.elbo_B, expected_B, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.kl_B, kl_B)

    def test_the_exact_posterior_gives_the_likelihood(self) -> None:
        """q = N(Wᵀ(x − b)/(s² + w²), s²/(s² + w²)) is exact for f(z) = W z + b and WᵀW = w² I.

        The mean over 4,000 draws of each image is log N(x; b, W Wᵀ + s² I), within 4 standard
        errors (error rate below 1e-3 in all).
        """
        system = made("linear", **{"likelihood.variance": "fixed", "likelihood.value": 0.5})
        system.networks.double()
        encoder, decoder = system.networks["encoder"][0], system.networks["decoder"][0]
        generator = torch.Generator().manual_seed(0)
        basis_NK, _ = torch.linalg.qr(torch.randn(64, 3, generator=generator).double())
        w, s2 = 1.7, 0.5
        with torch.no_grad():
            decoder.weight.copy_(w * basis_NK)
            gain_KN = decoder.weight.T / (s2 + w**2)
            encoder.weight.copy_(torch.cat([gain_KN, torch.zeros_like(gain_KN)]))
            encoder.bias[:3] = -gain_KN @ decoder.bias
            encoder.bias[3:] = math.log(s2 / (s2 + w**2))
            x_BN = values(system).double()
            elbo_SB = torch.stack(
                [bound(system.networks, x_BN, draws(step)).elbo_B for step in range(4000)]
            )
            covariance = decoder.weight @ decoder.weight.T + s2 * torch.eye(64)
            exact = torch.distributions.MultivariateNormal(decoder.bias, covariance)
        error_B = elbo_SB.std(0) / math.sqrt(len(elbo_SB))
        assert bool(((elbo_SB.mean(0) - exact.log_prob(x_BN)).abs() < 4 * error_B).all())

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("variance", ["learnt", "fixed"])
    def test_gradients_reach_what_is_trained_and_nothing_else(
        self, kind: str, variance: str
    ) -> None:
        system = made(kind, **{"likelihood.variance": variance})
        estimate(system)
        assert all(p.grad is not None and p.grad.any() for p in system.networks.parameters())
        trained = system.phases["elbo"].trained_parameters()
        assert len(trained) == len(list(system.networks.parameters()))
        assert len(list(system.networks["likelihood"].parameters())) == (variance == "learnt")
        state = system.networks.state_dict()
        assert float(state["likelihood.log_variance"]) == pytest.approx(math.log(0.03))
        optimizer = system.optimizer("elbo")
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)

    def test_the_loss_is_the_negative_mean_and_its_terms_add_up(self) -> None:
        system = made()
        phase = system.phases["elbo"]
        loss, terms = phase(batch(system), draws(), START)
        found = estimate(system)
        assert float(loss.detach()) == pytest.approx(-float(found.elbo_B.mean()), rel=1e-6)
        assert float(terms["kl"] - terms["log_likelihood"]) == pytest.approx(float(loss.detach()))
        again, _ = phase(batch(system), draws(), START)
        other, _ = phase(batch(system), draws(1), START)
        assert torch.equal(loss, again) and not torch.equal(loss, other)

    @pytest.mark.parametrize("kind", KINDS)
    def test_under_bfloat16_the_bound_is_float32(self, kind: str) -> None:
        system = made(kind)
        exact = estimate(system)
        system.networks.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, terms = system.phases["elbo"](batch(system), draws(), START)
        assert loss.dtype == torch.float32 and all(t.dtype == loss.dtype for t in terms.values())
        assert float(loss.detach()) == pytest.approx(-float(exact.elbo_B.mean()), rel=0.02)

    def test_a_step_and_its_rates(self) -> None:
        system = made(**{"optimizer.decay_epochs": [2], "optimizer.learning_rate": 0.1})
        assert system.updates(START) == [Update("elbo", fresh_batch=True)]
        assert system.learning_rates("elbo", START) == (0.1,)
        later = replace(START, samples=2 * START.epoch_length)
        assert system.learning_rates("elbo", later) == pytest.approx((0.01,))


class TestEvaluation:
    @pytest.mark.parametrize("kind", KINDS)
    def test_closed_form(self, kind: str) -> None:
        system = made(kind)
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(batch(system), draws()).all_reduced())
            found = bound(system.networks, values(system), draws())
        assert metrics["elbo"] == pytest.approx(float(found.elbo_B.mean()), rel=1e-6)
        assert metrics["elbo_standard_error"] == pytest.approx(
            float(found.elbo_B.std() / math.sqrt(6)), rel=1e-4
        )
        assert metrics["kl"] == pytest.approx(float(found.kl_B.mean()), rel=1e-6)
        # The decoders work on [−1, 1] (dcgan) or on [0, 1]; the MSE is always that of [−1, 1].
        to_signed = 1 if kind == "dcgan" else 2
        mse = float((to_signed * (found.mean_BN - values(system))).square().mean())
        assert metrics["mse"] == pytest.approx(mse, rel=1e-6)
        assert metrics["psnr"] == pytest.approx(10 * math.log10(4 / mse))
        assert metrics["variance"] == pytest.approx(0.03) and metrics["images"] == 6

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_share(self, kind: str) -> None:
        system = made(kind)
        with evaluation_mode(system.networks):
            share = Draws(1, ("e",), 1, rank=1, world=2)
            sums = system.evaluate(batch(system, 0), share)
        assert all(sums.count(name) == 0 for name in ("elbo", "kl", "mse"))

    @pytest.mark.parametrize("kind", KINDS)
    def test_pictures(self, kind: str) -> None:
        system = made(kind)
        with evaluation_mode(system.networks):
            pictures = system.pictures(batch(system), draws())
            again, other = (system.reconstruct(batch(system), draws(n)) for n in (0, 1))
        assert list(pictures) == ["originals", "reconstructions", "samples from the prior"]
        for images in pictures.values():
            assert images.dtype == torch.uint8 and images.shape == batch(system).images_BCHW.shape
            assert torch.equal(images, images[:, :1].expand_as(images)) == (kind != "dcgan")
        assert torch.equal(pictures["reconstructions"], again) and not torch.equal(again, other)
        assert system.codec() is None

    @pytest.mark.parametrize("kind", KINDS)
    def test_latents_are_those_that_reconstructions_decode(self, kind: str) -> None:
        system = made(kind)
        with evaluation_mode(system.networks):
            z_BK, variance = system.latents(batch(system), draws())
            images_BCHW = system.pixels.to_images(system.networks["decoder"](z_BK))
            assert torch.equal(images_BCHW, system.reconstruct(batch(system), draws()))
        assert z_BK.shape == (6, 3) and variance == 1

    def test_images_in_colour_are_refused_at_the_start_and_in_evaluations(self) -> None:
        system = made()
        coloured = batch(system)
        coloured = coloured._replace(images_BCHW=coloured.images_BCHW.clone())
        coloured.images_BCHW[3, 1] = 0
        system.initialise({}, iter([(batch(system), draws())]))
        for call in (
            lambda: system.initialise({}, iter([(coloured, draws())])),
            lambda: system.evaluate(coloured, draws()),
            lambda: system.reconstruct(coloured, draws()),
            lambda: system.latent_decoder().target(coloured.images_BCHW),
        ):
            with pytest.raises(InputError, match="there are images in colour"):
                call()


class TestDecoder:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_makes_the_samples(self, kind: str) -> None:
        system = made(kind)
        decoder = system.latent_decoder()
        assert decoder.latent_dim == 3 and decoder.prior.identity == Gaussian(3).identity
        assert decoder.values == system.pixels.values
        assert decoder.log_variance is not None and decoder.log_variance.shape == ()
        assert float(decoder.log_variance) == pytest.approx(math.log(0.03))
        z_BK = draws().normal("prior", 3)
        with evaluation_mode(system.networks):
            samples = system.sample(draws(), like=batch(system))
        images_BCHW = system.pixels.to_images(decoder.decode(z_BK))
        assert torch.equal(samples, images_BCHW)
        assert torch.equal(decoder.target(batch(system).images_BCHW), values(system))

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_reach_the_latents_alone(self, kind: str) -> None:
        system = made(kind)
        decoder = system.latent_decoder()
        z_BK = torch.randn(1, 3, requires_grad=True)  # alone: statistics are fixed
        decoder.decode(z_BK).sum().backward()
        assert z_BK.grad is not None and bool(z_BK.grad.any())
        assert all(p.grad is None for p in system.networks["decoder"].parameters())
        assert isinstance(decoder.decode, nn.Sequential) and not decoder.decode.training

    def test_final_batch_statistics_are_those_of_images_and_their_codes(self) -> None:
        system = made("dcgan")
        estimate(system)
        weights = [p.clone() for p in system.networks.parameters()]
        supply = [(batch(system, seed=n), draws(n)) for n in range(32)]
        system.finalise(iter(supply))
        pairs = zip(weights, system.networks.parameters(), strict=True)
        assert all(torch.equal(before, after) for before, after in pairs)
        encoder, decoder = system.networks["encoder"], system.networks["decoder"]
        norms = [m for m in decoder if isinstance(m, GlobalBatchNorm2d)]
        assert all(norm.num_batches_tracked == 32 for norm in norms)
        with torch.no_grad():
            means = []
            for one, own in supply:
                z_BK = encode(encoder.eval(), system.pixels.to_values(one.images_BCHW), own)[1]
                means.append(decoder[1](decoder[0](z_BK)).mean((0, 2, 3)))
        torch.testing.assert_close(norms[0].running_mean, torch.stack(means).mean(0))


SHORT = {
    "data.batch_size": 32,
    "training.epochs": None,
    "training.steps": 12,
    "training.log_every": 1,
    "training.checkpoint_every": 4,
    "training.sample_every": 5,
    "evaluation.every": 5,
    "evaluation.batch_size": 30,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blobs(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tiny.Run:
    """A VAE of blobs that has learnt them, through the real loop."""
    overrides = SHORT | {"data.shards": str(images), "training.steps": 400}
    overrides |= {"optimizer.learning_rate": 1e-2}
    quiet = {"training.log_every": 20, "training.checkpoint_every": 400, "evaluation.every": 400}
    raw = recipes.with_overrides(recipes.read("vae_digits"), overrides | quiet)
    found, outcome = tiny.trained(tmp_path_factory.mktemp("runs") / "vae", raw)
    assert outcome.finished
    return found


class TestRuns:
    def test_it_learns(self, run: tiny.Run) -> None:
        """The mean image, the best without a code, has an MSE of 0.136 and an ELBO of 17."""
        result = tiny.result(run)
        assert result["mse"] < 0.024 and result["variance"] < 0.006
        assert result["elbo"] > 70 and 3 < result["kl"] < 20
        losses = tiny.losses(run, "elbo")
        assert losses[0] > 0 and losses[-1] < -60

    def test_a_finished_run_is_a_decoder(self, run: tiny.Run) -> None:
        system = run.system()
        decoder = system.latent_decoder()
        assert decoder is not None and decoder.values == 64
        assert decoder.log_variance is not None
        variance = float(decoder.log_variance.exp())
        assert variance == pytest.approx(tiny.result(run)["variance"])

    def test_it_is_evaluated_like_any_other(self, run: tiny.Run) -> None:
        words = ["--metrics", "mse,psnr,pv,rate0", "--images", "20", "--draws", "4"]
        assert main(["evaluate", str(run.path), *words]) == 0
        file = run.path / "evaluations" / "metrics" / "metrics.json"
        metrics = json.loads(file.read_text())["metrics"]
        assert metrics["mse"]["value"] < 0.03 and metrics["rate0_mse"]["value"] > 0.1

    def test_its_training_and_its_evaluation_have_one_scale(self, run: tiny.Run) -> None:
        """They differ by the noise of the encoder and by rounding to 8 bits."""
        words = ["--metrics", "mse,psnr", "--name", "scale"]
        assert main(["evaluate", str(run.path), *words]) == 0
        file = run.path / "evaluations" / "scale" / "metrics.json"
        metrics = json.loads(file.read_text())["metrics"]
        trained = tiny.result(run)
        assert metrics["mse"]["value"] == pytest.approx(trained["mse"], rel=0.2)
        assert metrics["psnr"]["value"] == pytest.approx(trained["psnr"], abs=0.8)

    @pytest.mark.parametrize("kind", KINDS)
    def test_crashed_and_resumed(
        self, kind: str, images: Path, photos: Path, tmp_path: Path
    ) -> None:
        """Weights, optimizer, metrics log and result are those of a straight run."""
        where = photos if kind == "dcgan" else images
        sections = ("data", "evaluation") if kind == "dcgan" else ()
        resize = {f"{section}.transforms.resize": [32, 32] for section in sections}
        overrides = DECODERS[kind] | SHORT | resize | {"data.shards": str(where)}
        raw = recipes.with_overrides(
            recipes.read("vae_digits"), overrides | {"data.batch_size": 16}
        )
        straight, outcome = tiny.trained(tmp_path / "straight", raw)
        assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
        with pytest.raises(tiny.Crash):
            tiny.trained(tmp_path / "run", raw, tiny.crash_after(6))
        again, _ = tiny.trained(tmp_path / "run", raw)
        tiny.assert_identical(tiny.state(again), tiny.state(straight))
        assert tiny.rows(again) == tiny.rows(straight)
        assert tiny.result(again) == tiny.result(straight)

    def test_batches_of_one_image(self, images: Path, tmp_path: Path) -> None:
        """They train, resume and are evaluated; evaluated one by one or together is the same."""
        overrides = DECODERS["deep"] | SHORT | {"data.shards": str(images), "data.batch_size": 1}
        raw = recipes.with_overrides(
            recipes.read("vae_digits"), overrides | {"evaluation.batch_size": 1}
        )
        straight, outcome = tiny.trained(tmp_path / "straight", raw)
        assert outcome.finished and all(map(math.isfinite, outcome.metrics.values()))
        with pytest.raises(tiny.Crash):
            tiny.trained(tmp_path / "run", raw, tiny.crash_after(6))
        again, _ = tiny.trained(tmp_path / "run", raw)
        tiny.assert_identical(tiny.state(again), tiny.state(straight))
        words = ["--metrics", "mse", "--images", "6", "--batch-size"]
        for size in ("1", "6"):
            assert main(["evaluate", str(again.path), *words, size, "--name", size]) == 0
        one, six = (
            json.loads((again.path / "evaluations" / size / "metrics.json").read_text())
            for size in ("1", "6")
        )
        found, expected = (content["metrics"]["mse"]["value"] for content in (one, six))
        assert found == pytest.approx(expected, rel=1e-5)

    def test_images_of_another_size_end_it_at_the_start(self, images: Path, tmp_path: Path) -> None:
        overrides = SHORT | {"data.shards": str(images), "networks.image_size": [28, 28]}
        raw = recipes.with_overrides(recipes.read("vae_digits"), overrides)
        with pytest.raises(InputError, match=r"image_size is \[28, 28\], but images are \[8, 8\]"):
            tiny.trained(tmp_path / "run", raw)


def test_a_run_is_made_from_its_recipe() -> None:
    system: System = build_system(recipe(), {})
    assert isinstance(system, Vae) and set(system.phases) == {"elbo"}
