"""The names of metrics and of the keys of a sweep's space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {"mmd_weight": "λ", "perception_weight": "λ", "code_channels": "channels"}
_METRICS = {"mse": "MSE", "rmse": "RMSE", "mmd": "MMD", "psnr": "PSNR"}


def metric_name(name: str) -> str:
    """The name of a metric, such as `MSE` for `mse`."""
    return _METRICS.get(name, name.replace("_", " "))


def key_name(key: str) -> str:
    """The name of a key, such as `channels` for `networks.code_channels`, or `some key`."""
    last = key.rsplit(".", 1)[-1]
    return _NAMES.get(last, last.replace("_", " "))


def value_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def value_of(key: str, value: Any) -> str:
    """A value with the name of its key, such as `8 channels`, `1 channel` or `λ 3`."""
    name, text = key_name(key), value_text(value)
    if name == "channels":
        return f"{text} {name if value != 1 else 'channel'}"
    return f"{name} {text}"


def point_label(point: Mapping[str, Any], first: str | None = None) -> str:
    """A trial in words with the key `first` in front, such as `8 channels, λ 3`."""
    keys = sorted(point, key=lambda key: key != first)
    return ", ".join(value_of(key, point[key]) for key in keys)
