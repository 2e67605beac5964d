"""What all stages of DPLC share: steps, optimizers, batch statistics, evaluation, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d, batch_statistics
from gencomp.networks.calibration import reestimate_statistics
from gencomp.rate_distortion.priors import Gaussian
from gencomp.system import Progress, System, Update, evaluation_mode
from gencomp.systems.common import pixels
from gencomp.systems.dplc import parts
from tests.gencomp.dplc_cases import (
    ADVERSARIAL,
    BASELINES,
    GENERATORS,
    START,
    batch,
    draws,
    finalised,
    loss_of,
    made,
    same,
    state,
    states,
    step,
)

STAGES = (*GENERATORS, "codec", *BASELINES)
RECONSTRUCTING = tuple(stage for stage in STAGES if stage != "wgan_gp")


class TestSteps:
    @pytest.mark.parametrize(
        ("stage", "overrides", "expected"),
        [
            ("wae", {}, ["generator*"]),
            ("wae", ADVERSARIAL, ["latent_discriminator*", "generator"]),
            ("wgan_gp", {}, ["critic*"] * 5 + ["generator"]),
            ("wgan_gp", {"critic.steps": 1}, ["critic*", "generator"]),
            (
                "wasserstein_pp",
                ADVERSARIAL | {"critic.steps": 2},
                ["critic*", "critic*", "latent_discriminator", "generator"],
            ),
            ("codec", {}, ["codec*"]),
            ("codec", ADVERSARIAL, ["latent_discriminator*", "codec"]),
            ("cae", {}, ["codec*"]),
            ("gc", {"critic.steps": 5}, ["critic*"] * 5 + ["codec"]),
        ],
    )
    def test_updates(self, stage: str, overrides: dict[str, Any], expected: list[str]) -> None:
        """* takes a fresh batch; the generator's update is on the critic's last one."""
        assert list(made(stage, **overrides).updates(START)) == [
            Update(name.removesuffix("*"), name.endswith("*")) for name in expected
        ]

    @pytest.mark.parametrize("stage", STAGES)
    def test_an_optimizer_moves_what_its_phase_trains_and_nothing_else(self, stage: str) -> None:
        system = made(stage, **(ADVERSARIAL if stage in ("wae", "wasserstein_pp", "codec") else {}))
        for name, phase in system.phases.items():
            before = states(system)
            step(system, phases=(name,))
            for network, old in before.items():
                weights = dict(system.networks[network].named_parameters())
                moved = [key for key in weights if not torch.equal(old[key], weights[key])]
                if network in phase.trains:
                    # A bias in front of a batch norm, and the critic's last layer, may stay.
                    assert len(moved) > len(weights) / 2, (name, network)
                else:
                    assert not moved, (name, network)

    @pytest.mark.parametrize("stage", STAGES)
    def test_every_network_belongs_to_one_optimizer_or_is_frozen(self, stage: str) -> None:
        system = made(stage)
        trained = [name for phase in system.phases.values() for name in phase.trains]
        assert len(trained) == len(set(trained))
        frozen = {"generator"} if stage == "codec" else set()
        # Tables have no weights.
        assert {*trained} | frozen == set(system.networks) - {"code_tables"}

    def test_learning_rates_betas_and_decay_of_each_phase(self) -> None:
        system = made(
            "wasserstein_pp",
            **ADVERSARIAL,
            **{
                "optimizer.learning_rate": 1.0,
                "optimizer.decay_epochs": [30, 50],
                "optimizer.decay_factor": 0.4,
                "optimizer.weight_decay": 0.1,
                "critic.optimizer.learning_rate": 2.0,
                "critic.optimizer.betas": [0.1, 0.2],
                "critic.optimizer.decay_epochs": [40],
                "latent_discriminator.optimizer.learning_rate": 3.0,
            },
        )

        def rates(epoch: float) -> list[float]:
            progress = Progress(0, round(epoch * 64), 64)
            return [
                rate for name in system.phases for rate in system.learning_rates(name, progress)
            ]

        assert list(system.phases) == ["critic", "latent_discriminator", "generator"]
        assert rates(0) == rates(29.9) == [2, 3, 1]
        assert rates(30) == pytest.approx([2, 3, 0.4])
        assert rates(40) == pytest.approx([0.2, 3, 0.4])
        assert rates(50) == pytest.approx([0.2, 3, 0.16])
        critic, latent, generator = (system.optimizer(name).defaults for name in system.phases)
        assert (critic["betas"], critic["weight_decay"]) == ((0.1, 0.2), 0)
        assert (latent["betas"], generator["weight_decay"]) == ((0.5, 0.999), 0.1)

    @pytest.mark.parametrize("stage", STAGES)
    def test_a_loss_is_a_function_of_weights_batch_and_draws(self, stage: str) -> None:
        for name in made(stage).phases:
            one, two = (loss_of(made(stage).phases[name], 3) for _ in range(2))
            assert torch.equal(one.loss, two.loss) and same(one.terms, two.terms)
            assert not torch.equal(one.loss, loss_of(made(stage).phases[name], 4).loss)

    @pytest.mark.parametrize("stage", ["wgan_gp", "wasserstein_pp", "gc"])
    def test_critics_alone_need_second_derivatives(self, stage: str) -> None:
        phases = made(stage).phases
        assert [name for name, phase in phases.items() if phase.second_order] == ["critic"]

    def test_unequal_objectives_hold_the_terms_that_they_report(self) -> None:
        """The loss is the weighted sum of its named terms."""
        terms = step(made("wasserstein_pp", **{"loss.adversarial_weight": 0.5}))
        sums = (
            terms["generator/rmse"] + 10 * terms["generator/mmd"]
            - 0.5 * terms["generator/fake_score"]
        )  # fmt: skip
        assert terms["generator/loss"].item() == pytest.approx(sums.item(), rel=1e-5)
        expected = 10 * terms["critic/penalty"] - terms["critic/gap"]
        assert terms["critic/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        terms = step(made("codec", **ADVERSARIAL))
        expected = terms["codec/rmse"] + 10 * terms["codec/latent_adversarial"]
        assert terms["codec/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        expected = terms["latent_discriminator/real"] + terms["latent_discriminator/fake"]
        assert terms["latent_discriminator/loss"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("mode", ["frozen", "batch"])
@pytest.mark.parametrize("stage", STAGES)
def test_latents_are_those_that_reconstructions_decode(stage: str, mode: str) -> None:
    system = finalised(made(stage, **{"networks.bn_mode": mode}))
    with evaluation_mode(system.networks):
        found = system.latents(batch(), draws())
        if stage not in ("wae", "wasserstein_pp", "codec"):  # no encoder, or no prior
            assert found is None
            return
        assert found is not None and found.z_BK.shape == (8, 8) and found.variance == 1
        with system.statistics(draws()):  # type: ignore[attr-defined]
            made_BCHW = system.networks["generator"](found.z_BK[:, :, None, None])
        assert torch.equal(pixels.to_bytes(made_BCHW), system.reconstruct(batch(), draws()))


@pytest.mark.parametrize("stage", STAGES)
def test_images_of_another_size_are_refused(stage: str) -> None:
    system = finalised(made(stage))
    larger = batch()._replace(images_BCHW=torch.zeros(8, 3, 64, 80, dtype=torch.uint8))
    calls: list[Callable[[], object]] = [lambda: system.evaluate(larger, draws())]
    if stage != "wgan_gp":
        calls.append(lambda: system.reconstruct(larger, draws()))
    if stage not in BASELINES:
        calls.append(lambda: system.sample(draws(), like=larger))
    with evaluation_mode(system.networks):
        for call in calls:
            with pytest.raises(InputError, match=r"of 64×64 pixels, but held-out ones are 64×80"):
                call()


class TestBatchStatistics:
    @pytest.mark.parametrize("stage", STAGES)
    def test_evaluations_leave_every_state_as_it_is(self, stage: str) -> None:
        for mode in ("frozen", "batch"):
            system = finalised(made(stage, **{"networks.bn_mode": mode}))
            before = states(system)
            with evaluation_mode(system.networks):
                system.evaluate(batch(), draws())
                system.pictures(batch(), draws())
            after = states(system)
            assert all(same(before[name], after[name]) for name in before)

    def test_frozen_statistics_make_images_independent_and_those_of_the_batch_do_not(self) -> None:
        def first_of(images: int, mode: str) -> torch.Tensor:
            system = finalised(made("wae", **{"networks.bn_mode": mode}), 64)
            for number in range(3):
                step(system, number)
            with evaluation_mode(system.networks):
                pixels = system.reconstruct(batch(), draws())
                share = batch()._replace(images_BCHW=batch().images_BCHW[:images])
                assert pixels is not None
                again = system.reconstruct(share, draws(n=images))
                assert again is not None and again.dtype == torch.uint8
            return (pixels[:images].int() - again.int()).abs().max()

        assert first_of(2, "frozen") <= 1  # convolutions of other batch sizes may round otherwise
        assert first_of(2, "batch") > 1

    def test_batch_mode_evaluates_as_training_does(self) -> None:
        system = made("wae", **{"networks.bn_mode": "batch"})
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(batch(), draws()).all_reduced())
        system.networks.train()
        x_BCHW = pixels.to_signed(batch().images_BCHW)
        with torch.no_grad():
            x_hat_BCHW = system.networks["generator"](system.networks["encoder"](x_BCHW))
        assert metrics["mse"] == pytest.approx(float((x_BCHW - x_hat_BCHW).square().mean()))

    @pytest.mark.parametrize("stage", ["wae", "wgan_gp", "codec"])
    def test_a_batch_of_one_has_no_statistics(self, stage: str) -> None:
        system = finalised(made(stage, **{"networks.bn_mode": "batch"}))
        with evaluation_mode(system.networks), pytest.raises(InputError, match=r"bn_mode is batch"):
            system.evaluate(batch(1), draws(n=1))

    def test_borrowed_statistics(self) -> None:
        """Both modes give training's numbers, without a trace; nesting and errors undo in order."""
        network = nn.Sequential(nn.Conv2d(2, 3, 1), GlobalBatchNorm2d(3))
        x_BCHW = torch.randn(4, 2, 5, 5) * 3 + 1
        with torch.no_grad():
            before, expected = state(network), network.train()(x_BCHW)
            network.load_state_dict(before)
            for training in (True, False):
                network.train(training)
                with pytest.raises(RuntimeError), batch_statistics(network):
                    with batch_statistics(network, local=True):
                        assert torch.equal(network(x_BCHW), expected)
                    assert torch.equal(network(x_BCHW), expected)
                    assert same(before, state(network))
                    raise RuntimeError
            assert not torch.equal(network.eval()(x_BCHW), expected)

    def test_reestimated_statistics_are_plain_averages(self) -> None:
        network = nn.Sequential(GlobalBatchNorm2d(2))
        network.eval()
        batches = [torch.randn(5, 2, 3, 3) + i for i in range(4)]
        reestimate_statistics(network, batches)
        norm = network[0]
        torch.testing.assert_close(
            norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
        )
        torch.testing.assert_close(
            norm.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
        )
        assert norm.momentum == 0.1 and not network.training


