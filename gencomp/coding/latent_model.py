"""A latent-variable model of one image as the coders of latents see it: Gaussians, layer by layer.

    ( z_1 ) ──▶ ( z_2 | z_1 ) ──▶ … ──▶ ( z_L | z_1 … z_L−1 ) ──▶ ( x | z_1 … z_L )

The sender knows the image, and so the posterior of each layer given the layers before it; sender
and receiver know the prior. The receiver must compute the sender's priors to the last bit, but its
processor may order the sums of a network otherwise. So the parameters of all Gaussians are rounded
to few bits: a difference of 1e-13 between two processors then changes a value about once in 1e9
values, and a checksum finds such a change.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

State = TypeVar("State")
Floats = npt.NDArray[np.float64]

_MEAN_BITS = 12
_MANTISSA_BITS = 12


class Gaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
        mean_D: their means, float64 [D].
        scale_D: their standard deviations, float64 [D], above 0.
    """

    mean_D: Floats
    scale_D: Floats


class Logistic(NamedTuple):
    """Independent discretised logistic distributions of the 256 levels of each value of an image.

    Attributes:
        mean_N: the means of the values of the image, float64 [H·W·3] in the order H, W, C, where
            level v covers the interval from v/256 − ½ to (v + 1)/256 − ½.
        scale: the scale of all of them, above 0.
    """

    mean_N: Floats
    scale: float


class LatentModel(Protocol[State]):
    """A model of one image at a time; a state is never changed, so it can be used again.

    Attributes:
        layers: the number L of layers.
    """

    layers: int

    def dimensions(self, height: int, width: int) -> tuple[int, ...]:
        """The number of latents of each layer, for an image of a size."""
        ...

    def start(self, height: int, width: int, image_HWC: np.ndarray | None = None) -> State:
        """The state before the first layer.

        Args:
            height, width: the size of the image in pixels.
            image_HWC: the uint8 image [H, W, 3]; None at a receiver that does not have it yet.
        """
        ...

    def prior(self, state: State) -> Gaussian:
        """The prior of the next layer, rounded."""
        ...

    def posterior(self, state: State) -> Gaussian:
        """The posterior of the next layer, rounded; the state must have started from an image."""
        ...

    def after(self, state: State, z_D: Floats) -> State:
        """The state after the next layer has the value z."""
        ...

    def likelihood(self, state: State) -> Logistic:
        """The distribution of the image after the last layer, for a model of lossless coding."""
        ...

    def shown(self, state: State) -> np.ndarray:
        """The uint8 image [H, W, 3] that the model shows after the last layer."""
        ...


def rounded(mean_D: Floats, scale_D: Floats) -> Gaussian:
    """A Gaussian with means of 12 bits after the point and scales of 12 significant bits.

    Only exact operations are used, so equal arguments give equal results on every processor.
    """
    mantissa_D, exponent_D = np.frexp(scale_D)
    return Gaussian(
        np.ldexp(np.rint(np.ldexp(mean_D, _MEAN_BITS)), -_MEAN_BITS),
        np.ldexp(np.rint(np.ldexp(mantissa_D, _MANTISSA_BITS)), exponent_D - _MANTISSA_BITS),
    )
