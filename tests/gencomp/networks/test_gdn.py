"""GDN: published values at its start, its gradients, and its lower bounds."""

from __future__ import annotations

import pytest
import torch

from gencomp.networks.gdn import Gdn


def test_published_values_at_the_start() -> None:
    x_BCHW = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    y = Gdn(2)(x_BCHW).flatten().tolist()
    assert y == pytest.approx([0.953463, -1.690309], abs=1e-6)
    z = Gdn(2, inverse=True)(x_BCHW).flatten().tolist()
    assert z == pytest.approx([1 * 1.1**0.5, -2 * 1.4**0.5], abs=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_definition(inverse: bool) -> None:
    torch.manual_seed(0)
    layer = Gdn(4, inverse).double()
    with torch.no_grad():
        layer.gamma_root_CC.uniform_(0.1, 0.9)
        layer.beta_root_C.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    powers = layer.beta_C[:, None, None] + torch.einsum("cd,bdhw->bchw", layer.gamma_CC, x**2)
    expected = x * powers.sqrt() if inverse else x / powers.sqrt()
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_inside_the_bounds(inverse: bool) -> None:
    torch.manual_seed(0)
    layer = Gdn(3, inverse).double()
    with torch.no_grad():
        layer.gamma_root_CC.uniform_(0.1, 0.9)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, beta: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        parameters = {"beta_root_C": beta, "gamma_root_CC": gamma}
        return torch.func.functional_call(layer, parameters, (x,))

    inputs = (x, layer.beta_root_C, layer.gamma_root_CC)
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize(("pull", "passed"), [(1.0, False), (-1.0, True)])
def test_a_gradient_at_a_bound_passes_only_inwards(pull: float, passed: bool) -> None:
    """A step goes against the gradient, so that of −γ leads back inside."""
    layer = Gdn(2)
    with torch.no_grad():
        layer.gamma_root_CC.fill_(-0.3)  # beyond the bound, where γ is 0
        layer.beta_root_C.fill_(1e-5)
    assert torch.equal(layer.gamma_CC, torch.zeros(2, 2))
    torch.testing.assert_close(layer.beta_C, torch.full((2,), 1e-6))
    (pull * (layer.gamma_CC.sum() + layer.beta_C.sum())).backward()
    for parameter in (layer.gamma_root_CC, layer.beta_root_C):
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).all()) == passed


def test_a_start_stays_finite_where_all_inputs_are_0() -> None:
    layer = Gdn(2)
    x_BCHW = torch.zeros(1, 2, 3, 3, requires_grad=True)
    layer(x_BCHW).sum().backward()
    assert x_BCHW.grad is not None and torch.isfinite(x_BCHW.grad).all()
