"""Products in place of convolutions: torch's values in float64 but for the order of sums."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gencomp.networks import decoders, dplc, float64
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.float64 import in_float64
from gencomp.networks.gdn import Gdn

# For inputs and weights of size 1; sums of up to 1,000 terms came to 3e-15 at most.
BOUND = 1e-13


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def difference(network: nn.Module, *inputs: Tensor) -> float:
    """The largest difference between a network in float64 and its products, whose shapes agree."""
    products = in_float64(network)
    expected = copy.deepcopy(network).double().eval()(*inputs)
    found = products(*inputs)
    assert found.shape == expected.shape and found.dtype == torch.float64
    return float((found - expected).abs().max())


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with batch norms that are no identities."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                assert tensor is not None
                nn.init.normal_(tensor)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def is_product(layer: nn.Module) -> bool:
    return isinstance(layer, float64.Convolution | float64.TransposedConvolution)


LAYERS = [
    (nn.Conv2d(3, 16, 4, 2, 1, bias=False), 64),
    (nn.Conv2d(16, 32, 4, 2, 1, bias=False), 32),
    (nn.Conv2d(16, 16, 3, padding=1), 7),
    (nn.Conv2d(16, 3, 3, padding=1), 33),
    (nn.Conv2d(32, 2, 3, padding=1), 4),
    (nn.Conv2d(16, 8, 4), 4),
    (nn.Conv2d(3, 16, 5, 2, 2), 28),
    (nn.Conv2d(16, 32, 5, 2, 2), 7),
    (nn.Conv2d(3, 6, 7), 22),
    (nn.Conv2d(6, 12, 3, 2), 16),
    (nn.Conv2d(6, 12, 1, 3), 8),
    (nn.ConvTranspose2d(32, 64, 4, bias=False), 1),
    (nn.ConvTranspose2d(10, 32, 3, padding=1), 4),
    (nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), 9),
    (nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), 16),
    (nn.ConvTranspose2d(8, 16, 5, 2), 4),
    (nn.ConvTranspose2d(16, 27, 5), 25),
    (nn.ConvTranspose2d(32, 1, 4), 25),
    (nn.ConvTranspose2d(12, 6, 3, 2, padding=1, output_padding=1), 8),
    (nn.ConvTranspose2d(12, 6, 5, 3, padding=2, output_padding=(0, 2)), 6),
]


@pytest.mark.parametrize(("layer", "side"), LAYERS, ids=str)
def test_a_layer_is_torchs(layer: nn.Conv2d | nn.ConvTranspose2d, side: int) -> None:
    """The layers are of every kind that the methods have; images are wider than high."""
    x_BCHW = normal(3, layer.in_channels, side, side + (side > 4))
    assert is_product(in_float64(layer))
    assert difference(layer, x_BCHW) < BOUND
    assert difference(layer, x_BCHW.contiguous(memory_format=torch.channels_last)) < BOUND


def test_any_layer_is_torchs() -> None:
    """400 layers with taps, strides and padding drawn for each direction, down to one pixel."""
    draw, tried = random.Random(0), 0
    while tried < 400:
        taps, stride, padding, extra = (
            (draw.randint(*ends), draw.randint(*ends)) for ends in ((1, 5), (1, 3), (0, 3), (0, 2))
        )
        channels = [draw.choice([1, 3, 8, 40]) for _ in range(2)]
        bias, size = draw.random() < 0.5, (draw.randint(1, 9), draw.randint(1, 9))
        layer: nn.Module = nn.Conv2d(*channels, taps, stride, padding, bias=bias)
        if draw.random() < 0.5:
            layer = nn.ConvTranspose2d(*channels, taps, stride, padding, extra, bias=bias)
        x_BCHW = normal(draw.randint(1, 3), channels[0], *size)
        try:
            layer.double()(x_BCHW)
        except RuntimeError:  # no output at all, or more extra pixels than torch allows
            continue
        assert difference(layer, x_BCHW) < BOUND, (layer, x_BCHW.shape)
        tried += 1


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("first", [(-2, -1), (1, 2)])
def test_both_ways_give_the_same(stride: tuple[int, int], first: tuple[int, int]) -> None:
    """This holds where windows begin inside the image and end outside."""
    arguments = (normal(2, 9, 11, 6), normal(5, 3, 4, 6), normal(5), first, (7, 6), stride)
    patches, sums = float64._patches(*arguments), float64._shifted_sums(*arguments)
    assert patches.shape == sums.shape == (2, 5, 7, 6)
    assert (patches - sums).abs().max() < BOUND


@pytest.mark.parametrize("block", [1, 5000, 20000, 1 << 40])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of one image at a time, some rows, some images, and all at once."""
    monkeypatch.setattr(float64, "_BLOCK", block)
    chain = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    assert difference(chain, normal(5, 3, 13, 11)) < BOUND


