"""DPLC's networks: published parameter counts, shapes and golden forward values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.dplc import (
    CodeEncoder,
    Critic,
    Encoder,
    Generator,
    LatentDiscriminator,
    LatentMapper,
    ResidualBlock,
)
from gencomp.quantizer import cells, quantize, quantize_hard


def parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def fill(*networks: nn.Module) -> None:
    """Parameter k of the chain gets 0.02·sin(0.7·i + k), plus 1 where it is a norm's scale."""
    k = 0
    for network in networks:
        network.double()
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                i = torch.arange(parameter.numel(), dtype=torch.float64)
                values = 0.02 * torch.sin(0.7 * i + k)
                if isinstance(module, nn.BatchNorm2d | nn.LayerNorm) and name == "weight":
                    values += 1
                parameter.data.copy_(values.reshape(parameter.shape))
                k += 1


def wave(frequency: float, *shape: int) -> Tensor:
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(frequency * i).reshape(shape)


def summary(y: Tensor) -> list[float]:
    flat = y.detach().flatten()
    some = [flat.mean(), flat.std(unbiased=False), flat[0], flat[1], flat[2], flat[-1]]
    return [float(value) for value in some]


X = wave(0.011, 4, 3, 64, 64)
Z = wave(0.37, 4, 128, 1, 1)
NOISE = 0.5 * wave(0.37, 4, 8, 4, 4)

# Mean, population standard deviation, first three values, last value.
ENCODER = {
    True: [-0.00003275, 0.99957287, 1.02808166, 0.54588333, -1.67339953, 1.20102440],
    False: [0.00016827, 0.04298367, -0.04656619, 0.05880472, -0.01077666, 0.05985625],
}
GENERATOR = {
    True: [-0.00593667, 0.43886248, 0.34509128, 0.49952500, 0.49916959, -0.40397129],
    False: [-0.01407761, 0.00649100, 0.00555159, 0.00402805, 0.00395821, -0.01675374],
}
CRITIC = [0.30986517, 0.03736508, 0.26439306, 0.34627320, 0.28160803, 0.34718640]
LATENT_MAP = {
    True: [-0.00006389, 0.99932107, 0.97145973, -1.06486276, -0.86349163, 0.99976175],
    False: [0.00551700, 0.68790080, -0.07637202, 0.97938335, -1.00191976, 0.50356456],
}
CODE = {True: (255, [0.5, 0.5, 0.5, -0.5]), False: (264, [-0.5, 0.5, 0.5, -0.5])}

MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@MODES
def test_golden_values_of_the_encoder(training: bool) -> None:
    encoder = Encoder()
    fill(encoder)
    assert summary(encoder.train(training)(X)) == pytest.approx(ENCODER[training], abs=6e-9)


@MODES
def test_golden_values_of_the_generator(training: bool) -> None:
    generator = Generator()
    fill(generator)
    assert summary(generator.train(training)(Z)) == pytest.approx(GENERATOR[training], abs=6e-9)


def test_golden_values_of_the_critic() -> None:
    critic = Critic()
    fill(critic)
    assert summary(critic(X)) == pytest.approx(CRITIC, abs=6e-9)


@MODES
def test_golden_values_of_the_codec(training: bool) -> None:
    code_encoder, latent_map = CodeEncoder().train(training), LatentMapper().train(training)
    fill(code_encoder, latent_map)
    y = code_encoder(X)
    code = quantize(y, cells(2))
    flat = code.detach().flatten()
    positive, ends = CODE[training]
    assert int((flat == 0.5).sum()) == positive == int(quantize_hard(y, cells(2)).sum())
    assert flat[[0, 1, 2, -1]].tolist() == ends
    assert summary(latent_map(code, NOISE)) == pytest.approx(LATENT_MAP[training], abs=6e-9)


def test_golden_values_hold_in_float32() -> None:
    encoder, generator = Encoder(), Generator()
    fill(encoder)
    fill(generator)
    assert summary(encoder.float()(X.float())) == pytest.approx(ENCODER[True], abs=1e-4)
    assert summary(generator.float()(Z.float())) == pytest.approx(GENERATOR[True], abs=1e-4)


