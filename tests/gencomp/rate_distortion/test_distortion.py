from __future__ import annotations

import pytest
import torch
from torch import nn

from gencomp.errors import InputError
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.units import nats_to_bpp


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 12), nn.Unflatten(1, (3, 2, 2)))


def test_value_and_gradient_by_autograd():
    decode = mlp().double().eval()
    x, z = torch.rand(2, 3, 2, 2).double(), torch.randn(2, 5, 4).double()
    d, grad = SquaredError(decode, x).value_and_grad(z)
    z.requires_grad_()
    expected = (decode(z.flatten(0, 1)).view(2, 5, -1) - x.view(2, 1, -1)).square().sum(-1)
    (expected_grad,) = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(d, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(SquaredError(decode, x).grad(z), grad, rtol=0, atol=0)


def test_works_where_gradients_are_switched_off_and_leaves_none():
    decode = mlp().eval()
    with torch.no_grad():
        d, grad = SquaredError(decode, torch.rand(2, 12)).value_and_grad(torch.randn(2, 5, 4))
    assert d.dtype == torch.float64 and grad.dtype == torch.float32
    assert not d.requires_grad and not grad.requires_grad
    assert all(p.grad is None for p in decode.parameters())


def test_sum_is_float64():
    x = torch.full((1, 1_000_001), 1e-4)
    x[0, 0] = 1e3
    d, _ = SquaredError(lambda z: z[:, :1] * torch.zeros(x.shape[1]), x).value_and_grad(
        torch.zeros(1, 1, 2)
    )
    assert d.item() == pytest.approx(1e6 + 0.01, abs=1e-6)  # float32 would stop at 1e6


def test_bad_input():
    with pytest.raises(InputError, match="uint8"):
        SquaredError(mlp().eval(), torch.zeros(2, 12, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"\.eval\(\)"):
        SquaredError(mlp().train(), torch.zeros(2, 12))
    with pytest.raises(InputError, match="images of 13 values"):
        SquaredError(mlp().eval(), torch.zeros(2, 13)).grad(torch.zeros(2, 5, 4))


def test_nats_to_bpp():
    assert nats_to_bpp(64 * 64 * 0.6931471805599453, 64 * 64) == pytest.approx(1.0)
    assert nats_to_bpp(torch.tensor([0.0, 6.931471805599453]), 10).tolist() == pytest.approx([0, 1])
