"""Both stages of DPLC: what a step changes, what noise does, where statistics come from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.calibration import reestimate_statistics
from gencomp.system import Batch, Progress, System, evaluation_mode
from gencomp.systems import build_system, dplc

START = Progress(step=0, samples=0, epoch_length=64)
SMALL: dict[str, Any] = {"networks.width": 2, "networks.latent_dim": 8}


def batch(n: int = 8, seed: int = 0) -> Batch:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 64, 64), dtype=np.uint8)
    index = torch.arange(n)
    return Batch(torch.from_numpy(pixels), index, index, -torch.ones(n, dtype=torch.int64))


def draws(step: int = 0, n: int = 8) -> Draws:
    return Draws(1, ("train", step, 0), n)


def supply() -> Iterator[tuple[Batch, Draws]]:
    for i in range(10**6):
        yield batch(seed=i), Draws(1, ("finalise", i), 8)


def generator_recipe(**overrides: Any) -> recipes.BaseRecipe:
    return recipes.load("dplc_generator_photos", SMALL | overrides)


@pytest.fixture
def generator() -> System:
    torch.manual_seed(0)
    return build_system(generator_recipe(), {})


def codec(**overrides: Any) -> System:
    """A codec with the weights of its start, whose batch norms have seen their inputs."""
    torch.manual_seed(0)
    parent = build_system(generator_recipe(), {})
    with mock.patch.object(dplc, "_CALIBRATION_SAMPLES", 64):
        parent.finalise(supply())
    sizes = {"networks.width": 2, "networks.code_channels": 2, "networks.residual_blocks": 1}
    recipe = recipes.load("dplc_codec_photos", sizes | overrides)
    system = build_system(recipe, {"generator": generator_recipe()})
    system.initialise({"generator": parent.networks.state_dict()}, supply())
    with mock.patch.object(dplc, "_CALIBRATION_SAMPLES", 16):
        system.finalise(supply())
    return system


def state(system: System, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in system.networks[name].state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def step(system: System, number: int = 0) -> float:
    """One update as the loop makes it."""
    (update,) = system.updates(START)
    phase, optimizer = system.phases[update.phase], system.optimizer(update.phase)
    phase.take_over()
    optimizer.zero_grad(set_to_none=True)
    loss, terms = phase(batch(seed=number), draws(number), START)
    loss.backward()
    optimizer.step()
    weight = system.recipe.loss.mmd_weight  # type: ignore[attr-defined]
    assert loss.item() == pytest.approx((terms["rmse"] + weight * terms["mmd"]).item(), rel=1e-5)
    return loss.item()


class TestGeneratorStage:
    def test_a_step_changes_both_networks(self, generator: System) -> None:
        before = {name: state(generator, name) for name in ("encoder", "generator")}
        step(generator)
        for name, old in before.items():
            new = state(generator, name)
            moved = {key for key in old if not torch.equal(old[key], new[key])}
            assert moved == set(old)  # weights, running statistics and their counts

    def test_the_reconstruction_improves(self, generator: System) -> None:
        fixed = batch()

        def rmse() -> float:
            phase = generator.phases["wae"]
            phase.take_over()
            return phase(fixed, draws(), START).terms["rmse"].item()

        before = rmse()
        optimizer = generator.optimizer("wae")
        for number in range(20):
            generator.phases["wae"].take_over()
            optimizer.zero_grad(set_to_none=True)
            generator.phases["wae"](fixed, draws(number), START).loss.backward()
            optimizer.step()
        assert rmse() < before

    def test_statistics_of_the_generator_come_from_the_prior(
        self, generator: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the last step: F's from images, G's from N(0, σ² I), averaged over batches."""
        monkeypatch.setattr(dplc, "_CALIBRATION_SAMPLES", 32)
        step(generator)
        weights = [p.clone() for p in generator.networks.parameters()]
        generator.finalise(supply())
        assert all(
            torch.equal(a, b) for a, b in zip(weights, generator.networks.parameters(), strict=True)
        )
        net = generator.networks["generator"]
        norms = [m for m in net.modules() if isinstance(m, GlobalBatchNorm2d)]
        assert all(norm.num_batches_tracked == 4 and norm.momentum == 0.1 for norm in norms)
        first = net.layers[0]
        means = []
        for i in range(4):
            z_BM11 = Draws(1, ("finalise", i), 8).normal("prior", 8)[:, :, None, None]
            means.append(first(z_BM11).mean((0, 2, 3)))
        torch.testing.assert_close(norms[0].running_mean, torch.stack(means).mean(0))
        head = generator.networks["encoder"].layers[0]
        second = generator.networks["encoder"].layers[2]
        images = [
            second(torch.relu(head(dplc.to_signed(batch(seed=i).images_BCHW)))) for i in range(4)
        ]
        norm = generator.networks["encoder"].layers[3]
        torch.testing.assert_close(
            norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in images]).mean(0)
        )

    def test_prior_variance_scales_the_prior(self) -> None:
        one = dplc.prior_samples(draws(), 8, 1.0)
        torch.testing.assert_close(dplc.prior_samples(draws(), 8, 4.0), 2 * one)

    def test_latent_decoder(self, generator: System) -> None:
        decoder = generator.latent_decoder()
        assert decoder is not None and (decoder.latent_dim, decoder.prior_variance) == (8, 1.0)
        z_BK = torch.randn(3, 8, requires_grad=True)
        images = decoder.decode(z_BK)
        assert images.shape == (3, 3 * 64 * 64) == decoder.target(batch(3).images_BCHW).shape
        images.sum().backward()
        assert z_BK.grad is not None and all(
            p.grad is None for p in generator.networks["generator"].parameters()
        )

    def test_no_codec(self, generator: System) -> None:
        assert generator.codec() is None


