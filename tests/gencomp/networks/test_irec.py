"""The models of relative entropy coding: counts and shapes as published, and what goes where."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gencomp.networks.irec.lossy import LearntPrior, OneLevel, TwoLevel
from gencomp.networks.irec.rvae import Heads, Inferred, Rvae
from gencomp.networks.latents import Noise, Normal, Shape, Uniform
from gencomp.networks.logistic import EDGE, LogisticPixels
from gencomp.networks.weight_norm import START_DEVIATION, WeightNorm, starting


def parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def recorded(shapes: list[Shape], batch: int = 1, device: str = "cpu") -> Noise:
    """Normal noise that notes the shapes of the layers."""

    def noise(layer: int, shape: Shape) -> Tensor:
        assert layer == len(shapes)
        shapes.append(shape)
        return torch.randn(batch, *shape, device=device)

    return noise


class TestPublishedSizes:
    def test_rvae(self) -> None:
        """The networks have no storage, since the numbers matter and not the values."""
        with torch.device("meta"):
            model, likelihood = Rvae(), LogisticPixels()
            shapes: list[Shape] = []
            found = model(torch.zeros(1, 3, 32, 32), recorded(shapes, device="meta"))
        assert parameters(model, likelihood) == 29_462_823
        assert parameters(model.blocks[1]) == 1_245_824
        assert shapes == [(32, 16, 16)] * 24
        assert [nats_BC.shape for nats_BC in found.nats_BC] == [(1, 32)] * 24
        assert found.output_BCHW.shape == (1, 3, 32, 32)

    def test_two_level(self) -> None:
        model, shapes = TwoLevel(), list[Shape]()
        with torch.no_grad():
            found = model(torch.zeros(1, 3, 128, 192), recorded(shapes))
        assert parameters(model) == 10_308_659
        assert shapes == [(128, 2, 3), (196, 8, 12)]
        assert found.output_BCHW.shape == (1, 3, 128, 192)

    def test_one_level(self) -> None:
        model, shapes = OneLevel(), list[Shape]()
        with torch.no_grad():
            found = model(torch.zeros(1, 3, 128, 192), recorded(shapes))
        assert parameters(model) == 5_846_403
        assert shapes == [(192, 8, 12)]
        assert found.output_BCHW.shape == (1, 3, 128, 192)

    @pytest.mark.parametrize("height", [2, 6, 10])
    def test_any_even_size(self, height: int) -> None:
        model = Rvae(2, 4, 2)
        shapes: list[Shape] = []
        mean = model(torch.zeros(2, 3, height, 8), recorded(shapes, 2)).output_BCHW
        assert shapes == [(2, height // 2, 4)] * 2
        assert mean.shape == (2, 3, height, 8)

    @pytest.mark.parametrize("kind", [TwoLevel, OneLevel])
    def test_the_least_size(self, kind: type[TwoLevel] | type[OneLevel]) -> None:
        model = kind(3)
        side = model.least
        assert model(torch.zeros(1, 3, side, side), recorded([])).output_BCHW.shape[2:] == (
            side,
            side,
        )
        for layer, unit in enumerate(model.units):
            shapes: list[Shape] = []
            model(torch.zeros(1, 3, side, 2 * side), recorded(shapes))
            assert shapes[layer] == (model.channels[layer], side // unit, 2 * side // unit)


class TestRvae:
    def test_every_layer_starts_with_the_deviation(self) -> None:
        """The first layer of the top-down pass sees a constant, which says nothing of its scale."""
        torch.manual_seed(0)
        model, outputs = Rvae(4, 8, 3), dict[str, Tensor]()
        names = {module: name for name, module in model.named_modules()}

        def keep(module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
            outputs[names[module]] = output

        layers = [m for m in model.modules() if isinstance(m, WeightNorm)]
        handles = [layer.register_forward_hook(keep) for layer in layers]
        x_BCHW = torch.rand(16, 3, 16, 16) - 0.5
        with starting(model), torch.no_grad():
            model(x_BCHW, recorded([], 16), from_prior=True)
        for handle in handles:
            handle.remove()
        assert len(outputs) == len(layers) == 2 + 4 * 4 - 1
        for name, output in outputs.items():
            values_CN = output.transpose(0, 1).flatten(1)
            expected = 0.0 if name == "blocks.0.down_heads" else START_DEVIATION
            deviation = values_CN.std(1, unbiased=False)
            assert (deviation - expected).abs().max() < 1e-3, name
            assert values_CN.mean(1).abs().max() < 1e-3, name

    def test_the_mean_stays_inside_the_levels(self) -> None:
        model = Rvae(1, 4, 1)
        mean = model.mean(1e3 * torch.randn(2, 4, 5, 6))
        assert mean.shape == (2, 3, 10, 12) and mean.abs().max().item() == EDGE

    def test_scales_are_bounded(self) -> None:
        """A posterior's scale is at most e^5 and at least e^-8 times that of its prior."""
        one = torch.ones(1, 1, 1, 1)
        heads = Heads(Normal(0 * one, 0.5 * one), 0 * one, 90 * one, one)
        posterior = heads.posterior(Inferred(3 * one, -40 * one))
        assert posterior.scale.item() == pytest.approx(0.5 * math.exp(5))
        assert posterior.mean.item() == 3
        low = heads.posterior(Inferred(one, -140 * one))
        assert low.scale.item() == pytest.approx(0.5 * math.exp(-8))

    def test_layers_depend_on_those_before_them_alone(self) -> None:
        """Only the rates of later layers may change with the noise of a layer."""
        torch.manual_seed(0)
        model = Rvae(4, 6, 2).double()
        x_BCHW = torch.rand(1, 3, 8, 8).double() - 0.5
        with starting(model), torch.no_grad():
            model(x_BCHW, lambda _, shape: torch.randn(1, *shape).double(), from_prior=True)

        def rates(moved: int) -> list[Tensor]:
            def noise(layer: int, shape: Shape) -> Tensor:
                return torch.full((1, *shape), 2.0 if layer == moved else 0.5).double()

            return model(x_BCHW, noise).nats_BC

        base, changed = rates(-1), rates(1)
        assert [torch.equal(*pair) for pair in zip(base, changed, strict=True)] == [
            *(True, True),
            *(False, False),
        ]


