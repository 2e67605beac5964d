"""A perceptual distance by a TorchScript network from a file, which training looks through.

Two kinds of networks are known. One of distances maps two batches of images on [−1, 1] to one
number for each pair, such as LPIPS. One of features maps images to a list of maps, such as the
layers of VGG; images are normalised by the mean and the standard deviation of ImageNet's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.evaluation.networks import checked_sha256, load
from gencomp.losses import at_least_float32

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class PerceptualDistance(nn.Module):
    """The distance of pairs of images, which must be loaded before it is used.

    Args:
        path: the TorchScript file.
        sha256: the file's hash, which must be that of the recipe.
        kind: what the network gives.
        layer_weights: the weight of each map of a network of features.
    """

    mean_C11: Tensor
    deviation_C11: Tensor

    def __init__(
        self,
        path: Path,
        sha256: str,
        kind: Literal["distances", "features"],
        layer_weights: Sequence[float],
    ) -> None:
        super().__init__()
        self._path, self._sha256 = path, sha256
        self._kind, self._weights = kind, tuple(layer_weights)
        self.network: nn.Module = nn.Identity()
        for name, values in (("mean_C11", _MEAN), ("deviation_C11", _DEVIATION)):
            values_C11 = torch.tensor(values)[:, None, None]
            self.register_buffer(name, values_C11, persistent=False)

    def load(self) -> None:
        """Load the network from its file, on the CPU.

        Raises:
            InputError: the file is missing, has another hash or is no TorchScript network.
        """
        checked_sha256(self._path, self._sha256, "loss.perceptual.path")
        self.network = load(self._path, torch.device("cpu"))

    def forward(self, x_BCHW: Tensor, x_hat_BCHW: Tensor) -> Tensor:
        """The distances of images and reconstructions on [−1, 1], [n]; the images get no gradient.

        Raises:
            InputError: the network gives something else than its kind.
        """
        x_BCHW, x_hat_BCHW = at_least_float32(x_BCHW.detach()), at_least_float32(x_hat_BCHW)
        if self._kind == "distances":
            found = self._answer(x_BCHW, x_hat_BCHW)
            if not isinstance(found, Tensor) or found.numel() != len(x_BCHW):
                raise InputError(
                    f"{self._path} must give one number for each pair of images, as a network of"
                    " distances does"
                )
            return at_least_float32(found).flatten()
        with torch.no_grad():
            targets = self._features(x_BCHW)
        made = self._features(x_hat_BCHW)
        return torch.stack(
            [
                weight * (at_least_float32(b) - at_least_float32(a)).abs().flatten(1).mean(1)
                for weight, a, b in zip(self._weights, targets, made, strict=True)
            ]
        ).sum(0)

    def _features(self, x_BCHW: Tensor) -> list[Tensor]:
        found = self._answer(((x_BCHW + 1) / 2 - self.mean_C11) / self.deviation_C11)
        maps = [found] if isinstance(found, Tensor) else list(found)
        if len(maps) != len(self._weights):
            raise InputError(
                f"{self._path} gives {len(maps)} maps, but loss.perceptual.layer_weights has"
                f" {len(self._weights)} weights"
            )
        return maps

    def _answer(self, *images: Tensor) -> Any:
        # The optimising executor profiles its first calls and then rounds differently, so a resumed
        # run would differ in the last bits.
        with torch.jit.optimized_execution(False):
            return self.network(*images)