class TestCodecStage:
    def test_a_step_changes_the_encoder_and_the_map_and_nothing_of_the_generator(self) -> None:
        """Not its weights, not its statistics: it runs in evaluation mode."""
        system = codec()
        before = {name: state(system, name) for name in system.networks}
        for number in range(3):
            step(system, number)
        assert same(before["generator"], state(system, "generator"))
        assert not system.networks["generator"].training
        for name in ("code_encoder", "latent_mapper"):
            new = state(system, name)
            unmoved = [key for key in new if torch.equal(new[key], before[name][key])]
            # A bias in front of a batch norm has no effect, so it may stay.
            assert all(key.endswith("bias") for key in unmoved), unmoved
        assert all(p.grad is None for p in system.networks["generator"].parameters())

    def test_the_optimiser_holds_only_the_trained(self) -> None:
        system = codec()
        held = {id(p) for group in system.optimizer("codec").param_groups for p in group["params"]}
        expected = {
            id(p)
            for n in ("code_encoder", "latent_mapper")
            for p in system.networks[n].parameters()
        }
        assert held == expected

    def test_the_generator_is_the_parents(self) -> None:
        system = codec()
        again = codec(**{"training.seed": 5})
        assert same(state(system, "generator"), state(again, "generator"))

    def test_noise_decides_reconstructions(self) -> None:
        """Two draws differ, the same draw gives the same bits."""
        system = codec()
        x_BCHW = dplc.to_signed(batch().images_BCHW)

        def reconstruction(number: int) -> Tensor:
            return system.networks["generator"](
                dplc.mapped_latent(system.networks, x_BCHW, 2, draws(number))
            )

        with evaluation_mode(system.networks):
            a, b, c = (reconstruction(number) for number in (0, 1, 0))
        assert torch.equal(a, c)
        assert (a - b).flatten(1).abs().max(1).values.min() > 0

    def test_without_noise_reconstructions_are_always_the_same(self) -> None:
        system = codec(**{"networks.stochastic": False})
        with evaluation_mode(system.networks):
            a, b = (system.pictures(batch(), draws(k))["reconstructions"] for k in (0, 1))
        assert torch.equal(a, b)
        assert system.networks["latent_mapper"].noise_shape == (0, 4, 4)

    def test_finalise_leaves_the_generator_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dplc, "_CALIBRATION_SAMPLES", 16)
        system = codec()
        step(system)
        before, mapper = state(system, "generator"), state(system, "latent_mapper")
        system.finalise(supply())
        assert same(before, state(system, "generator"))
        assert not same(mapper, state(system, "latent_mapper"))

    def test_a_batch_of_one_reconstructs_as_in_a_large_one(self) -> None:
        """Evaluation mode does not mix images."""
        system = codec(**{"networks.stochastic": False})
        several = batch()
        alone = Batch(*(part[:1] for part in several))
        with evaluation_mode(system.networks):
            a = system.pictures(several, draws())["reconstructions"][:1]
            b = system.pictures(alone, draws(n=1))["reconstructions"]
        assert (a.int() - b.int()).abs().max() <= 1

    @pytest.mark.parametrize(
        ("channels", "levels", "bpp"),
        [(8, 2, 0.03125), (2, 2, 0.0078125), (4, 4, 0.03125), (1, 3, 26 / 4096)],
    )
    def test_rate(self, channels: int, levels: int, bpp: float) -> None:
        """n·16·log2(L) bits an image, rounded up to whole bits."""
        system = codec(**{"networks.code_channels": channels, "networks.levels": levels})
        sums = system.evaluate(batch(), draws())
        assert system.summary(sums.all_reduced())["bpp"] == bpp


class TestEvaluation:
    def test_closed_form(self, generator: System) -> None:
        """MSE on [−1, 1], PSNR = 10·log10(4/MSE)."""
        with evaluation_mode(generator.networks):
            metrics = generator.summary(generator.evaluate(batch(), draws()).all_reduced())
            x = dplc.to_signed(batch().images_BCHW)
            x_hat = generator.networks["generator"](generator.networks["encoder"](x))
        mse_B = (x - x_hat).double().square().flatten(1).mean(1)
        assert metrics["mse"] == pytest.approx(mse_B.mean().item())
        assert metrics["mse_standard_error"] == pytest.approx((mse_B.std() / math.sqrt(8)).item())
        assert metrics["psnr"] == pytest.approx(10 * math.log10(4 / metrics["mse"]))
        assert metrics["images"] == 8

    def test_an_empty_share(self, generator: System) -> None:
        """A rank may get no image of the last batch."""
        with evaluation_mode(generator.networks):
            sums = generator.evaluate(batch(0), Draws(1, ("e",), 1, rank=1, world=2))
        assert sums.count("mse") == 0 and "mmd" not in sums.values

    def test_modes_are_put_back(self, generator: System) -> None:
        generator.networks["encoder"].train()
        generator.networks["generator"].eval()
        with evaluation_mode(generator.networks):
            assert not generator.networks["encoder"].training and not torch.is_grad_enabled()
        assert (
            generator.networks["encoder"].training and not generator.networks["generator"].training
        )


def test_bytes_and_signed_values_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(dplc.to_bytes(dplc.to_signed(every)), every)
    assert dplc.to_signed(every)[0] == -1 and dplc.to_signed(every)[255] == 1
    assert dplc.to_bytes(torch.tensor([-1.1, 1.1, 0.0])).tolist() == [0, 255, 128]


def test_reestimated_statistics_are_plain_averages() -> None:
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