def test_parameter_counts() -> None:
    assert parameters(Encoder()) == 3_806_208
    assert parameters(Encoder(latent_batch_norm=False)) == 3_805_952
    assert parameters(Generator()) == 3_870_403
    assert parameters(Generator(residual_blocks=2)) == 13_311_683
    critic = Critic()
    assert parameters(critic) == 3_073_792
    assert parameters(*(m for m in critic.modules() if isinstance(m, nn.LayerNorm))) == 245_760
    assert parameters(LatentDiscriminator()) == 854_529
    assert parameters(ResidualBlock(512)) == 4_720_640
    assert parameters(CodeEncoder(), LatentMapper(residual_blocks=0)) == 3_917_320


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 128])
def test_parameter_counts_of_the_codec(n: int) -> None:
    with torch.device("meta"):
        code_encoder = CodeEncoder(code_channels=n)
        latent_map = LatentMapper(code_channels=n)
        without_noise = LatentMapper(code_channels=n, stochastic=False)
    trunk = 2_757_376
    assert parameters(code_encoder) == trunk + 4_609 * n
    assert parameters(code_encoder, latent_map) == 13_284_864 + 9_217 * n
    assert parameters(latent_map) - parameters(without_noise) == 36_864


def test_running_statistics() -> None:
    def statistics(network: nn.Module) -> int:
        return sum(b.numel() for name, b in network.named_buffers() if "running" in name)

    assert statistics(Generator()) == 2_048
    assert statistics(Encoder()) == 2_048


def test_shapes() -> None:
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    assert Encoder(width=2, latent_dim=128)(x).shape == (4, 128, 1, 1)
    y = CodeEncoder(width=2, code_channels=5)(x)
    assert y.shape == (4, 5, 4, 4)
    latent_map = LatentMapper(width=2, code_channels=5)
    assert latent_map.noise_shape == (8, 4, 4)
    assert latent_map.layers[0].in_channels == 5 + 8
    z = latent_map(quantize(y, cells(2)), torch.zeros(4, *latent_map.noise_shape))
    assert z.shape == (4, 128, 1, 1)
    x_hat = Generator(width=2)(z)
    assert x_hat.shape == (4, 3, 64, 64)
    assert float(x_hat.detach().abs().max()) < 1
    assert Critic(width=2)(x).shape == (4, 1)
    assert LatentDiscriminator(width=3)(z).shape == (4,)
    linear = LatentDiscriminator(latent_dim=6, layers=1)
    assert parameters(linear) == 7 and linear(torch.zeros(2, 6, 1, 1)).shape == (2,)
    h = torch.randn(2, 6, 5, 7)
    assert ResidualBlock(6)(h).shape == h.shape
    assert bool((ResidualBlock(6)(h) >= 0).all())


def test_noise_has_as_many_scalars_as_the_latent_rounded_up() -> None:
    assert LatentMapper(width=1, latent_dim=32, code_channels=2).noise_shape == (2, 4, 4)
    assert LatentMapper(width=1, latent_dim=33, code_channels=2).noise_shape == (3, 4, 4)


def test_noise_changes_the_latent_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    code, noise = torch.randn(3, 2, 4, 4), torch.rand(2, 3, 1, 4, 4) - 0.5
    latent_map = LatentMapper(width=2, latent_dim=16, code_channels=2).eval()
    assert torch.equal(latent_map(code, noise[0]), latent_map(code, noise[0]))
    assert not torch.equal(latent_map(code, noise[0]), latent_map(code, noise[1]))
    fixed = LatentMapper(width=2, latent_dim=16, code_channels=2, stochastic=False).eval()
    assert torch.equal(fixed(code), fixed(code))


