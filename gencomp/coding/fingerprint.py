"""Fingerprints: short names of weights, by which a codec recognises the streams it can read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def fingerprint(heading: str, networks: nn.ModuleDict, size: int) -> bytes:
    """A hash of networks and of everything else that decides what a codec does.

    Args:
        heading: the codec's id and its settings, such as quantizer levels, as text.
        networks: the networks whose weights and buffers are hashed with names, shapes and types.
        size: the number of bytes of the hash.
    """
    return of_tensors(heading, networks.state_dict(), size)


def of_tensors(heading: str, tensors: Mapping[str, Tensor], size: int) -> bytes:
    """A hash of a text and of tensors, with their names, shapes and types; see `fingerprint`."""
    digest = hashlib.blake2b(heading.encode(), digest_size=size)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.digest()
