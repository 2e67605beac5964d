"""Tensors in one safetensors file, which is whole or does not exist and holds a hash over them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import torch
import xxhash
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from cluster.files import write_bytes
from gencomp.errors import InputError

_HEADER, _CONTENT = "gencomp", "content"
# The types in the order in which the library lays tensors out: wider ones first, for alignment.
_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replace a file in one step.

    Args:
        path: the file, whose directory is made if need be.
        tensors: the tensors, on the CPU.
        metadata: the description of the tensors, under any names but `content`.
    """
    packed = {name: tensor.contiguous() for name, tensor in tensors.items()}
    said = {**metadata, _CONTENT: _content_hash(packed)}
    # All metadata are one entry, because the library writes several in a random order.
    write_bytes(path, to_bytes(packed, {_HEADER: json.dumps(said, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata in a file.

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


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file in pieces; together they are what the library's `save` gives.

    The library copies all tensors at once. Here only one tensor at a time is copied, and only if it
    is not contiguous.

    Args:
        tensors: the tensors, on the CPU.
    """
    names = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype], name.encode()))
    header, end = {}, 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield _bytes_of(tensors[name])


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash over the names, types, shapes and values of some tensors on the CPU."""
    hasher = xxhash.xxh3_128()
    for piece in pieces(tensors):
        hasher.update(piece)
    return hasher.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The values of a tensor in row-major order."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
