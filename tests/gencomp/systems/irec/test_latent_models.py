"""Models of one image: both sides agree in every bit, and no layer is computed twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gencomp.coding.latent_model import Floats, rounded
from gencomp.networks import float64
from gencomp.networks.irec.lossy import OneLevel, TwoLevel
from gencomp.networks.latents import Normal
from gencomp.systems.irec import latent_models, objectives
from gencomp.systems.irec.latent_models import LossyLatents, RvaeLatents, tiles
from gencomp.systems.irec.system import IrecSystem, Lossless
from tests.gencomp import irec_cases
from tests.gencomp.irec_cases import STAGES


def image(height: int, width: int) -> np.ndarray:
    return irec_cases.images(1, height, width)[0].permute(1, 2, 0).numpy()


def sent(model: RvaeLatents | LossyLatents, image_HWC: np.ndarray) -> tuple[Any, list[Floats]]:
    """The sender's last state, and a sample of the posterior of each layer."""
    numbers = np.random.default_rng(0)
    state, latents = model.start(*image_HWC.shape[:2], image_HWC), []
    for _ in range(model.layers):
        posterior = model.posterior(state)
        noise = numbers.standard_normal(len(posterior.mean_D))
        latents.append(posterior.mean_D + posterior.scale_D * noise)
        state = model.after(state, latents[-1])
    return state, latents


def finished(stage: str, **overrides: Any) -> IrecSystem:
    """A system with a table of expected divergences and moved weights."""
    system = irec_cases.made(stage, **overrides)
    numbers = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in system.networks.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=numbers))
        if stage != "rvae":
            system.model.synthesis[-1].bias.add_(0.5)  # grey, so that few values are cut off
    system.finalise(irec_cases.supply(128))
    return system


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [(37, 50), (64, 128), (1, 3)])
class TestBothSides:
    def test_the_receiver_has_the_sender_s_priors(self, stage: str, size: tuple[int, int]) -> None:
        """From the latents alone, through another copy of the model."""
        system = finished(stage)
        model, receiver = system.latent_model(), system.latent_model()
        image_HWC = image(*size)
        last, latents = sent(model, image_HWC)
        sender, state = model.start(*size, image_HWC), receiver.start(*size)
        assert model.dimensions(*size) == tuple(len(z_D) for z_D in latents)
        for z_D in latents:
            for mine, theirs in zip(receiver.prior(state), model.prior(sender), strict=True):
                assert np.array_equal(mine, theirs) and mine.dtype == np.float64
            assert np.array_equal(receiver.expected_D(state), model.expected_D(sender))
            assert len(receiver.expected_D(state)) == len(z_D)
            sender, state = model.after(sender, z_D), receiver.after(state, z_D)
        shown = receiver.shown(state)
        assert shown.shape == (*size, 3) and shown.dtype == np.uint8
        assert np.array_equal(shown, model.shown(last))
        if stage == "rvae":
            mine, theirs = receiver.likelihood(state), model.likelihood(last)
            assert np.array_equal(mine.mean_N, theirs.mean_N) and mine.scale == theirs.scale
            assert mine.mean_N.shape == (size[0] * size[1] * 3,)

    def test_rates_are_those_of_the_networks(self, stage: str, size: tuple[int, int]) -> None:
        """The divergences of all layers, but for rounding to 12 bits."""
        system = finished(stage)
        model, image_HWC = system.latent_model(), image(*size)
        _, latents = sent(model, image_HWC)
        noise, state, nats = [], model.start(*size, image_HWC), []
        for z_D in latents:
            posterior, prior = model.posterior(state), model.prior(state)
            noise.append((z_D - posterior.mean_D) / posterior.scale_D)
            q, p = (Normal(*map(torch.from_numpy, one)) for one in (posterior, prior))
            nats.append(q.nats(p, q.mean).sum().item())
            state = model.after(state, z_D)
        system.networks.double()
        with torch.no_grad():
            passed, output = passed_with(system, image_HWC, noise)
        for mine, theirs_BC in zip(nats, passed, strict=True):
            assert mine == pytest.approx(theirs_BC.sum().item(), rel=2e-3, abs=2e-3)
        if stage == "rvae":
            mean_HWC = model.likelihood(state).mean_N.reshape(*size, 3)
            np.testing.assert_allclose(mean_HWC, output, atol=1e-3)
        else:
            np.testing.assert_allclose(model.shown(state), (255 * output).clip(0, 255), atol=0.7)


