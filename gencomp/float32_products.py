"""How float32 products and convolutions are computed: exactly, or by TF32 with 10 mantissa bits.

On a GPU torch lets convolutions use TF32 by default. Only torch's newer switches are used, here and
everywhere: after a mixture with the older ones, `allow_tf32`, torch refuses to say what holds.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

Precision = Literal["ieee", "tf32"]


def switches(device_type: str) -> tuple[Any, ...]:
    """The objects of torch whose `fp32_precision` decides, on GPUs (`cuda`) or on CPUs."""
    if device_type == "cuda":
        cudnn: Any = torch.backends.cudnn
        return torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.matmul, mkldnn.conv, mkldnn.rnn


def set_precision(precision: Precision, device_type: str = "cuda") -> None:
    """Compute float32 products and convolutions so from now on, in the whole process."""
    for switch in switches(device_type):
        switch.fp32_precision = precision
