"""Fingerprints: short names of weights, by which a codec recognises the streams it can read."""

from __future__ import annotations

import hashlib

from torch import nn


def fingerprint(heading: str, networks: nn.ModuleDict, size: int) -> bytes:
    """A hash of networks and of everything else that decides what a codec does.

    Args:
        heading: the codec's id and its settings, such as quantizer levels, as text.
        networks: the networks whose weights and buffers are hashed with names, shapes and types.
        size: the number of bytes of the hash.
    """
    digest = hashlib.blake2b(heading.encode(), digest_size=size)
    for name, tensor in sorted(networks.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
