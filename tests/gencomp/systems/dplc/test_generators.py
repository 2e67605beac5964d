"""Stage 1: where gradients go, what the critic sees, where statistics come from."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.system import Phase, System
from gencomp.systems.common import pixels
from gencomp.systems.dplc import parts
from tests.gencomp.dplc_cases import (
    ADVERSARIAL,
    START,
    batch,
    draws,
    finalised,
    gradients,
    loss_of,
    made,
    same,
    state,
    step,
    supply,
)

# No term but the critic's.
ALONE = {"loss.reconstruction_weight": 0, "loss.mmd_weight": 0, "loss.adversarial_weight": 1}


def inputs(phase: Phase, name: str) -> list[Tensor]:
    """What one of its networks is given in an update, with the gradients that come back."""
    seen: list[Tensor] = []

    def remember(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments[0].requires_grad:
            arguments[0].retain_grad()
        seen.append(arguments[0])

    hook = phase.networks[name].register_forward_pre_hook(remember)
    loss_of(phase)
    hook.remove()
    return seen


def encoded(system: System) -> Tensor:
    """F(x) as in training."""
    system.networks.train()
    with torch.no_grad():
        return system.networks["encoder"](pixels.to_signed(batch().images_BCHW))


def gradient_free(network: nn.Module) -> bool:
    """Exactly zero, or no gradient at all."""
    return all(not g.any() for g in gradients(network))


class TestAutoencoder:
    def test_a_step_changes_all_of_both_networks(self) -> None:
        system = made("wae")
        before = {name: state(system.networks[name]) for name in ("encoder", "generator")}
        step(system)
        for name, old in before.items():
            new = state(system.networks[name])
            moved = {key for key in old if not torch.equal(old[key], new[key])}
            assert moved == set(old)  # weights, running statistics and their counts

    @pytest.mark.parametrize("overrides", [{}, ADVERSARIAL], ids=["mmd", "dz"])
    def test_the_reconstruction_improves(self, overrides: dict[str, Any]) -> None:
        system = made("wae", **overrides)
        optimizers = {name: system.optimizer(name) for name in system.phases}
        errors = []
        for number in range(20):
            for name, phase in system.phases.items():
                phase.take_over()
                optimizers[name].zero_grad(set_to_none=True)
                loss, terms = phase(batch(), draws(number), START)
                loss.backward()
                optimizers[name].step()
            errors.append(terms["rmse"].item())
        assert errors[-1] < errors[0]

    def test_statistics_come_from_images_and_from_the_prior(self) -> None:
        """F's come from images, G's from N(0, σ² I); both are means over batches at the end."""
        system = made("wae", **{"loss.prior_variance": 4.0})
        step(system)
        weights = [p.clone() for p in system.networks.parameters()]
        finalised(system, 32)
        assert all(
            torch.equal(a, b) for a, b in zip(weights, system.networks.parameters(), strict=True)
        )
        net = system.networks["generator"]
        norms = [m for m in net.modules() if isinstance(m, GlobalBatchNorm2d)]
        assert all(norm.num_batches_tracked == 4 and norm.momentum == 0.1 for norm in norms)
        batches = [pair for pair, _ in zip(supply(), range(4), strict=False)]
        means = [
            net.layers[0](2 * draws.normal("prior", 8)[:, :, None, None]).mean((0, 2, 3))
            for _, draws in batches
        ]
        torch.testing.assert_close(norms[0].running_mean, torch.stack(means).mean(0))
        layers = system.networks["encoder"].layers
        images = [
            layers[2](torch.relu(layers[0](pixels.to_signed(b.images_BCHW)))) for b, _ in batches
        ]
        torch.testing.assert_close(
            layers[3].running_mean, torch.stack([x.mean((0, 2, 3)) for x in images]).mean(0)
        )

    def test_the_encoders_batch_norm_starts_at_the_priors_variance(self) -> None:
        one, nine = (encoded(made("wae", **{"loss.prior_variance": v})) for v in (1.0, 9.0))
        torch.testing.assert_close(nine, 3 * one)
        assert float(nine.var(0, correction=0).mean()) == pytest.approx(9, rel=0.1)

    def test_the_discriminator_sees_latents_as_training_does_and_leaves_no_trace(self) -> None:
        system = made("wae", **ADVERSARIAL)
        phase = system.phases["latent_discriminator"]
        before = state(system.networks["encoder"])
        prior_BM11, z_BM11 = inputs(phase, "latent_discriminator")
        assert torch.equal(prior_BM11, parts.Prior(8, 1.0).sample(draws(), torch.float32))
        assert same(before, state(system.networks["encoder"]))
        torch.testing.assert_close(z_BM11, encoded(system))
        assert not gradients(system.networks["encoder"])
        assert not gradient_free(system.networks["latent_discriminator"])

    def test_the_encoder_learns_from_the_discriminator_and_not_the_other_way(self) -> None:
        system = made("wae", **ADVERSARIAL)
        with mock.patch(
            "gencomp.systems.dplc.objectives.root_mean", lambda errors_N: errors_N.sum() * 0
        ):
            loss_of(system.phases["generator"])
        assert not gradient_free(system.networks["encoder"])
        assert gradient_free(system.networks["generator"])
        assert not gradients(system.networks["latent_discriminator"])

    @pytest.mark.parametrize("variance", [1.0, 2.5])
    def test_the_trick_adds_the_priors_density_to_the_logits(self, variance: float) -> None:
        overrides = ADVERSARIAL | {"loss.prior_variance": variance}
        plain, trick = (
            made("wae", **overrides, **{"latent_discriminator.avb_trick": avb})
            for avb in (False, True)
        )
        z_BM11 = torch.randn(5, 8, 1, 1)
        logits = [
            system.phases["latent_discriminator"].penalty.logits_B(system.networks, z_BM11)  # type: ignore[union-attr]
            for system in (plain, trick)
        ]
        density = torch.distributions.Normal(0.0, variance**0.5).log_prob(z_BM11).flatten(1).sum(1)
        torch.testing.assert_close(logits[1], logits[0] + density)


class TestCritic:
    @pytest.mark.parametrize("stage", ["wgan_gp", "wasserstein_pp", "gc"])
    def test_an_update_moves_nothing_but_the_critic(self, stage: str) -> None:
        """Even the running statistics of the others stay, and they get no gradients."""
        system = made(stage)
        before = {name: state(net) for name, net in system.networks.items()}
        step(system, phases=("critic",))
        for name, network in system.networks.items():
            assert same(before[name], state(network)) == (name != "critic")
            assert bool(gradients(network)) == (name == "critic")

    @pytest.mark.parametrize("latents", ["enc", "interp", "prior"])
    def test_latents_of_the_fakes(self, latents: str) -> None:
        system = made("wasserstein_pp", **{"critic.latents": latents})
        (z_BM11,) = inputs(system.phases["critic"], "generator")
        prior_BM11 = parts.Prior(8, 1.0).sample(draws(), torch.float32, "prior latents")
        alpha_B111 = draws().uniform("interpolation", 0, 1, 1, 1, 1)
        assert alpha_B111.shape == (8, 1, 1, 1)  # one per image
        alpha = {"enc": 1.0, "prior": 0.0, "interp": alpha_B111}[latents]
        torch.testing.assert_close(z_BM11, alpha * encoded(system) + (1 - alpha) * prior_BM11)
        assert not z_BM11.requires_grad

    def test_fakes_of_a_gan_are_samples_of_the_prior_as_training_makes_them(self) -> None:
        system = made("wgan_gp")
        _, real_BCHW, fake_BCHW = inputs(system.phases["critic"], "critic")
        assert torch.equal(real_BCHW, pixels.to_signed(batch().images_BCHW))
        z_BM11 = parts.prior_latent(parts.Prior(8, 1.0))(system.networks, real_BCHW, draws())
        torch.testing.assert_close(fake_BCHW, system.networks["generator"].train()(z_BM11))
        assert not fake_BCHW.requires_grad

    @pytest.mark.parametrize("norm", ["per_pixel", "per_image"])
    def test_the_norm_of_the_penalty(self, norm: str) -> None:
        """Both are closed forms for a linear critic f(u) = c·Σu."""
        system = made("wgan_gp", **{"critic.penalty_norm": norm})
        c = torch.tensor(3**-0.5, requires_grad=True)
        phase = system.phases["critic"]
        phase.networks["critic"].forward = lambda u: c * u.flatten(1).sum(1, keepdim=True)  # type: ignore[method-assign]
        terms = loss_of(phase).terms
        assert terms["penalty"].item() == pytest.approx({"per_pixel": 0, "per_image": 63**2}[norm])


class TestAdversarialGradient:
    """Wasserstein++: the critic moves G, and F only when asked."""

    @pytest.mark.parametrize("latents", ["enc", "interp", "prior"])
    def test_it_stops_at_the_latent(self, latents: str) -> None:
        system = made("wasserstein_pp", **ALONE, **{"loss.gen_latents": latents})
        loss_of(system.phases["generator"])
        assert gradient_free(system.networks["encoder"])
        assert not gradient_free(system.networks["generator"])
        assert not gradients(system.networks["critic"])

    @pytest.mark.parametrize("latents", ["enc", "interp"])
    def test_it_passes_the_latent_when_asked(self, latents: str) -> None:
        asked = {"loss.gen_latents": latents, "loss.adversarial_to_encoder": True}
        system = made("wasserstein_pp", **ALONE, **asked)
        loss_of(system.phases["generator"])
        assert not gradient_free(system.networks["encoder"])
        assert not gradient_free(system.networks["generator"])

    def test_the_value_and_the_generators_gradient_do_not_depend_on_where_it_stops(self) -> None:
        found = []
        for reaches in (False, True):
            system = made("wasserstein_pp", **{"loss.adversarial_to_encoder": reaches})
            loss = loss_of(system.phases["generator"]).loss
            found.append(
                (loss, torch.cat([g.flatten() for g in gradients(system.networks["generator"])]))
            )
        torch.testing.assert_close(found[0], found[1])

    @pytest.mark.parametrize("latents", ["enc", "interp", "prior"])
    def test_latents_of_the_generators_step(self, latents: str) -> None:
        system = made("wasserstein_pp", **{"loss.gen_latents": latents})
        first, second = inputs(system.phases["generator"], "generator")
        torch.testing.assert_close(first, encoded(system))
        prior_BM11 = parts.Prior(8, 1.0).sample(draws(), torch.float32, "prior latents")
        alpha_B111 = draws().uniform("interpolation", 0, 1, 1, 1, 1)
        alpha = {"enc": 1.0, "prior": 0.0, "interp": alpha_B111}[latents]
        torch.testing.assert_close(second, alpha * first + (1 - alpha) * prior_BM11)

    def test_a_step_moves_the_statistics_once(self) -> None:
        """The second pass through G, for the critic, is by the batch and leaves no trace."""
        system = made("wasserstein_pp", **{"loss.gen_latents": "prior"})
        step(system, phases=("generator",))
        other = made("wae")
        step(other)
        for net in ("encoder", "generator"):
            ours, theirs = state(system.networks[net]), state(other.networks[net])
            buffers = [name for name, _ in system.networks[net].named_buffers()]
            assert buffers and all(torch.equal(ours[name], theirs[name]) for name in buffers)

    def test_the_generator_of_a_gan_raises_its_scores(self) -> None:
        system = made("wgan_gp")
        phase, optimizer = system.phases["generator"], system.optimizer("generator")
        scores = []
        for _ in range(10):
            phase.take_over()
            optimizer.zero_grad(set_to_none=True)
            loss, terms = phase(batch(), draws(), START)
            loss.backward()
            optimizer.step()
            scores.append(terms["fake_score"].item())
        assert scores[-1] > scores[0]


def test_a_gan_evaluates_scores_of_held_out_images() -> None:
    system = finalised(made("wgan_gp"))
    with torch.no_grad():
        system.networks.eval()
        metrics = system.summary(system.evaluate(batch(), draws()).all_reduced())
        samples = system.networks["generator"](parts.Prior(8, 1.0).sample(draws(), torch.float32))
        critic = system.networks["critic"]
        gap = critic(pixels.to_signed(batch().images_BCHW)).mean() - critic(samples).mean()
    assert metrics == {"gap": pytest.approx(gap.item(), rel=1e-4), "images": 8}
