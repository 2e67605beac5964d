"""The networks' published sizes, shapes and numbers of parameters, and the rule they grow by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gencomp.networks import urdp
from gencomp.networks.batch_norm import GlobalBatchNorm1d


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def buffers(network: nn.Module) -> int:
    return sum(b.numel() for b in network.buffers())


@pytest.mark.parametrize(
    ("side", "channels", "latents", "encoder", "decoder", "critic"),
    [
        (28, 1, 3, 585_097, 326_465, 1_030_145),
        (28, 1, 4, 585_228, 326_593, 1_030_145),
        (28, 1, 6, 585_490, 326_849, 1_030_145),
        (28, 1, 8, 585_752, 327_105, 1_030_145),
        (32, 3, 10, 1_070_218, 645_383, 1_033_345),
        (32, 3, 20, 1_111_188, 646_663, 1_033_345),
    ],
)
def test_published_counts(side, channels, latents, encoder, decoder, critic):
    assert parameters(urdp.encoder(side, channels, latents)) == encoder
    assert parameters(urdp.decoder(side, channels, latents)) == decoder
    assert parameters(urdp.critic(side, channels)) == critic


def test_published_buffers():
    assert buffers(urdp.encoder(28, 1, 3)) == 2_053 + 2 * 3
    assert buffers(urdp.decoder(28, 1, 3)) == 1_668
    assert buffers(urdp.decoder(32, 3, 10)) == 1_885
    for network in (urdp.encoder(32, 3, 10), urdp.critic(28, 1), urdp.critic(32, 3)):
        assert buffers(network) == 0


@pytest.mark.parametrize(
    ("side", "channels", "maps"),
    [
        (28, 1, [(32, 4), (64, 11), (128, 25), (1, 28)]),
        (32, 3, [(32, 4), (64, 11), (108, 25), (128, 29), (3, 32)]),
        (64, 3, [(32, 4), (64, 11), (108, 25), (128, 53), (128, 57), (128, 61), (3, 64)]),
    ],
)
def test_shapes(side, channels, maps):
    x_BCHW = torch.rand(2, channels, side, side)
    z_BK = urdp.encoder(side, channels, 5)(x_BCHW)
    assert z_BK.shape == (2, 5)
    assert z_BK.abs().max() < 1
    seen = []
    network = urdp.decoder(side, channels, 5)
    for layer in network:
        if isinstance(layer, nn.Unflatten | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _1, _2, out: seen.append(tuple(out.shape[1:])))
    images = network(z_BK)
    assert seen == [(count, height, height) for count, height in maps]
    assert images.shape == x_BCHW.shape
    assert ((images > 0) & (images < 1)).all()
    assert urdp.critic(side, channels)(x_BCHW).shape == (2, 1)


def test_maps_of_the_convolutions():
    def maps(network: nn.Sequential, side: int) -> list[tuple[int, ...]]:
        x, found = torch.rand(1, 3, side, side), []
        for layer in network:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                found.append(tuple(x.shape[1:]))
        return found

    published = [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert maps(urdp.encoder(32, 3, 10), 32) == maps(urdp.critic(32, 3), 32) == published
    grown = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert maps(urdp.encoder(64, 3, 10), 64) == maps(urdp.critic(64, 3), 64) == grown
    assert maps(urdp.critic(28, 3), 28) == [(64, 14, 14), (128, 7, 7), (256, 4, 4)]


def test_width_scales_the_encoder():
    narrow = [m for m in urdp.encoder(28, 1, 3, width=0.25) if isinstance(m, nn.Linear)]
    assert [m.out_features for m in narrow] == [128, 64, 32, 32, 3]
    convs = [m for m in urdp.encoder(32, 3, 10, width=0.5) if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [32, 64, 128]


def test_batch_norm_of_vectors_is_torch_s():
    ours, torchs = GlobalBatchNorm1d(7), nn.BatchNorm1d(7)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    x_BC = torch.randn(9, 7)
    for mode in (True, False):
        ours.train(mode), torchs.train(mode)
        torch.testing.assert_close(ours(x_BC), torchs(x_BC))
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