def passed_with(
    system: IrecSystem, image_HWC: np.ndarray, noise: list[Floats]
) -> tuple[list[torch.Tensor], np.ndarray]:
    """The rates and the output of the networks in float64 for given noise."""

    class Given:
        def normal(self, purpose: str, *shape: int) -> torch.Tensor:
            return torch.from_numpy(noise[int(purpose.split()[1])]).view(1, *shape)

    images = torch.from_numpy(image_HWC).permute(2, 0, 1)[None].double()
    if isinstance(system, Lossless):
        passed, _ = objectives.bound(system.networks, images / 256, Given())  # type: ignore[arg-type]
    else:
        passed = objectives.reconstructed(
            system.model,
            images / 255,
            Given(),  # type: ignore[arg-type]
            uniform=False,
        )
    return passed.nats_BC, passed.output_BCHW[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_rounded(stage: str) -> None:
    model = finished(stage).latent_model()
    state = model.start(40, 40, image(40, 40))
    for gaussian in (model.prior(state), model.posterior(state)):
        again = rounded(*gaussian)
        assert np.array_equal(again.mean_D, gaussian.mean_D)
        assert np.array_equal(again.scale_D, gaussian.scale_D)
        assert (gaussian.scale_D > 0).all()


@pytest.mark.parametrize("stage", STAGES)
def test_a_state_can_be_used_again(stage: str) -> None:
    model, image_HWC = finished(stage).latent_model(), image(40, 40)
    state = model.start(40, 40, image_HWC)
    first, posterior = model.prior(state), model.posterior(state)
    one = model.after(state, np.zeros(len(first.mean_D)))
    other = model.after(state, np.ones(len(first.mean_D)))
    assert np.array_equal(model.prior(state).mean_D, first.mean_D)
    assert np.array_equal(model.posterior(state).mean_D, posterior.mean_D)
    if model.layers > 1:
        assert not np.array_equal(model.prior(one).mean_D, model.prior(other).mean_D)
    else:
        assert not np.array_equal(model.shown(one), model.shown(other))


@pytest.mark.parametrize("stage", STAGES)
def test_no_layer_is_computed_twice(stage: str) -> None:
    """Each convolution of the model runs once for an image, at the sender as at the receiver."""
    system = finished(stage)
    counts: dict[torch.nn.Module, int] = {}

    def count(module: torch.nn.Module, *_: Any) -> None:
        counts[module] = counts.get(module, 0) + 1

    model = system.latent_model()
    layers = [
        module
        for module in model._model.modules()
        if isinstance(module, float64.Convolution | float64.TransposedConvolution)
    ]
    for layer in layers:
        layer.register_forward_hook(count)
    state, latents = sent(model, image(64, 64))
    model.prior(model.start(64, 64))
    counts.clear()
    state = model.start(64, 64, image(64, 64))
    for z_D in latents:
        for _ in range(2):
            model.prior(state), model.posterior(state)
        state = model.after(state, z_D)
    if stage == "rvae":
        model.likelihood(state)
    else:
        model.shown(state)
    assert set(counts) == set(layers) and set(counts.values()) == {1}


def test_a_uniform_posterior_has_the_deviation_of_its_interval() -> None:
    model = finished("two_level", **{"networks.posterior": "uniform"}).latent_model()
    assert isinstance(model, LossyLatents) and model.uniform
    posterior = model.posterior(model.start(40, 40, image(40, 40)))
    np.testing.assert_allclose(posterior.scale_D, 12**-0.5, rtol=2e-4)


@pytest.mark.parametrize("kind", [TwoLevel, OneLevel])
@pytest.mark.parametrize("strip_values", [1, 9_000])
def test_strips_are_the_whole(kind: type[TwoLevel] | type[OneLevel], strip_values: int) -> None:
    """One row of latents at a time, and a few; also where a strip meets the border."""
    torch.manual_seed(0)
    model = float64.in_float64(kind(3))
    assert isinstance(model, TwoLevel | OneLevel)
    x = torch.rand(1, 3, 16 * 12, 128).double()
    z = torch.randn(1, model.channels[-1], 12, 8).double()
    with torch.no_grad():
        whole, parts = model.analyse(x), latent_models.analysed(model, x, strip_values)
        torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=1e-12)
        assert whole.raw is not None and parts.raw is not None
        torch.testing.assert_close(parts.raw, whole.raw, rtol=1e-12, atol=1e-12)
        expected = model.synthesise(z)
        found = latent_models.synthesised(model, z, strip_values)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (512, 768), (513, 511), (4000, 4001), (1027, 3)])
def test_tiles_cover_an_image_once(size: tuple[int, int]) -> None:
    seen = np.zeros(size, np.uint8)
    for tile in tiles(*size):
        assert tile.height <= 512 and tile.width <= 512
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert (seen == 1).all()
    assert len(tiles(*size)) == -(-size[0] // 512) * -(-size[1] // 512)
