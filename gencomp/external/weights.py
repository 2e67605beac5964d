"""Files of weights for modules that were not made here; they are read, and never executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gencomp.errors import InputError


def load_weights(module: nn.Module, path: Path, reference: str) -> None:
    """Load weights by the module's own `load_weights(path)`, or from a file's state dict.

    Args:
        module: the module, which is changed in place.
        path: a checkpoint of torch with the key `state_dict`, or a .safetensors file.
        reference: the name of the module in messages.

    Raises:
        InputError: the file cannot be read, holds more than tensors, or does not fit exactly.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path} of weights")
    if (own := getattr(module, "load_weights", None)) is not None:
        called(f"load_weights of {reference}, given {path},", own, path)
        return
    if path.suffix in (".npz", ".npy"):
        raise InputError(
            f"{path} holds NumPy arrays, which only a module with load_weights(path) can take, and"
            f" {reference} makes one without"
        )
    state = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a shape differs
        detail = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise InputError(f"{path} does not fit {reference}: {detail}") from None
    if missing or unexpected:
        parts = [("lacks", missing), ("has besides", unexpected)]
        said = " and ".join(f"{verb} {_some(names)}" for verb, names in parts if names)
        raise InputError(f"{path} does not fit {reference}: it {said}")


def called(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the user's code; whatever it raises becomes an `InputError` of one sentence."""
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} fails: {named(error)}") from error


def named(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None


def _checkpoint(path: Path) -> Mapping[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes raise UnpicklingError, EOFError, KeyError, ...
        if "weights_only" in str(error).lower() or "Unsupported global" in str(error):
            raise InputError(
                f"{path} holds Python objects beside tensors and numbers, which are not read from"
                " files: save {'state_dict': model.state_dict()} alone"
            ) from None
        raise InputError(f"{path} is not a checkpoint of torch: {named(error)}") from None
    state = found.get("state_dict") if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping):
        holds = _some(list(found)) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise InputError(f"{path} must be a dictionary with the key state_dict; it holds {holds}")
    if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise InputError(f"the state_dict of {path} must hold tensors alone, not {_some(other)}")
    return state


def _some(names: list[Any]) -> str:
    """The first three names, and how many more there are."""
    shown = ", ".join(map(str, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"
