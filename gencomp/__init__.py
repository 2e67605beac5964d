"""Generative image compression: systems, losses, coding, rate-distortion, metrics, recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gencomp.model import Model

__version__ = "0.1.0"


def load(path: str | Path, writing: Mapping[str, Any] | None = None) -> Model:
    """A trained codec from a model file; see `gencomp.model.load`."""
    from gencomp import model  # torch is imported only where it is used

    return model.load(path, writing)