class TestBatchNorms:
    def test_they_become_a_part_of_the_layer_before(self) -> None:
        chain = nn.Sequential(
            nn.Linear(6, 32),
            nn.BatchNorm1d(32),
            nn.LeakyReLU(),
            nn.Unflatten(1, (8, 2, 2)),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
            GlobalBatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.BatchNorm2d(4, affine=False),
        )
        with_statistics(chain[:2])
        with_statistics(chain[4:8])
        nn.init.normal_(chain[8].running_mean)
        folded = in_float64(chain)
        assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in folded.modules())
        assert difference(chain, normal(7, 6)) < BOUND

    def test_without_a_layer_before_they_stay(self) -> None:
        """The first one comes after an unflattening, which has no weights."""
        decoder = with_statistics(decoders.dcgan_decoder(5, width=4))
        norms = [m for m in in_float64(decoder).modules() if isinstance(m, nn.BatchNorm2d)]
        assert [norm.num_features for norm in norms] == [32]
        assert difference(decoder, normal(3, 5)) < BOUND

    def test_those_of_the_batch_stay(self) -> None:
        chain = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4)
        )
        assert isinstance(in_float64(chain)[1], nn.BatchNorm2d)  # type: ignore[index]
        assert difference(chain, normal(3, 3, 6, 6)) < BOUND


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ConvTranspose2d(4, 4, 2, 3),
    ],
    ids=str,
)
def test_other_layers_stay_torchs(layer: nn.Module) -> None:
    assert not is_product(in_float64(layer))
    assert difference(layer, normal(2, 4, 8, 8)) < BOUND


class TestNetworks:
    """Those of the codec, whose values are of size 1: deeper chains, and up to 4,608 terms."""

    @pytest.mark.parametrize("blocks", [0, 2])
    def test_they_are_torchs(self, blocks: int) -> None:
        noise = normal(5, 1, 4, 4)
        for network, inputs in (
            (dplc.CodeEncoder(8, 3), (normal(5, 3, 64, 64),)),
            (dplc.LatentMapper(8, 10, 3, blocks, latent_scale=3), (normal(5, 3, 4, 4), noise)),
            (dplc.LatentMapper(8, 10, 3, blocks, stochastic=False), (normal(5, 3, 4, 4),)),
            (dplc.Generator(8, 10, blocks), (normal(5, 10, 1, 1),)),
        ):
            assert difference(with_statistics(network), *inputs) < 10 * BOUND

    def test_the_published_widths(self) -> None:
        for network, inputs in (
            (dplc.CodeEncoder(), (normal(2, 3, 64, 64),)),
            (dplc.LatentMapper(), (normal(2, 8, 4, 4), normal(2, 8, 4, 4))),
            (dplc.Generator(), (normal(2, 128, 1, 1),)),
        ):
            assert difference(network, *inputs) < 10 * BOUND

    def test_an_image_does_not_depend_on_the_others(self) -> None:
        network = in_float64(with_statistics(dplc.Generator(8, 10)))
        z_BM11 = normal(9, 10, 1, 1)
        together = network(z_BM11)
        for at in range(9):
            assert (network(z_BM11[at : at + 1]) - together[at]).abs().max() < BOUND

    def test_threads_do_not_matter(self) -> None:
        network, z_BM11 = in_float64(dplc.Generator(8, 10)), normal(9, 10, 1, 1)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = network(z_BM11)
            torch.set_num_threads(2)
            assert (network(z_BM11) - one).abs().max() < BOUND
        finally:
            torch.set_num_threads(threads)

    def test_the_original_is_left_alone(self) -> None:
        network = dplc.Generator(4, 8).train()
        before = copy.deepcopy(network.state_dict())
        in_float64(network)
        assert network.training and all(p.requires_grad for p in network.parameters())
        assert list(before) == list(network.state_dict())
        for name, tensor in network.state_dict().items():
            assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


@pytest.mark.parametrize("inverse", [False, True])
def test_normalisations_are_those_of_the_layer(
    inverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Gdn(5, inverse)
    nn.init.uniform_(layer.gamma_root_CC)
    x_BCHW = normal(2, 5, 7, 3)
    before_BCHW = x_BCHW.clone()
    for block in (1 << 19, 200, 1):
        monkeypatch.setattr(float64, "_BLOCK", block)
        assert difference(layer, x_BCHW) < BOUND
    assert x_BCHW.equal(before_BCHW)