class TestLossy:
    def test_the_learnt_prior_is_that_of_a_map(self) -> None:
        """The convolutions of a vector that fills a map, at any size."""
        torch.manual_seed(0)
        prior = LearntPrior(3)
        nn.init.normal_(prior.vector_C)
        found = prior(2, 5, 4)
        h_BCHW = prior.first(prior.vector_C.view(1, 3, 1, 1).expand(2, 3, 5, 4))
        torch.testing.assert_close(found.mean, prior.mean(h_BCHW))
        scale = nn.functional.softplus(prior.raw(h_BCHW)) + 1e-7
        torch.testing.assert_close(found.scale, scale)

    @pytest.mark.parametrize("kind", [TwoLevel, OneLevel])
    def test_reach(self, kind: type[TwoLevel] | type[OneLevel]) -> None:
        """A row of latents depends on no pixel, and a pixel on no row, beyond the stated reach."""
        torch.manual_seed(0)
        model = kind(3).double()
        rows = 9
        x = torch.rand(1, 3, 16 * rows, 128).double().requires_grad_()
        model.analyse(x).mean[:, :, 4].square().sum().backward()
        assert x.grad is not None
        touched = x.grad.abs().sum((0, 1, 3)).nonzero()
        assert touched.min() >= 16 * (4 - model.reach)
        assert touched.max() < 16 * (5 + model.reach)
        z = torch.randn(1, model.channels[-1], rows, 8).double().requires_grad_()
        model.synthesise(z)[:, :, 4 * 16 : 5 * 16].square().sum().backward()
        assert z.grad is not None
        touched = z.grad.abs().sum((0, 1, 3)).nonzero()
        assert touched.min() >= 4 - model.reach and touched.max() <= 4 + model.reach

    def test_a_uniform_posterior_has_no_scales(self) -> None:
        gaussian, uniform = TwoLevel(4, 3), TwoLevel(4, 3, "uniform")
        heads = 25 * 4 * 4 + 4 + 25 * 3 * 3 + 2 * 4 * 4 + 4
        assert parameters(gaussian) - parameters(uniform) == heads
        assert isinstance(uniform.analyse(torch.zeros(1, 3, 128, 128)).posterior(), Uniform)


class TestRates:
    def test_divergence_of_normals(self) -> None:
        numbers = torch.Generator().manual_seed(0)
        means, scales = torch.randn(2, 50, generator=numbers), torch.rand(2, 50) + 0.1
        q, p = (
            Normal(m.view(1, 50, 1, 1), s.view(1, 50, 1, 1))
            for m, s in zip(means, scales, strict=True)
        )
        expected = torch.distributions.kl_divergence(
            *(torch.distributions.Normal(one.mean, one.scale) for one in (q, p))
        )
        torch.testing.assert_close(q.nats(p, q.mean), expected)

    def test_rate_of_a_uniform_posterior(self) -> None:
        """The negative log of the prior's probability of the interval about z, also far out."""
        z = torch.tensor([0.3, -2.0, 40.0]).double().view(1, 3, 1, 1)
        prior = Normal(torch.full_like(z, 0.1), torch.full_like(z, 0.8))
        normal = torch.distributions.Normal(0.1, 0.8)
        expected = -(normal.cdf(z + 0.5) - normal.cdf(z - 0.5)).log()
        found = Uniform(z).nats(prior, z)
        torch.testing.assert_close(found[:, :2], expected[:, :2])
        # In the tail it is near the log density at the near end of the interval.
        near = -normal.log_prob(torch.tensor(39.5).double())
        assert found[0, 2, 0, 0].item() == pytest.approx(near.item(), rel=0.01)

    def test_gradients_of_a_uniform_posterior_s_rate(self) -> None:
        z = torch.tensor([[[[0.3]], [[-2.0]], [[7.0]]]]).double().requires_grad_()
        mean = torch.full_like(z, 0.1).requires_grad_()
        scale = torch.full_like(z, 0.8).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda z, m, s: Uniform(z).nats(Normal(m, s), z), (z, mean, scale)
        )


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (32, 32)), ((33, 64), (48, 64))])
def test_padding_repeats_the_last_row_and_column(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    x = torch.rand(1, 3, *size)
    whole = OneLevel(2).padded(x)
    assert whole.shape[2:] == expected
    assert torch.equal(whole[:, :, : size[0], : size[1]], x)
    assert torch.equal(whole[:, :, -1, : size[1]], x[:, :, -1])
