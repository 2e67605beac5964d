"""Networks that a run has trained, for files by which the images of other runs are judged."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def for_file(network: Network) -> Network:
    """A copy of a network for a file: in float32 on the CPU, with contiguous weights."""
    copied = copy.deepcopy(network).to(torch.device("cpu"), torch.float32)
    # The files of runs hold contiguous weights, so those of networks do too.
    for parameter in copied.parameters():
        parameter.data = parameter.data.contiguous()
    return copied
