"""Tensors that nobody will read are not filled."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLS = {
    *(getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and name[0] != "_"),
    *(
        getattr(torch.Tensor, name)
        for name in ("exponential_", "fill_", "normal_", "random_", "uniform_", "zero_")
    ),
}


class Unfilled(TorchFunctionMode):
    """While it is active, functions that fill a tensor with values leave it as it is.

    On the meta device there are no values, but a random fill there imports torch's compiler, which
    takes two seconds.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        keywords = kwargs or {}
        if function in _FILLS:
            return args[0] if args else keywords["tensor"]
        return function(*args, **keywords)
