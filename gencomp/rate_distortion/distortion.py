"""Distortions d(x, f(z)), which give the weights, the forces and the reported D.

All distortions are squared distances d = c + h·|φ(f(z)) - φ(x)|² for some φ. Chains are laid out as
[image, chain], and the decoder gets them as rows [I·M, K]. The last bits of a decoder's results may
depend on the number of rows in a call, so only an object with the same images gives the same bits
again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.rate_distortion.pullback import (
    FORCES,
    Forces,
    Linearised,
    composed,
    flattened,
    linearised,
    products,
    scaled,
)

Decode = Callable[[Tensor], Tensor]


class Distortion(Protocol):
    """A distortion as the samplers use it; z is [I, M, K] in the dtype and device of ``x_IN``."""

    @property
    def name(self) -> str: ...

    @property
    def x_IN(self) -> Tensor: ...

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        """The distortions d_IM (float64) and their gradient [I, M, K] with respect to z."""
        ...

    def grad(self, z_IMK: Tensor, low_precision: bool = False) -> Tensor:
        """The gradient alone, or a deterministic approximation of it with ``low_precision``."""
        ...

    def of(self, x_IN: Tensor) -> Distortion:
        """The same distortion for other images."""
        ...

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        """Images [I, N] drawn from exp(-β d(x, f(z))), normalised over x.

        If z is a sample of the prior, it is then an exact sample of q_β(z|x). (Grosse et al.:
        Measuring the reliability of MCMC inference with bidirectional Monte Carlo, 2016.)

        Raises:
            InputError: this distortion belongs to no density of images that can be sampled.
        """
        ...


class _SquaredDistance:
    """The distortion d = c + h·|g(z) - y|² and its gradient, by the pull-back of g.

    Args:
        x_IN: the images.
        build: maps a type to g, which maps rows [B, K] to [B, D]. With None, g computes in the type
            of the images; otherwise its products are in the given type.
        y_ID: the targets y, one row for each image.
        forces: the precision of ``grad(z, low_precision=True)``.
        factor: the factor h.
        constant: the constant c.
    """

    def __init__(
        self,
        x_IN: Tensor,
        build: Callable[[torch.dtype | None], Linearised],
        y_ID: Tensor,
        forces: Forces,
        factor: float = 1.0,
        constant: float = 0.0,
    ) -> None:
        if forces not in FORCES:
            raise InputError(f"forces are {forces!r}; they can be {', '.join(FORCES)}.")
        self.x_IN, self.forces = x_IN, forces
        self._exact = build(None)
        self._rough = build(torch.bfloat16) if forces == "bfloat16" else self._exact
        self._y_I1D = y_ID[:, None]
        self._factor, self._constant = factor, constant

    def value_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        with products("float32", z_IMK.device):
            residual_IMD, gradient = self._residual(self._exact, z_IMK)
            d_IM = self._factor * residual_IMD.double().square().sum(-1) + self._constant
            return d_IM, gradient()

    def grad(self, z_IMK: Tensor, low_precision: bool = False) -> Tensor:
        with products(self.forces if low_precision else "float32", z_IMK.device):
            _, gradient = self._residual(self._rough if low_precision else self._exact, z_IMK)
            return gradient()

    def _residual(self, function: Linearised, z_IMK: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """The residual g(z) - y, and a function that computes the gradient of d."""
        value_BD, pull_back = function(z_IMK.detach().flatten(0, 1))
        residual_IMD = value_BD.view(*z_IMK.shape[:2], -1) - self._y_I1D

        def gradient() -> Tensor:
            return (2 * self._factor * pull_back(residual_IMD.flatten(0, 1))).view(z_IMK.shape)

        return residual_IMD, gradient


class SquaredError(_SquaredDistance):
    """The squared error d(x, f(z)) = Σ (x - f(z))², summed over all values of the image.

    Args:
        decode: maps latents [B, K] to means of any shape [B, ...] with as many values as an image.
            A module must be in evaluation mode. A chain of linear and pointwise layers is fastest
            (see ``pullback.linearised``); a module compiled by torch works too.
        images: the images [I, ...], floating point, on the decoder's scale and device.
        forces: the precision of ``grad(z, low_precision=True)``. Everything else is computed in the
            images' own dtype, never in TF32 or bfloat16, whatever torch is set to; sums are
            float64.

    Raises:
        InputError: the images have the wrong type, or the decoder is in training mode (batch
            statistics would make d depend on the other chains).
    """

    name = "squared_error"

    def __init__(self, decode: Decode, images: Tensor, forces: Forces = "float32") -> None:
        x_IN = _flatten(images)
        super().__init__(x_IN, _build_decoder(decode, x_IN), x_IN, forces)
        self.decode = decode

    def of(self, x_IN: Tensor) -> SquaredError:
        return SquaredError(self.decode, x_IN, self.forces)

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        """The images f(z) plus noise of variance 1/2β; see ``Distortion``."""
        return _simulate(self.decode, self.x_IN, z_IK, normals_IN, beta, torch.tensor(0.5))


class GaussianLikelihood(_SquaredDistance):
    """The likelihood d = -log N(x; f(z), s²) = ½ Σ [(x - f(z))²/s² + log s²] + (N/2) log 2π.

    Args:
        decode, images, forces: the same as in ``SquaredError``.
        log_variance: log s², as one element for all values or as [N].

    Raises:
        InputError: the arguments are wrong as in ``SquaredError``, or the log variance has another
            shape or is not finite.
    """

    name = "gaussian_likelihood"

    def __init__(
        self,
        decode: Decode,
        images: Tensor,
        log_variance: Tensor | float,
        forces: Forces = "float32",
    ) -> None:
        x_IN = _flatten(images)
        values = x_IN.shape[1]
        log_variance_N = torch.as_tensor(log_variance, dtype=torch.float64).detach().flatten()
        log_variance_N = log_variance_N.to(x_IN.device)
        if len(log_variance_N) not in (1, values) or not log_variance_N.isfinite().all():
            raise InputError(
                f"the log variance has {len(log_variance_N)} elements; images of "
                f"{values} values need one finite element or {values}."
            )
        scale_N = log_variance_N.mul(-0.5).exp().to(x_IN.dtype)
        decoder = _build_decoder(decode, x_IN)
        super().__init__(
            x_IN,
            lambda dtype: composed(scaled(scale_N), decoder(dtype)),
            x_IN * scale_N,
            forces,
            factor=0.5,
            constant=0.5 * values * (log_variance_N.mean().item() + math.log(2 * math.pi)),
        )
        self.decode, self.log_variance_N = decode, log_variance_N

    def of(self, x_IN: Tensor) -> GaussianLikelihood:
        return GaussianLikelihood(self.decode, x_IN, self.log_variance_N, self.forces)

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        """The images f(z) plus noise of variance s²/β; see ``Distortion``."""
        variance_N = self.log_variance_N.exp()
        return _simulate(self.decode, self.x_IN, z_IK, normals_IN, beta, variance_N)


class FeatureError(_SquaredDistance):
    """The squared distance d(x, f(z)) = |φ(x) - φ(f(z))|² of a network's features φ.

    Args:
        decode, forces: the same as in ``SquaredError``.
        images: the images [I, ...] in the shape that the network takes; f(z) is brought into it.
        network: a differentiable map from images [B, ...] on the decoder's scale to features
            [B, ...], in evaluation mode, such as a TorchScript file
            (``gencomp.evaluation.networks.load``).

    Raises:
        InputError: the arguments are wrong as in ``SquaredError``, or the features are not finite
            or not one row for each image.
    """

    name = "features"

    def __init__(
        self, decode: Decode, images: Tensor, network: Decode, forces: Forces = "float32"
    ) -> None:
        x_IN = _flatten(images)
        _check_mode(network, "the feature network")
        decoder = _build_decoder(decode, x_IN)

        def features(x_BN: Tensor) -> Tensor:
            # TorchScript's optimising executor profiles its first calls and then rounds
            # differently, so continued chains would differ in the last bits.
            with torch.jit.optimized_execution(False):
                return network(x_BN.view(-1, *images.shape[1:]))

        with torch.no_grad(), products("float32", x_IN.device):
            answer = features(x_IN)
        if answer.ndim < 2 or len(answer) != len(x_IN) or not answer.isfinite().all():
            raise InputError(
                f"the feature network gives {list(answer.shape)} for images {list(images.shape)}; "
                "it must give finite values, one row an image."
            )
        y_ID = answer.flatten(1)

        def build(dtype: torch.dtype | None) -> Linearised:
            outer = flattened(linearised(features, dtype), y_ID.shape[1], "the feature network")
            return composed(outer, decoder(dtype))

        super().__init__(x_IN, build, y_ID, forces)
        self.decode, self.network, self._shape = decode, network, images.shape[1:]

    def of(self, x_IN: Tensor) -> FeatureError:
        return FeatureError(self.decode, x_IN.view(-1, *self._shape), self.network, self.forces)

    def simulate(self, z_IK: Tensor, beta: float, normals_IN: Tensor) -> Tensor:
        raise InputError(
            "images cannot be drawn exactly for a distortion of features, so there is no "
            "bidirectional check; use the squared error or the likelihood of pixels."
        )


def _flatten(images: Tensor) -> Tensor:
    if not images.is_floating_point() or images.ndim < 2:
        raise InputError(
            f"images are {images.dtype} of shape {list(images.shape)}; a distortion needs "
            "floating-point images [I, ...] on the decoder's scale."
        )
    return images.detach().flatten(1)


def _build_decoder(decode: Decode, x_IN: Tensor) -> Callable[[torch.dtype | None], Linearised]:
    _check_mode(decode, "the decoder")
    return lambda dtype: flattened(linearised(decode, dtype), x_IN.shape[1], "the decoder")


def _check_mode(function: Decode, what: str) -> None:
    module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    if isinstance(module, nn.Module) and any(part.training for part in module.modules()):
        raise InputError(f"{what} is in training mode; call .eval() on it first.")


def _simulate(
    decode: Decode, x_IN: Tensor, z_IK: Tensor, normals_IN: Tensor, beta: float, variance: Tensor
) -> Tensor:
    if not 0 < beta < math.inf:
        raise InputError(f"images are drawn at a positive, finite beta, not {beta}.")
    with torch.no_grad(), products("float32", x_IN.device):
        mean_IN = decode(z_IK.to(x_IN)).flatten(1)
    return mean_IN + (normals_IN.to(x_IN.device) * (variance / beta).sqrt()).to(x_IN.dtype)
