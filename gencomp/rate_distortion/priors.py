"""Priors p(z), from which the chains start, and whose density is a part of every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import random


class Prior(Protocol):
    """A prior as the samplers use it; z is [I, M, K] in any floating dtype and on any device."""

    @property
    def latent_dim(self) -> int: ...

    @property
    def identity(self) -> str:
        """A text that contains everything that the density depends on; it enters hashes."""
        ...

    @property
    def log_normaliser(self) -> float:
        """The constant that ``potential_and_grad`` leaves out of -log p(z)."""
        ...

    def draw(self, seed: int, image_ids: Sequence[int], chains: int) -> Tensor:
        """Exact samples [I, M, K], float64 on the CPU, keyed by (seed, image id, chain)."""
        ...

    def potential_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(z) up to a constant, float64 [I, M], and its gradient in the dtype of z."""
        ...

    def grad(self, z_IMK: Tensor) -> Tensor:
        """The gradient of the potential alone."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """The prior N(0, scale² I).

    Raises:
        InputError: latent_dim or scale is not positive and finite.
    """

    latent_dim: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(self.scale))
        if self.latent_dim < 1 or not 0 < self.scale < math.inf:
            raise InputError(
                f"a Gaussian prior of latent_dim {self.latent_dim} and scale {self.scale} is not "
                "possible; both must be positive."
            )

    @property
    def identity(self) -> str:
        return repr(self)

    @property
    def log_normaliser(self) -> float:
        return self.latent_dim * (0.5 * math.log(2 * math.pi) + math.log(self.scale))

    def draw(self, seed: int, image_ids: Sequence[int], chains: int) -> Tensor:
        uniforms = random.start_uniforms(seed, image_ids, chains, self.latent_dim)
        return torch.from_numpy(self.scale * random.normals(uniforms))

    def potential_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        squares_IM = z_IMK.double().square().sum(-1)
        return squares_IM * (0.5 / self.scale**2), self.grad(z_IMK)

    def grad(self, z_IMK: Tensor) -> Tensor:
        return z_IMK if self.scale == 1 else z_IMK * self.scale**-2


class GaussianMixture:
    """The mixture Σ_c w_c N(mean_c, scale_c² I), in which a whole vector has one component.

    A mixture that puts weight w on anything other than p raises the curve of p by at most
    -log(1-w).

    Args:
        latent_dim: the number K of latent dimensions.
        weights: C positive numbers, which are divided by their sum.
        scales: C standard deviations.
        means: C vectors of length K; all are zero by default.

    Raises:
        InputError: the sizes do not fit, or a weight or scale is not positive.
    """

    def __init__(
        self,
        latent_dim: int,
        weights: Sequence[float],
        scales: Sequence[float],
        means: Sequence[Sequence[float]] | np.ndarray | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self._weight_C = np.array(weights, dtype=np.float64)
        self._scale_C = np.array(scales, dtype=np.float64)
        count = len(self._weight_C)
        self._mean_CK = np.array(np.zeros((count, latent_dim)) if means is None else means, "f8")
        if self._weight_C.shape != self._scale_C.shape or self._mean_CK.shape != (
            count,
            latent_dim,
        ):
            raise InputError(
                f"a mixture of {count} weights, {self._scale_C.size} scales and means of shape "
                f"{list(self._mean_CK.shape)} does not fit latent_dim {latent_dim}; it needs one "
                "weight, scale and mean vector for each component."
            )
        positive = np.concatenate([self._weight_C, self._scale_C])
        if latent_dim < 1 or not count or not (np.isfinite(positive) & (positive > 0)).all():
            raise InputError("weights and scales of a mixture must be positive and finite.")
        self._weight_C /= self._weight_C.sum()

    @property
    def identity(self) -> str:
        return (
            f"GaussianMixture(weights={self._weight_C.tolist()}, scales={self._scale_C.tolist()}, "
            f"means={self._mean_CK.tolist()})"
        )

    @property
    def log_normaliser(self) -> float:
        return self.latent_dim * 0.5 * math.log(2 * math.pi)

    def draw(self, seed: int, image_ids: Sequence[int], chains: int) -> Tensor:
        uniforms = random.start_uniforms(seed, image_ids, chains, self.latent_dim + 1)
        edges_C = np.cumsum(self._weight_C)[:-1]
        component_IM = np.searchsorted(edges_C, uniforms[..., 0], side="right")
        normals = random.normals(uniforms[..., 1:])
        z_IMK = self._mean_CK[component_IM] + self._scale_C[component_IM][..., None] * normals
        return torch.from_numpy(z_IMK)

    def potential_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        # Components of scales 1 and 10 cross at densities that float32 cannot tell apart.
        log_weight_C, precision_C, mean_CK = self._constants(z_IMK.device)
        from_mean_IMCK = z_IMK.double()[..., None, :] - mean_CK
        joint_IMC = log_weight_C - 0.5 * precision_C * from_mean_IMCK.square().sum(-1)
        pull_IMC = joint_IMC.softmax(-1) * precision_C
        grad_IMK = (pull_IMC[..., None] * from_mean_IMCK).sum(-2)
        return -joint_IMC.logsumexp(-1), grad_IMK.to(z_IMK.dtype)

    def grad(self, z_IMK: Tensor) -> Tensor:
        return self.potential_and_grad(z_IMK)[1]

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The log of weight times normaliser, the precision and the mean of each component.

        All are float64, and the normaliser leaves out the factor that all components share.
        """
        log_weight_C = np.log(self._weight_C) - self.latent_dim * np.log(self._scale_C)
        arrays = (log_weight_C, self._scale_C**-2, self._mean_CK)
        on_device = (torch.from_numpy(array).to(device) for array in arrays)
        return tuple(on_device)  # type: ignore[return-value]


