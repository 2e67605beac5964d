"""Tensors in one safetensors file that is whole or not there, with a hash over all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import xxhash
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from cluster.files import write_bytes
from gencomp.errors import InputError

_HEADER, _CONTENT = "gencomp", "content"


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace a file in one step.

    Args:
        path: its directory is made if need be.
        tensors: on the CPU.
        metadata: what they are; any names but `content`.
    """
    packed = {name: tensor.contiguous() for name, tensor in tensors.items()}
    said = {**metadata, _CONTENT: _content_hash(packed)}
    # One entry: the library writes several in an order of its own, another one each time.
    write_bytes(path, to_bytes(packed, {_HEADER: json.dumps(said, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What was written.

    Raises:
        InputError: the file cannot be read, or its tensors are not those that were written.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata: dict[str, str] = json.loads((file.metadata() or {})[_HEADER])
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    if metadata.pop(_CONTENT, "") != _content_hash(tensors):
        raise InputError(f"{path} is damaged: its content does not match its hash")
    return tensors, metadata


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
