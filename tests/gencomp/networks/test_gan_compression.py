"""Published counts and sizes of generative compression, and where a latent reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gencomp.networks.float64 import in_float64
from gencomp.networks.gan_compression.autoencoder import (
    Decoder,
    Encoder,
    Layers,
    Padding,
    label_encoder,
    lift,
)
from gencomp.networks.gan_compression.discriminator import Condition, Discriminator, least_side
from gencomp.networks.norms import Norm

PADDINGS: tuple[Padding, ...] = ("symmetric", "tf_same")
NORMS: tuple[Norm, ...] = ("channel", "instance")
LAYERS = Layers("instance", "tf_same")


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class TestCounts:
    @pytest.fixture(autouse=True)
    def _without_memory(self):
        with torch.device("meta"):
            yield

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_the_published_ones(self, norm: Norm, padding: Padding) -> None:
        layers = Layers(norm, padding)
        encoders = [count(Encoder(c, 60, layers, rectified=True)) for c in (2, 4, 8, 16)]
        assert encoders == [5_539_686, 5_556_972, 5_591_544, 5_660_688]
        assert count(Encoder(8, 60, layers)) == 5_591_544 - 2 * 8
        decoders = [count(Decoder(inputs, 60, 9, layers)) for inputs in (2, 4, 8, 16, 24)]
        assert decoders == [154_890_723, 154_908_003, 154_942_563, 155_011_683, 155_080_803]

    def test_the_selective_ones(self) -> None:
        assert count(Encoder(8, 60, LAYERS, halvings=3, rectified=True)) == 1_406_904
        assert count(lift(8, 60, LAYERS)) == 4_186_080
        assert count(label_encoder(35, 60, LAYERS)) == 5_616_480
        assert count(Decoder(1920, 60, 9, LAYERS)) == 171_462_243

    def test_the_discriminators(self) -> None:
        assert count(Discriminator(scales=1)) == 2_766_529
        assert count(Discriminator()) == 8_299_587
        assert count(Discriminator(planes=3, scales=1)) == 2_769_601
        assert count(Discriminator(planes=3)) == 8_308_803

    def test_narrow_ones(self) -> None:
        assert count(Encoder(8, 8, LAYERS, rectified=True)) == 109_080
        assert count(Decoder(8, 8, 2, LAYERS)) == 700_419


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "latents", "patches"),
    [
        ((512, 1024), (32, 64), [(32, 64), (16, 32), (8, 16)]),
        ((256, 256), (16, 16), [(16, 16), (8, 8), (4, 4)]),
    ],
)
def test_sizes(
    padding: Padding,
    size: tuple[int, int],
    latents: tuple[int, int],
    patches: list[tuple[int, int]],
) -> None:
    layers = Layers("channel", padding)
    x = torch.rand(1, 3, *size)
    with torch.no_grad():
        w = Encoder(8, 2, layers)(x)
        assert w.shape == (1, 8, *latents)
        assert Decoder(8, 2, 1, layers)(w).shape == x.shape
        judged = Discriminator(width=2, padding=padding)(x)
        selective = Encoder(8, 2, layers, halvings=3)(x)
        assert selective.shape == (1, 8, 2 * latents[0], 2 * latents[1])
        assert lift(8, 2, layers)(selective).shape == (1, 32, *latents)
    assert [tuple(one.scores.shape[2:]) for one in judged] == patches
    assert all(len(one.features) == 4 for one in judged)


def test_the_start_fills_the_centres() -> None:
    """Latents of natural ranges have a standard deviation of about 1 at the published width / 4."""
    torch.manual_seed(0)
    w = Encoder(8, 15, Layers("channel", "symmetric"))(2 * torch.rand(1, 3, 64, 64) - 1)
    assert 0.3 < float(w.detach().std()) < 1.5
    assert float(w.detach().min()) < -0.5 < 0.5 < float(w.detach().max())


def test_recomputed_blocks_give_the_same_bits() -> None:
    torch.manual_seed(0)
    decoder, z = Decoder(4, 2, 2, LAYERS), torch.randn(1, 4, 4, 4)
    gradients = []
    for recompute in (False, True):
        decoder.recompute = recompute
        decoder.zero_grad()
        decoder(z).square().mean().backward()
        gradients.append([p.grad.clone() for p in decoder.parameters()])  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_products_in_float64(norm: Norm, padding: Padding) -> None:
    """No convolution of torch is left, and values differ by the order of sums."""
    layers = Layers(norm, padding)
    encoder, decoder = Encoder(4, 2, layers), Decoder(4, 2, 1, layers)
    x = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        exact, found = encoder.double()(x), in_float64(encoder)(x)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-11)
        made, shown = decoder.double()(exact), in_float64(decoder)(exact)
        torch.testing.assert_close(shown, made, rtol=0, atol=1e-11)
    for network in (in_float64(encoder), in_float64(decoder)):
        assert not any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in network.modules())


class TestDiscriminator:
    def test_a_condition_counts_by_its_own_image(self) -> None:
        """Each image of a batch of real and generated ones has its own labels and latents."""
        torch.manual_seed(0)
        network = Discriminator(planes=2, width=2, latents=3, latent_features=2, norm="channel")
        x, fake = torch.rand(2, 2, 3, 64, 64)
        condition = Condition(torch.rand(2, 2, 64, 64), torch.randn(2, 3, 4, 4))
        both = network(torch.cat([x, fake]), condition.twice())
        for images, place in ((x, 0), (fake, 2)):
            for one in range(2):
                own = Condition(*(part[one : one + 1] for part in condition))  # type: ignore[index]
                alone = network(images[one : one + 1], own)
                for scale, judged in enumerate(alone):
                    found = both[scale].scores[place + one]
                    torch.testing.assert_close(found, judged.scores[0])

    def test_it_sees_labels_and_latents(self) -> None:
        network = Discriminator(planes=2, width=2, latents=3, latent_features=2)
        x, latents = torch.rand(1, 3, 64, 64), torch.randn(1, 3, 4, 4, requires_grad=True)
        first = network(x, Condition(torch.zeros(1, 2, 64, 64), latents))
        other = network(x, Condition(torch.ones(1, 2, 64, 64), latents))
        third = network(x, Condition(torch.zeros(1, 2, 64, 64), -latents))
        for k in range(3):
            assert (first[k].scores != other[k].scores).any()
            assert (first[k].scores != third[k].scores).any()
        sum(one.scores.sum() for one in first).backward()  # type: ignore[union-attr]
        assert latents.grad is None

    def test_planes_stay_whole_at_every_scale(self) -> None:
        """They are taken by nearest neighbour, so they still sum to 1."""
        network = Discriminator(planes=2, width=2)
        x = torch.rand(1, 3, 64, 80)
        first = (torch.rand(1, 1, 64, 80) < 0.5).float()
        found = network.conditions(Condition(torch.cat([first, 1 - first], 1)), x)
        for k, extra in enumerate(found):
            assert extra is not None and extra.shape[2:] == network.pyramid(x)[k].shape[2:]
            assert bool((extra.sum(1) == 1).all()) and set(extra.unique().tolist()) == {0, 1}

    def test_spectral_norms_are_1(self) -> None:
        torch.manual_seed(0)
        network = Discriminator(width=4, norm="none", spectral=True)
        for _ in range(50):
            network(torch.rand(1, 3, 64, 64))
        weight = network.scales[0][1][0].weight  # type: ignore[index,union-attr]
        assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(
            1, abs=0.02
        )
        network.eval()
        state = {name: value.clone() for name, value in network.state_dict().items()}
        network(torch.rand(1, 3, 64, 64))
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    def test_the_smallest_image_has_a_patch(self) -> None:
        for scales in (1, 2, 3):
            side = least_side(scales)
            judged = Discriminator(width=1, scales=scales)(torch.rand(1, 3, side, side))
            assert judged[-1].scores.shape == (1, 1, 1, 1)
