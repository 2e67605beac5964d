"""Functions f(z) with their pull-back, the map from gradients at f(z) to gradients at z.

The pull-back of a chain of linear and pointwise layers is computed by hand, with the products and
pointwise derivatives that autograd would run, but without a graph. Every other function goes
through autograd.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp import float32_products
from gencomp.errors import InputError

Pullback = Callable[[Tensor], Tensor]
# Maps rows [B, ...] to their f [B, ...] and to the pull-back at f, which may be called once.
Linearised = Callable[[Tensor], tuple[Tensor, Pullback]]

Forces = Literal["float32", "tf32", "bfloat16"]
FORCES: tuple[Forces, ...] = get_args(Forces)

aten = torch.ops.aten


class _Pointwise(NamedTuple):
    """A pointwise function; its pull-back maps g and the output to g times the derivative."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


class _Affine:
    """The function W h + b; its ``backward`` has the arguments of that of ``_Pointwise``."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype | None) -> None:
        self._dtype = dtype
        self._weight_OH = layer.weight.detach().to(dtype=dtype, copy=True)
        self._weight_HO = self._weight_OH.T.contiguous()
        self._bias_O = (
            None if layer.bias is None else layer.bias.detach().to(dtype=dtype, copy=True)
        )

    def forward(self, h_BH: Tensor) -> Tensor:
        return _product(h_BH.to(self._dtype or h_BH.dtype), self._weight_OH, self._bias_O)

    def backward(self, g_BO: Tensor, _: Tensor) -> Tensor:
        return _product(g_BO, self._weight_HO, None)


Layer = _Affine | _Pointwise


def linearised(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None
) -> Linearised:
    """A function of rows with its pull-back.

    Args:
        function: maps rows [B, ...] to rows. An ``nn.Sequential`` of ``Linear``, ``Tanh``,
            ``Sigmoid``, ``ReLU``, ``LeakyReLU`` and ``Identity`` (nested ones too; a last
            ``Flatten`` or ``Unflatten`` is ignored) is pulled back by hand, with its present
            weights.
        dtype: bfloat16 for products in that precision; gradients come back in the dtype of the
            rows. Where the pull-back is by hand, the first layer keeps its precision, since the
            rounding of z would outweigh all other rounding.
    """
    layers = _plain_layers(function, dtype) if isinstance(function, nn.Module) else None
    return _by_autograd(function, dtype) if layers is None else _by_hand(layers)


def composed(outer: Linearised, inner: Linearised) -> Linearised:
    """The function outer(inner(z))."""

    def forward(z: Tensor) -> tuple[Tensor, Pullback]:
        middle, pull_inner = inner(z)
        value, pull_outer = outer(middle)
        return value, lambda g: pull_inner(pull_outer(g))

    return forward


def scaled(scale_N: Tensor) -> Linearised:
    """The function that multiplies each value of z by its own scale."""
    return lambda z: (z * scale_N, lambda g: g * scale_N)


def flattened(function: Linearised, values: int, what: str) -> Linearised:
    """The same function, with its output flattened to [B, values].

    Raises:
        InputError: a call gives another number of rows or of values.
    """

    def forward(z: Tensor) -> tuple[Tensor, Pullback]:
        value, pull = function(z)
        if len(value) != len(z) or value[0].numel() != values:
            raise InputError(
                f"{what} gives {list(value.shape)} for rows {list(z.shape)}; it must give "
                f"{len(z)} rows of {values} values."
            )
        return value.flatten(1), lambda g: pull(g.view(value.shape))

    return forward


@contextmanager
def products(precision: Forces, device: torch.device) -> Iterator[None]:
    """Compute float32 products and convolutions in float32 or TF32, whatever torch is set to do.

    On a GPU torch lets convolutions use TF32 by default, and its 10 mantissa bits are too few for
    β·d.
    """
    there = float32_products.switches(device.type)
    before = [switch.fp32_precision for switch in there]
    try:
        float32_products.set_precision("tf32" if precision == "tf32" else "ieee", device.type)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, value in zip(there, before, strict=True):
            switch.fp32_precision = value


def _by_autograd(function: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> Linearised:
    def autocast(z: Tensor) -> AbstractContextManager[None]:
        return torch.autocast(z.device.type, dtype=dtype, enabled=dtype is not None)

    def forward(z: Tensor) -> tuple[Tensor, Pullback]:
        with torch.enable_grad(), autocast(z):
            leaf = z.detach().requires_grad_()
            value = function(leaf)

        def pull(g: Tensor) -> Tensor:
            (grad,) = torch.autograd.grad(value, leaf, g.to(value.dtype))
            return grad

        return value.detach(), pull

    return forward


def _by_hand(layers: list[Layer]) -> Linearised:
    def forward(z: Tensor) -> tuple[Tensor, Pullback]:
        value = z
        with torch.no_grad():
            outputs = [value := layer.forward(value) for layer in layers]

        def pull(g: Tensor) -> Tensor:
            with torch.no_grad():
                for layer, output in zip(reversed(layers), reversed(outputs), strict=True):
                    g = layer.backward(g.to(output.dtype), output)
            return g

        return value, pull

    return forward


def _plain_layers(module: nn.Module, dtype: torch.dtype | None) -> list[Layer] | None:
    """The layers of a chain that can be pulled back by hand, or None."""
    modules = list(_chain(module))
    # A last Flatten or Unflatten only changes the shape of rows, which ``flattened`` undoes.
    if modules and type(modules[-1]) in (nn.Flatten, nn.Unflatten):
        modules.pop()
    modules = [one for one in modules if type(one) is not nn.Identity]
    layers = [_layer(one, dtype if i else None) for i, one in enumerate(modules)]
    known = [layer for layer in layers if layer is not None]
    return known if known and len(known) == len(layers) else None


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential and not _has_hooks(module):
        for child in module:
            yield from _chain(child)
    else:
        yield module


def _layer(module: nn.Module, dtype: torch.dtype | None) -> Layer | None:
    """The layer of a module whose exact type is known, since a subclass may compute otherwise."""
    if _has_hooks(module):
        return None
    if type(module) is nn.Linear:
        return _Affine(module, dtype)
    if type(module) is nn.LeakyReLU and module.negative_slope >= 0:
        slope = module.negative_slope
        return _Pointwise(
            functools.partial(F.leaky_relu, negative_slope=slope),
            lambda g, y: aten.leaky_relu_backward(g, y, slope, True),
        )
    return _POINTWISE.get(type(module))


_POINTWISE: dict[type[nn.Module], _Pointwise] = {
    nn.Tanh: _Pointwise(torch.tanh, aten.tanh_backward),
    nn.Sigmoid: _Pointwise(torch.sigmoid, aten.sigmoid_backward),
    nn.ReLU: _Pointwise(torch.relu, lambda g, y: aten.threshold_backward(g, y, 0)),
}


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _product(h_BH: Tensor, weight_OH: Tensor, bias_O: Tensor | None) -> Tensor:
    """The product h Wᵀ + b."""
    if _ONEDNN and h_BH.dtype == torch.float32 and h_BH.device.type == "cpu":
        # By default torch uses MKL for float32 matrices, which is half as fast on AMD processors.
        return torch.ops.mkldnn._linear_pointwise(h_BH, weight_OH, bias_O, "none", [], "")
    return F.linear(h_BH, weight_OH, bias_O)


_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