class TestEvaluation:
    @pytest.mark.parametrize("stage", RECONSTRUCTING)
    def test_closed_form(self, stage: str) -> None:
        """MSE on [−1, 1], PSNR = 10·log10(4/MSE)."""
        system = finalised(made(stage))
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(batch(), draws()).all_reduced())
            x = pixels.to_signed(batch().images_BCHW)
            z = system.encode(system.networks, x, draws())  # type: ignore[attr-defined]
            x_hat = system.networks["generator"](z)
        mse_B = (x - x_hat).double().square().flatten(1).mean(1)
        assert metrics["mse"] == pytest.approx(mse_B.mean().item())
        assert metrics["mse_standard_error"] == pytest.approx((mse_B.std() / math.sqrt(8)).item())
        assert metrics["psnr"] == pytest.approx(10 * math.log10(4 / metrics["mse"]))
        assert metrics["images"] == 8
        assert ("mmd" in metrics) == (stage not in BASELINES)
        assert ("nominal_bpp" in metrics) == (stage not in GENERATORS)

    def test_an_empty_share(self) -> None:
        """A rank may get no image of the last batch."""
        for stage in STAGES:
            system = finalised(made(stage))
            with evaluation_mode(system.networks):
                sums = system.evaluate(batch(0), Draws(1, ("e",), 1, rank=1, world=2))
            assert "mmd" not in sums.values
            assert all(sums.count(name) == 0 for name in sums.values)

    def test_modes_are_put_back(self) -> None:
        nets = made("wae").networks
        nets["encoder"].train()
        nets["generator"].eval()
        with evaluation_mode(nets):
            assert not nets["encoder"].training and not torch.is_grad_enabled()
        assert nets["encoder"].training and not nets["generator"].training

    @pytest.mark.parametrize("stage", STAGES)
    def test_reconstructions_samples_and_pictures(self, stage: str) -> None:
        system = finalised(made(stage))
        with evaluation_mode(system.networks):
            pictures = system.pictures(batch(), draws())
            reconstructions = system.reconstruct(batch(), draws())
            samples = system.sample(draws(), like=batch())
        expected = {"originals": batch().images_BCHW}
        if reconstructions is not None:
            expected["reconstructions"] = reconstructions
        if samples is not None:
            expected["samples from the prior"] = samples
        assert same(pictures, expected)
        assert all(p.dtype == torch.uint8 and p.shape == (8, 3, 64, 64) for p in pictures.values())
        assert (reconstructions is None) == (stage == "wgan_gp")
        assert (samples is None) == (stage in BASELINES)
        assert (system.latent_decoder() is None) == (stage in BASELINES)
        assert (system.codec() is None) == (stage in GENERATORS)

    @pytest.mark.parametrize("stage", [*GENERATORS, "codec"])
    def test_samples_are_of_the_prior_and_the_ranks_share_them(self, stage: str) -> None:
        system = finalised(made(stage))
        decoder = system.latent_decoder()
        assert decoder is not None and decoder.log_variance is None
        assert (decoder.latent_dim, decoder.prior.latent_dim) == (8, 8)
        assert decoder.prior.identity == Gaussian(8).identity
        z_BK = draws(5).normal("prior", 8)
        with evaluation_mode(system.networks):
            samples = system.sample(draws(5), like=batch())
            decoded = pixels.to_bytes(decoder.decode(z_BK).reshape(-1, 3, 64, 64))
            assert samples is not None and torch.equal(samples, decoded)
            shares = [
                system.sample(Draws(1, ("train", 5, 0), 8, rank, 2), like=batch(4))
                for rank in range(2)
            ]
        for rank, share in enumerate(shares):
            assert share is not None
            assert (share.int() - samples[rank::2].int()).abs().max() <= 1

    def test_latent_decoder(self) -> None:
        system: System = made("wgan_gp", **{"networks.bn_mode": "batch"})
        decoder = system.latent_decoder()
        assert decoder is not None
        z_BK = torch.randn(1, 8, requires_grad=True)  # alone: statistics are fixed
        images = decoder.decode(z_BK)
        assert images.shape == (1, decoder.values) == decoder.target(batch(1).images_BCHW).shape
        images.sum().backward()
        assert z_BK.grad is not None and all(
            p.grad is None for p in system.networks["generator"].parameters()
        )

    def test_zero_rate_identity(self) -> None:
        """E MSE(x, G(z)) = Var X + Var G(Z) + |mean X − mean G(Z)|² for independent x and z.

        1,000 pairs against the moments; 4 standard errors, error rate below 1e-4.
        """
        system = finalised(made("wgan_gp", **{"networks.latent_dim": 32}), 64)
        for number in range(3):
            step(system, number)
        generator = torch.Generator().manual_seed(0)
        x_BCHW = torch.rand(256, 3, 64, 64, generator=generator) ** 3 * 2 - 1
        with evaluation_mode(system.networks):
            samples = system.sample(draws(n=256), like=batch(256))
        assert samples is not None
        g_BCHW = pixels.to_signed(samples)
        variances = x_BCHW.var(0, correction=0).mean() + g_BCHW.var(0, correction=0).mean()
        expected = variances + (x_BCHW.mean(0) - g_BCHW.mean(0)).square().mean()
        i, j = (torch.randint(256, (1000,), generator=generator) for _ in range(2))
        mse_B = (x_BCHW[i] - g_BCHW[j]).square().flatten(1).mean(1)
        error = float(mse_B.std() / 1000**0.5)
        assert float(mse_B.mean()) == pytest.approx(float(expected), abs=4 * error)


def test_bytes_and_signed_values_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pixels.to_bytes(pixels.to_signed(every)), every)
    assert pixels.to_signed(every)[0] == -1 and pixels.to_signed(every)[255] == 1
    assert pixels.to_bytes(torch.tensor([-1.1, 1.1, 0.0])).tolist() == [0, 255, 128]


def test_dithered_images_keep_their_type() -> None:
    x = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    signed = pixels.to_signed(x)
    assert signed.dtype == x.dtype and signed.tolist() == [-1, -0.5, 1]


def test_prior_samples_have_the_variance_and_the_type_that_were_asked_for() -> None:
    one, four = parts.Prior(8, 1.0), parts.Prior(8, 4.0)
    z_BM11 = one.sample(draws(), torch.float32)
    assert z_BM11.shape == (8, 8, 1, 1)
    assert torch.equal(four.sample(draws(), torch.float32), 2 * z_BM11)
    assert torch.equal(one.sample(draws(), torch.float64), z_BM11.double())
    assert one.sample(draws(), torch.bfloat16).dtype == torch.float32
    latents = parts.prior_latent(one)(nn.ModuleDict(), torch.zeros(1), draws())
    assert not torch.equal(latents, z_BM11)  # a penalty compares with other samples