def test_starting_weights() -> None:
    """Sample standard deviations within 4 standard errors (error rate below 1e-3 in all)."""
    torch.manual_seed(0)
    for network in (Generator(width=32), Critic(width=32)):
        network.requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 500:
                error = 4 * 0.02 / (2 * module.weight.numel()) ** 0.5
                assert float(module.weight.std()) == pytest.approx(0.02, abs=error)
            elif isinstance(module, nn.BatchNorm2d):
                error = 4 * 0.02 / (2 * module.weight.numel()) ** 0.5
                assert float(module.weight.std()) == pytest.approx(0.02, abs=error)
                assert float(module.weight.mean()) == pytest.approx(1, abs=0.02)
                assert not module.bias.any()
            elif isinstance(module, nn.LayerNorm):
                assert bool((module.weight == 1).all()) and not module.bias.any()


def test_he_initialisation() -> None:
    """Kaiming-uniform convolutions: |w| ≤ sqrt(6 / fan in), of variance 2 / fan in.

    Sample variances within 4 standard errors (error rate below 1e-3 in all).
    """
    torch.manual_seed(0)
    for network in (Encoder(16, initialisation="he"), Critic(16, initialisation="he")):
        network.requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 500:
                fan_in = module.weight[0].numel()
                assert float(module.weight.abs().max()) <= (6 / fan_in) ** 0.5
                error = 4 * (0.8 / module.weight.numel()) ** 0.5
                assert float(module.weight.var()) * fan_in / 2 == pytest.approx(1, abs=error)
            elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                error = 4 * 0.02 / (2 * module.weight.numel()) ** 0.5
                assert float(module.weight.std()) == pytest.approx(0.02, abs=error)
                assert not module.bias.any()


def test_the_latent_scale_is_the_standard_deviation_after_the_batch_norm() -> None:
    x, code = torch.randn(16, 3, 64, 64), torch.randn(16, 2, 4, 4)
    for scale in (0.5, 3.0):
        torch.manual_seed(1)
        z = Encoder(width=2, latent_dim=8, latent_scale=scale)(x).detach()
        torch.manual_seed(1)
        torch.testing.assert_close(z, scale * Encoder(width=2, latent_dim=8)(x))
        assert float(z.std()) == pytest.approx(scale, rel=0.1)
        arguments: dict[str, Any] = {"width": 2, "latent_dim": 8, "code_channels": 2}
        mapper = LatentMapper(**arguments, stochastic=False, latent_scale=scale)
        assert float(mapper(code).detach().std()) == pytest.approx(scale, rel=0.1)
    torch.manual_seed(1)
    free = Encoder(width=2, latent_dim=8, latent_batch_norm=False, latent_scale=3.0)
    torch.manual_seed(1)
    assert torch.equal(free(x), Encoder(width=2, latent_dim=8, latent_batch_norm=False)(x))


def test_one_image_decodes_alone_in_eval_mode() -> None:
    torch.manual_seed(0)
    generator = Generator(width=2, latent_dim=4).eval().double()
    z = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    assert torch.allclose(generator(z)[:1], generator(z[:1]), atol=1e-12)


def test_batch_norm_is_torchs_own_in_one_process() -> None:
    torch.manual_seed(0)
    ours, theirs = GlobalBatchNorm2d(3), nn.BatchNorm2d(3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 2, 2) * 3 + 1
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="3×64×64 values, got a tensor of 2×3×32×32"):
        Encoder(width=1)(torch.zeros(2, 3, 32, 32))
    with pytest.raises(InputError, match="code_channels is 9, allowed are 1 to"):
        LatentMapper(width=1, latent_dim=8, code_channels=9)
    with pytest.raises(InputError, match="8×1×1 values, got a tensor of 2×8"):
        LatentDiscriminator(latent_dim=8)(torch.zeros(2, 8))
    with pytest.raises(InputError, match="layers is 0"):
        LatentDiscriminator(layers=0)
    with pytest.raises(InputError, match="code_channels is 0"):
        CodeEncoder(code_channels=0)
    latent_map = LatentMapper(width=1, latent_dim=16, code_channels=1)
    with pytest.raises(InputError, match="noise takes batches of 1×4×4"):
        latent_map(torch.zeros(1, 1, 4, 4))
