"""Distortions d(x, f(z)): one object for the weights, the forces and the reported D.

A distortion has the three members of ``Distortion``. Chains are laid out [image, chain], and the
decoder sees them as rows [I·M, K]. Floating-point results of a decoder may differ in the last bits
with the number of rows in a call: bit-identical repetition asks for the same images in one object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from gencomp.errors import InputError


class Distortion(Protocol):
    """What the samplers need; z is [I, M, K] in the dtype and on the device of ``x_IN``."""

    @property
    def x_IN(self) -> Tensor: ...

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        """d_IM (float64) and its gradient [I, M, K] with respect to z."""
        ...

    def grad(self, z_IMK: Tensor) -> Tensor:
        """The gradient alone."""
        ...


class SquaredError:
    """d(x, f(z)) = Σ (x - f(z))², a sum over all values of the image.

    The decoder runs forward and backward in the dtype of the images (float32 is enough); the sum
    is float64. Each evaluation is one forward and one backward pass. On a GPU, switch TF32
    convolutions off: 10 mantissa bits are too few for β·d.

    Args:
        decode: maps [B, K] latents to means of any shape [B, ...] with as many values as an image.
            A module must be in evaluation mode.
        images: [I, ...], floating point, on the decoder's scale and device.

    Raises:
        InputError: images of the wrong type, or a decoder in training mode (batch statistics would
            make d depend on the other chains).
    """

    def __init__(self, decode: Callable[[Tensor], Tensor], images: Tensor) -> None:
        if not images.is_floating_point() or images.ndim < 2:
            raise InputError(
                f"images are {images.dtype} of shape {list(images.shape)}; a distortion needs "
                "floating-point images [I, ...] on the decoder's scale."
            )
        module = decode if isinstance(decode, nn.Module) else getattr(decode, "__self__", None)
        if isinstance(module, nn.Module) and module.training:
            raise InputError("the decoder is in training mode; call .eval() on it first.")
        self.decode = decode
        self.x_IN = images.detach().flatten(1)

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        z_leaf, mean_IMN = self._mean(z_IMK)
        residual_IMN = mean_IMN.detach() - self.x_IN[:, None]
        d_IM = residual_IMN.double().square().sum(-1)
        return d_IM, self._pull_back(z_leaf, mean_IMN, residual_IMN)

    def grad(self, z_IMK: Tensor) -> Tensor:
        z_leaf, mean_IMN = self._mean(z_IMK)
        return self._pull_back(z_leaf, mean_IMN, mean_IMN.detach() - self.x_IN[:, None])

    def _mean(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        images, chains, latent_dim = z_IMK.shape
        with torch.enable_grad():
            z_leaf = z_IMK.detach().reshape(images * chains, latent_dim).requires_grad_()
            mean = self.decode(z_leaf)
            if mean.shape[0] != images * chains or mean[0].numel() != self.x_IN.shape[1]:
                raise InputError(
                    f"the decoder gives {list(mean.shape)} for latents {list(z_leaf.shape)}; "
                    f"images of {self.x_IN.shape[1]} values need {images * chains} rows of as many."
                )
            return z_leaf, mean.reshape(images, chains, -1)

    @staticmethod
    def _pull_back(z_leaf: Tensor, mean_IMN: Tensor, residual_IMN: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(mean_IMN, z_leaf, residual_IMN)
        return grad.mul_(2).view(*residual_IMN.shape[:2], -1)
