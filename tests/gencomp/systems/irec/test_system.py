"""The stages: losses, free bits, schedules, evaluations, and the table of expected divergences."""

from __future__ import annotations

import math

import pytest
import torch

from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation.ssim import ms_ssim, multi_scale
from gencomp.networks.weight_norm import WeightNorm
from gencomp.system import Progress, evaluation_mode
from gencomp.systems.irec import objectives
from gencomp.systems.irec.system import OneLevelSystem
from tests.gencomp import irec_cases
from tests.gencomp.irec_cases import STAGES, START


def loss_of(system, step=0, progress=START):
    phase = system.phases["model"]
    return phase(irec_cases.batch(seed=step), irec_cases.draws(step), progress)


class TestSchedules:
    @pytest.mark.parametrize(
        ("name", "images"), [("irec_rvae_cifar10", 50_000), ("irec_rvae_imagenet32", 1_281_167)]
    )
    def test_rates_fall_at_the_published_steps(self, name, images):
        """By 0.3 at 50, 100, 150 and 200 thousand steps of 8 images."""
        recipe = recipes.load(name)
        for step, power in ((0, 0), (49_900, 0), (50_100, 1), (149_900, 2), (200_100, 4)):
            rate = recipe.optimizer.rate_at(step * recipe.data.batch_size / images)
            assert rate == pytest.approx(1e-3 * 0.3**power)
        assert recipe.training.ema_decay == 0.999 and recipe.training.steps == 500_000

    def test_optimizers(self):
        assert isinstance(irec_cases.made("rvae").optimizer("model"), torch.optim.Adamax)
        assert isinstance(irec_cases.made("two_level").optimizer("model"), torch.optim.Adam)

    def test_warm_up(self):
        weight = objectives.warm_up(200)
        assert [weight(Progress(step, 0, 1)) for step in (0, 50, 200, 900)] == [0, 0.25, 1, 1]
        assert objectives.warm_up(None)(START) == 1

    @pytest.mark.parametrize("stage", STAGES)
    def test_the_weight_of_the_rate(self, stage):
        """At the first step of a warm-up it is 0, so the loss is the distortion alone."""
        system = irec_cases.made(stage, **{"loss.warm_up_steps": 10})
        loss, terms = loss_of(system)
        if stage == "rvae":
            assert loss.item() == pytest.approx(-terms["log_likelihood"].item())
        else:
            assert loss.item() == pytest.approx(0.01 * terms["mse_bytes"].item())


