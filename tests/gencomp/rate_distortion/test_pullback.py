from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.rate_distortion import pullback

ACTIVATIONS = st.sampled_from(
    [
        nn.Tanh,
        nn.Sigmoid,
        nn.ReLU,
        lambda: nn.LeakyReLU(0.2),
        lambda: nn.LeakyReLU(0.0),
        nn.Identity,
    ]
)


@st.composite
def plain_stacks(draw: st.DrawFn) -> tuple[nn.Sequential, int]:
    """A chain of linear and pointwise layers, flat or nested, and its number of inputs."""
    torch.manual_seed(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        block: list[nn.Module] = [nn.Linear(inputs, outputs, bias=draw(st.booleans()))]
        block += [activation() for activation in draw(st.lists(ACTIVATIONS, max_size=2))]
        layers += [nn.Sequential(*block)] if draw(st.booleans()) else block
    return nn.Sequential(*layers).eval(), sizes[0]


def by_autograd(module: nn.Module) -> pullback.Linearised:
    return pullback.linearised(lambda z: module(z))  # hides what the module is made of


def is_by_hand(module: nn.Module, z: Tensor) -> bool:
    called: list[Tensor] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: called.append(z))
    try:
        pullback.linearised(module)(z)
    finally:
        handle.remove()
    return not called


@settings(max_examples=60, deadline=None)
@given(plain_stacks(), st.integers(1, 5), st.sampled_from([torch.float32, torch.float64]))
def test_plain_stacks_agree_with_autograd(stack_and_inputs, rows, dtype):
    stack, inputs = stack_and_inputs
    stack = stack.to(dtype)
    z = torch.randn(rows, inputs, dtype=dtype)
    assert is_by_hand(stack, z)
    value, pull = pullback.linearised(stack)(z)
    expected, expected_pull = by_autograd(stack)(z)
    g = torch.randn_like(value)
    rtol, atol = (1e-11, 1e-13) if dtype == torch.float64 else (1e-4, 1e-5)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(pull(g), expected_pull(g), rtol=rtol, atol=atol)
    assert not value.requires_grad and all(p.grad is None for p in stack.parameters())


def test_deep_decoder_agrees_with_autograd_to_float_precision():
    torch.manual_seed(0)
    deep = nn.Sequential(
        *(nn.Linear(10, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh()),
        *(nn.Linear(300, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))),
    ).eval()
    z, g = torch.randn(64, 10), torch.randn(64, 784)
    exact = pullback.linearised(nn.Sequential(*deep).double())(z.double())[1](g.double())
    deep = deep.float()
    assert is_by_hand(deep, z)
    for function in (pullback.linearised(deep), by_autograd(deep[:-1])):
        error = function(z)[1](g) - exact
        assert error.norm() < 1e-6 * exact.norm()


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 4), nn.GELU()),
        nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(-0.5)),  # not to be undone from its output
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2)), nn.Linear(2, 2), nn.Flatten()),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Tanh()),
        nn.Sequential(type("Affine", (nn.Linear,), {"forward": lambda s, z: z @ s.weight.T})(3, 4)),
    ],
)
def test_all_else_goes_through_autograd(module):
    module = module.double().eval()
    z = torch.randn(5, 3, dtype=torch.float64)
    assert not is_by_hand(module, z)
    value, pull = pullback.linearised(module)(z)
    torch.testing.assert_close(value, module(z).detach())
    g = torch.randn_like(value)
    z.requires_grad_()
    torch.testing.assert_close(pull(g), torch.autograd.grad(module(z), z, g)[0])


def test_a_hook_is_not_passed_over():
    stack = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()
    stack[0].register_forward_hook(lambda _, __, value: 2 * value)
    z = torch.randn(5, 3)
    torch.testing.assert_close(pullback.linearised(stack)(z)[0], stack(z).detach())


def test_weights_are_read_once():
    stack = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()
    function, z = pullback.linearised(stack), torch.randn(5, 3)
    before = function(z)
    nn.init.zeros_(stack[0].weight)
    after = function(z)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    torch.testing.assert_close(after[1](after[0]), before[1](before[0]), rtol=0, atol=0)


def test_composition_is_the_chain_rule():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(3, 6), nn.Tanh()).double()
    outer = nn.Sequential(nn.Linear(6, 4), nn.GELU()).double()
    scale = torch.rand(4).double()
    function = pullback.composed(
        pullback.scaled(scale),
        pullback.composed(pullback.linearised(outer), pullback.linearised(inner)),
    )
    z = torch.randn(5, 3).double()
    value, pull = function(z)
    expected, expected_pull = pullback.linearised(lambda z: scale * outer(inner(z)))(z)
    torch.testing.assert_close(value, expected)
    g = torch.randn(5, 4).double()
    torch.testing.assert_close(pull(g), expected_pull(g))


def test_wrong_number_of_values_or_rows():
    function = pullback.flattened(pullback.linearised(nn.Linear(3, 4)), 5, "the decoder")
    with pytest.raises(InputError, match=r"the decoder gives \[2, 4\].* 2 rows of 5 values"):
        function(torch.randn(2, 3))
    function = pullback.flattened(pullback.linearised(lambda z: z[:1]), 3, "the decoder")
    with pytest.raises(InputError, match="2 rows of 3 values"):
        function(torch.randn(2, 3))