class FromDistribution:
    """A prior made from an object with ``sample((n,))`` and ``log_prob(z)``.

    Samples must be [n, K], and ``log_prob`` must map [..., K] to [...]. So ``torch.distributions``
    with event shape [K] fit, also those that ``Independent`` has given this shape. The gradient
    comes from autograd, so ``log_prob`` must be differentiable and work in the dtype and on the
    device of the chains.

    Args:
        distribution: the object.
        latent_dim: the number K of latent dimensions.
        identity: a text that names the density and all its parameters; it enters the hashes that
            keep the results of different priors apart.

    Raises:
        InputError: the samples have another shape, or there is no identity.
    """

    def __init__(self, distribution: Any, latent_dim: int, identity: str) -> None:
        if not identity:
            raise InputError("a prior needs an identity that names its density and parameters.")
        self.latent_dim = latent_dim
        self.identity = identity
        self.log_normaliser = 0.0  # the density of a distribution is normalised
        self._log_prob: Callable[[Tensor], Tensor] = distribution.log_prob
        self._sample: Callable[[tuple[int]], Tensor] = distribution.sample

    def draw(self, seed: int, image_ids: Sequence[int], chains: int) -> Tensor:
        """Call ``sample`` once for each chain, after seeding torch's generators by its key."""
        seeds = random.start_words(seed, image_ids, chains)
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices):
            rows = [self._draw_one(int(word)) for word in seeds.ravel()]
        return torch.stack(rows).view(len(image_ids), chains, self.latent_dim)

    def potential_and_grad(self, z_IMK: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z_leaf = z_IMK.detach().requires_grad_()
            log_p_IM = self._log_prob(z_leaf)
            if log_p_IM.shape != z_IMK.shape[:-1]:
                raise InputError(
                    f"log_prob of prior {self.identity} gives {list(log_p_IM.shape)} for latents "
                    f"{list(z_IMK.shape)}; it must give one number a vector "
                    "(torch.distributions.Independent)."
                )
            (grad_IMK,) = torch.autograd.grad(log_p_IM.sum(), z_leaf)
        return -log_p_IM.detach().double(), -grad_IMK

    def grad(self, z_IMK: Tensor) -> Tensor:
        return self.potential_and_grad(z_IMK)[1]

    def _draw_one(self, word: int) -> Tensor:
        torch.manual_seed(word)
        z_1K = self._sample((1,))
        if z_1K.shape != (1, self.latent_dim):
            raise InputError(
                f"prior {self.identity} samples {list(z_1K.shape)}; (1,) samples of latent_dim "
                f"{self.latent_dim} have the shape [1, {self.latent_dim}]."
            )
        return z_1K[0].detach().double().cpu()