class TestLossless:
    def test_the_start_is_made_by_a_first_batch(self):
        fresh, started = irec_cases.made(start=False), irec_cases.made()
        scales = [
            torch.cat([m.log_scale_O for m in one.networks.modules() if isinstance(m, WeightNorm)])
            for one in (fresh, started)
        ]
        assert scales[0].abs().max() == 0 and scales[1].abs().mean() > 0.1
        assert math.isfinite(loss_of(started).loss.item())

    def test_free_bits(self):
        """A channel that costs less than its free bits counts as they do, and gets no gradient."""
        none, some, much = (irec_cases.made(**{"loss.free_bits": x}) for x in (0, 8, 1e9))
        losses = {one: loss_of(one) for one in (none, some, much)}
        kl = losses[none].terms["kl"].item()
        assert losses[none].terms["kl_charged"].item() == pytest.approx(kl)
        assert losses[some].terms["kl"].item() == pytest.approx(kl)
        passed, _ = objectives.bound(
            none.networks, irec_cases.batch().images_BCHW, irec_cases.draws()
        )
        each = torch.cat(passed.nats_BC, dim=1).mean(0)
        assert (each < 8).any() and (each > 8).any()
        assert losses[some].terms["kl_charged"].item() == pytest.approx(
            each.clamp_min(8).sum().item()
        )
        # A prior has a gradient from the rate alone.
        for system, moved in ((none, True), (much, False)):
            losses[system].loss.backward()
            of_prior = system.model.blocks[2].down_heads.direction.grad[:4]
            assert bool(of_prior.any()) == moved

    def test_the_bound(self):
        """The metric is −log p + KL in bits for each value, without free bits."""
        system = irec_cases.made(**{"loss.free_bits": 1e9})
        batch, draws = irec_cases.batch(), irec_cases.draws()
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(batch, draws))
            passed, log_likelihood_B = objectives.bound(system.networks, batch.images_BCHW, draws)
        nats_B = objectives.total_nats_B(passed) - log_likelihood_B
        bits = nats_B.mean().item() / math.log(2)
        assert metrics["bits_per_dim"] == pytest.approx(bits / (3 * 32 * 32), rel=1e-6)
        layers = [metrics[f"kl_bpp_{layer}"] for layer in range(3)]
        assert sum(layers) == pytest.approx(metrics["kl_bpp"], rel=1e-6)
        assert metrics["images"] == 4

    def test_the_bound_is_that_of_a_single_latent(self):
        """For one latent, log p(x) and the gap KL(q ‖ p(z|x)) are integrals over a line."""
        sizes = {"networks.blocks": 1, "networks.deterministic": 3, "networks.stochastic": 1}
        system = irec_cases.made(**sizes, **{"likelihood.scale": 0.1})
        system.networks.double()
        images = irec_cases.images(1, 2, 2)
        model, likelihood = system.model, system.networks["likelihood"]
        levels = images.double()
        x = (levels + 0.5) / 256 - 0.5
        with torch.no_grad():
            (block,) = model.layers()
            h = model.base(1, 2, 2)
            heads = block.heads(h)
            (inferred,) = model.up(x)
            prior, posterior = heads.prior, heads.posterior(inferred)
            z = torch.linspace(-12, 12, 24001).double().view(-1, 1, 1, 1)
            count = len(z)
            wide = heads._replace(features=heads.features.expand(count, -1, -1, -1))
            means = model.mean(block.down(h.expand(count, -1, -1, -1), wide, z))
            log_joint = likelihood(levels.expand(count, -1, -1, -1), means)
            log_p, log_q = (
                torch.distributions.Normal(one.mean, one.scale).log_prob(z).flatten()
                for one in (prior, posterior)
            )
        log_joint += log_p
        step = 24 / 24000
        log_evidence = (log_joint.logsumexp(0) + math.log(step)).item()
        gap = (log_q.exp() * (log_q - (log_joint - log_evidence))).sum().item() * step
        # The bound by samples: analytic KL, and by importance weights of the same samples.
        n = 20_000
        draws = irec_cases.Draws(1, ("train", 0, 0), n)
        with torch.no_grad():
            wide = images.expand(n, -1, -1, -1).double() / 256
            passed, log_likelihood_B = objectives.bound(system.networks, wide, _Double(draws))
        elbo_B = log_likelihood_B - objectives.total_nats_B(passed)
        error = elbo_B.std().item() / math.sqrt(n)
        # Four standard errors: a right bound fails once in 16,000 seeds, and the seed is fixed.
        assert elbo_B.mean().item() == pytest.approx(log_evidence - gap, abs=4 * error)
        noise = draws.normal("latents 0", 1, 1, 1).double().flatten()
        z_B = posterior.mean.item() + posterior.scale.item() * noise
        log_w = log_likelihood_B + sum(
            sign * torch.distributions.Normal(one.mean.item(), one.scale.item()).log_prob(z_B)
            for sign, one in ((1, prior), (-1, posterior))
        )
        estimate = (log_w.logsumexp(0) - math.log(n)).item()
        assert estimate == pytest.approx(log_evidence, abs=0.02)
        assert elbo_B.mean().item() < log_evidence

    def test_samples_and_reconstructions(self):
        system = irec_cases.made()
        batch = irec_cases.batch(3, 7, 10)
        with evaluation_mode(system.networks):
            for image in system.pictures(batch, irec_cases.draws(n=3)).values():
                assert image.shape == (3, 3, 7, 10) and image.dtype == torch.uint8


class _Double:
    """Draws in double precision."""

    def __init__(self, draws):
        self.draws = draws

    def normal(self, *arguments):
        return self.draws.normal(*arguments).double()


