"""The maps from images of 8 bits to the values that networks see, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencomp.errors import InputError


def to_signed(images_BCHW: Tensor) -> Tensor:
    """Map uint8 images, or dithered floats in [0, 1), to floats in [−1, 1]."""
    if images_BCHW.is_floating_point():
        return images_BCHW * 2 - 1
    return images_BCHW.to(torch.get_default_dtype()) / 127.5 - 1


def to_bytes(x_BCHW: Tensor) -> Tensor:
    """Map values in [−1, 1] to uint8 with rounding."""
    return _rounded((x_BCHW + 1) * 127.5)


@dataclass(frozen=True)
class Pixels:
    """The format of the images of a recipe with `networks.channels` and `networks.image_size`.

    Attributes:
        channels: 3, or 1 for grey images, of whose three equal channels one is used.
        height, width: the size of the images in pixels.
        signed: whether the scale is [−1, 1] or else [0, 1].
    """

    channels: int
    height: int
    width: int
    signed: bool

    @property
    def values(self) -> int:
        """The number n of values of an image."""
        return self.channels * self.height * self.width

    @property
    def range(self) -> float:
        """The largest difference of two values."""
        return 2.0 if self.signed else 1.0

    def require(self, images_BCHW: Tensor) -> None:
        """Require that images have this format, colours included; `to_values` checks the size only.

        Raises:
            InputError: the images have another size, or are in colour where grey ones are modelled.
        """
        self.require_size(images_BCHW)
        if self.channels == 1 and not (images_BCHW == images_BCHW[:, :1]).all():
            raise InputError(
                "networks.channels is 1, but there are images in colour: give grey ones (three"
                " equal channels), or set networks.channels to 3"
            )

    def to_values(self, images_BCHW: Tensor) -> Tensor:
        """Map uint8 images [B, 3, H, W], or dithered floats in [0, 1), to values [B, n].

        Raises:
            InputError: the images have another size.
        """
        self.require_size(images_BCHW)
        x_BN = images_BCHW[:, : self.channels].flatten(1)
        if self.signed:
            return to_signed(x_BN)
        return x_BN if x_BN.is_floating_point() else x_BN.to(torch.get_default_dtype()) / 255

    def to_images(self, x_BN: Tensor) -> Tensor:
        """Map values [B, n] to uint8 images [B, 3, H, W] with rounding."""
        bytes_BN = to_bytes(x_BN) if self.signed else _rounded(x_BN * 255)
        images_BCHW = bytes_BN.unflatten(1, (self.channels, self.height, self.width))
        return images_BCHW.expand(-1, 3, -1, -1)

    def require_size(self, images_BCHW: Tensor) -> None:
        """Require that images have the height and width of this format.

        Raises:
            InputError: the images have another size.
        """
        if images_BCHW.shape[2:] != (self.height, self.width):
            found = list(images_BCHW.shape[2:])
            raise InputError(
                f"networks.image_size is {[self.height, self.width]}, but images are {found}: set"
                " one to the other, or data.transforms.resize and evaluation.transforms.resize"
            )


def _rounded(values: Tensor) -> Tensor:
    """Round values on 0..255 to uint8."""
    return values.round().clamp(0, 255).to(torch.uint8)