class TestLossy:
    @pytest.mark.parametrize("stage", ["two_level", "one_level"])
    @pytest.mark.parametrize("posterior", ["gaussian", "uniform"])
    def test_the_loss_is_a_rate_and_a_distortion(self, stage, posterior):
        system = irec_cases.made(
            stage, **{"loss.distortion_weight": 0.02, "networks.posterior": posterior}
        )
        loss, terms = loss_of(system)
        assert loss.item() == pytest.approx(
            (0.02 * terms["mse_bytes"] + terms["ideal_bpp"]).item(), rel=1e-6
        )
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(irec_cases.batch(), irec_cases.draws()))
        assert metrics["ideal_bpp"] == pytest.approx(terms["ideal_bpp"].item(), rel=1e-5)
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
        # The metric's errors are of images of 8 bits on [−1, 1]; those of the loss are not clipped.
        assert metrics["mse"] == pytest.approx(metrics["distortion"] / 127.5**2, rel=0.1)

    def test_ms_ssim_has_exponents_of_1(self):
        system = irec_cases.made("one_level", **{"loss.distortion": "ms_ssim"})
        batch, draws = irec_cases.batch(2, 180, 184), irec_cases.draws(n=2)
        with evaluation_mode(system.networks):
            _, terms = system.phases["model"](batch, draws, START)
            metrics = system.summary(system.evaluate(batch, draws))
            x_hat = system.passed(batch, draws).output_BCHW * 255
            shown = system.reconstruct(batch, draws)
        ones = multi_scale(batch.images_BCHW.double(), x_hat.double(), [1.0] * 5)
        expected = (255 * (1 - ones)).mean().item()
        assert terms["ms_ssim_loss"].item() == pytest.approx(expected, rel=1e-5)
        standard = ms_ssim(batch.images_BCHW, shown).mean().item()
        assert metrics["ms_ssim"] == pytest.approx(standard, rel=1e-9)
        assert metrics["distortion"] == pytest.approx(expected, rel=1e-5)

    def test_ms_ssim_has_gradients(self):
        system = irec_cases.made("one_level", **{"loss.distortion": "ms_ssim"})
        loss_of(system).loss.backward()
        gradients = [p.grad for p in system.model.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)

    def test_uniform_noise(self):
        noise = objectives.noise_of(irec_cases.draws(n=64), uniform=True)
        values = noise(0, (5, 8, 8))
        assert values.min() >= -0.5 and values.max() < 0.5
        assert values.var().item() == pytest.approx(1 / 12, rel=0.02)
        assert not torch.equal(values, noise(1, (5, 8, 8)))

    def test_the_decoder_of_one_level(self):
        system = irec_cases.made("one_level")
        assert isinstance(system, OneLevelSystem)
        decoder = system.latent_decoder()
        assert decoder is not None
        assert (decoder.latent_dim, decoder.values) == (4 * 4 * 4, 3 * 64 * 64)
        batch, draws = irec_cases.batch(2, 64, 64), irec_cases.draws(n=2)
        z_BK = draws.normal("prior 0", 4, 4, 4).flatten(1)
        shown = decoder.decode(z_BK).view(2, 3, 64, 64)
        assert torch.equal(system.to_images(shown), system.sample(draws, like=batch))
        target = decoder.target(batch.images_BCHW)
        assert target.shape == (2, decoder.values) and 0 <= target.min() <= target.max() <= 1

    @pytest.mark.parametrize(
        "cut", [{}, {"crop": [40, 64]}, {"crop": [16, 16]}], ids=["whole", "no multiple", "small"]
    )
    def test_there_is_no_decoder_without_a_size_that_fits(self, cut):
        system = irec_cases.made("one_level", **{"evaluation.transforms": cut})
        assert system.latent_decoder() is None
        assert irec_cases.made("two_level").latent_decoder() is None


class TestAll:
    @pytest.mark.parametrize("stage", STAGES)
    def test_any_size(self, stage):
        """Rates are counted on the pixels that there are, whatever is added to them."""
        system = irec_cases.made(stage)
        batch, draws = irec_cases.batch(2, 37, 50), irec_cases.draws(n=2)
        with evaluation_mode(system.networks):
            passed = system.passed(batch, draws)
            metrics = system.summary(system.evaluate(batch, draws))
        assert passed.output_BCHW.shape == (2, 3, 37, 50)
        bits = objectives.total_nats_B(passed).mean().item() / math.log(2)
        rate = metrics["kl_bpp" if stage == "rvae" else "ideal_bpp"]
        assert rate == pytest.approx(bits / (37 * 50), rel=1e-6)

    @pytest.mark.parametrize("stage", STAGES)
    def test_steps_move_all_parameters(self, stage):
        """Vectors that start at 0 hide what they are multiplied with from the first step."""
        system = irec_cases.made(stage, **({"loss.free_bits": 0} if stage == "rvae" else {}))
        before = [p.clone() for p in system.networks.parameters()]
        optimizer = system.optimizer("model")
        for step in range(3):
            optimizer.zero_grad()
            loss_of(system, step).loss.backward()
            optimizer.step()
        names = [name for name, _ in system.networks.named_parameters()]
        same = [
            name
            for name, old, new in zip(names, before, system.networks.parameters(), strict=True)
            if torch.equal(old, new)
        ]
        assert not same

    @pytest.mark.parametrize("stage", STAGES)
    def test_expected_divergences(self, stage):
        """The mean of a latent of each channel, over the images that training begins with."""
        system = irec_cases.made(stage)
        assert all(not mean_C.any() for mean_C in system.expected_kl)
        system.finalise(irec_cases.supply(128, 48))
        sums = None
        with evaluation_mode(system.networks):
            for step in range(2):
                passed = system.passed(
                    irec_cases.batch(128, 48, 48, seed=step), irec_cases.draws(step, 128)
                )
                found = [one.mean(0) for one in passed.nats_BC]
                sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        sides = {"rvae": (24, 24, 24), "two_level": (2, 8), "one_level": (3,)}[stage]
        assert sums is not None
        for mean_C, total_C, side in zip(system.expected_kl, sums, sides, strict=True):
            torch.testing.assert_close(mean_C, total_C / 2 / side**2, rtol=1e-4, atol=1e-7)
            assert (mean_C > 0).all()

    def test_networks_have_a_size(self):
        with pytest.raises(InputError, match=r"networks\.blocks is 0"):
            irec_cases.recipe(**{"networks.blocks": 0})
