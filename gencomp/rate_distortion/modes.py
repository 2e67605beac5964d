"""The modes of q_β(z|x) ∝ p(z) exp(-β d(x, f(z))) of given images, and a mixture around them.

Annealed chains come from the prior, and what none of them finds leaves no trace in them. Modes are
looked for in other ways here: from many points of the prior and around it, and from latents that
the caller suggests, such as an encoder's. Starts run downhill by Adam (Kingma and Ba, 2015), and by
Newton steps at the end; a Hessian turns each mode into a Gaussian, the Laplace approximation. The
mixture of these Gaussians, with a small share of the prior, is a proposal from which Z can be
estimated (``certificate``). Its quality costs accuracy alone: for any proposal the estimate of Z is
unbiased.

Suffixes: S starts, C components of the mixture, and those of the package.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import random
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.priors import Prior

COMPONENTS = 8  # the most modes that are kept for an image
SCREENED = 512  # points from which starts are chosen: one half of the prior, one half twice as wide
DESCENT = 200  # steps of Adam
LEARNING_RATE = 0.1  # the length of Adam's first steps, in standard deviations of the prior
POLISH = 2  # Newton steps
# The share of the prior keeps weights bounded: w ≤ exp(-β d) / PRIOR_SHARE.
PRIOR_SHARE = 0.05
# The share that all modes get alike, in case that the Laplace approximation misjudges their mass.
EQUAL_SHARE = 0.1
# The covariances of the Gaussians are wider than those of the Laplace approximation, since a
# proposal that is too narrow gives rare, large weights.
INFLATION = 1.2
_CHUNK = 64  # points for each image in one call of the decoder while screening


class Modes(NamedTuple):
    """The modes of each image in order of their mass, float64 on the CPU.

    Where an image has fewer than C modes, the other places have the mass 0.
    """

    z_ICK: Tensor
    precision_ICKK: Tensor  # the Hessians of -log p(z) + β d(x, f(z)), made positive definite
    log_mass_IC: Tensor  # the log of the part of Z that the Laplace approximation gives to a mode

    @property
    def counts(self) -> list[int]:
        """The number of modes of each image."""
        return self.log_mass_IC.isfinite().sum(-1).tolist()


def find(
    distortion: Distortion,
    prior: Prior,
    beta: float,
    *,
    starts: int,
    seed: int,
    image_ids: Sequence[int],
    suggested_ISK: Tensor | None = None,
) -> Modes:
    """Look for the modes of each image at one β; the result depends on the seed.

    Args:
        distortion: the distortion of the I images.
        prior: the prior.
        beta: the inverse temperature.
        starts: the number of starts for each image, of which one half are the best of ``SCREENED``
            points and one half are exact samples of the prior.
        seed: the seed of the points.
        image_ids: the ids of the images, which key the points.
        suggested_ISK: further starts, such as latents of an encoder.

    Raises:
        InputError: the decoder is not finite at any start of an image.
    """
    target = _Target(distortion, prior, beta)
    z_ISK, scale = _starts(target, starts, seed, image_ids)
    if suggested_ISK is not None:
        z_ISK = torch.cat([z_ISK, suggested_ISK.to(z_ISK)], dim=1)
    z_ISK = _descend(target, z_ISK, LEARNING_RATE * scale)
    # The widths of the first differences are those of a posterior that the image hardly narrows.
    width_ISK = torch.full_like(z_ISK, 0.01 * scale, dtype=torch.float64)
    modes = _distinct(_laplace(target, z_ISK, width_ISK, scale), COMPONENTS)
    for _ in range(POLISH):
        z_ICK = _newton(target, modes)
        width_ICK = 0.3 * modes.precision_ICKK.diagonal(dim1=-2, dim2=-1).rsqrt()
        modes = _distinct(_laplace(target, z_ICK, width_ICK, scale), COMPONENTS)
    if 0 in modes.counts:
        raise InputError(
            f"image id {image_ids[modes.counts.index(0)]} has no latent at which the decoder is "
            "finite, so there is no mode to start from."
        )
    return modes


@dataclass(frozen=True, eq=False)
class _Target:
    """The function U(z) = -log p(z) + β d(x, f(z)) of each image."""

    distortion: Distortion
    prior: Prior
    beta: float

    def __call__(self, z_ISK: Tensor) -> tuple[Tensor, Tensor]:
        """The values [I, S] and the gradients [I, S, K], float64 on the device of the images."""
        z_ISK = z_ISK.to(self.distortion.x_IN)
        d_IS, grad_d_ISK = self.distortion.value_and_grad(z_ISK)
        potential_IS, grad_ISK = self.prior.potential_and_grad(z_ISK)
        value_IS = potential_IS + self.prior.log_normaliser + self.beta * d_IS
        gradient_ISK = grad_ISK.double() + self.beta * grad_d_ISK.double()
        finite_IS = value_IS.isfinite() & gradient_ISK.isfinite().all(-1)
        return (
            torch.where(finite_IS, value_IS, math.inf),
            torch.where(finite_IS[..., None], gradient_ISK, 0.0),
        )


def _starts(
    target: _Target, starts: int, seed: int, image_ids: Sequence[int]
) -> tuple[Tensor, float]:
    """Starts [I, S, K], float64, and the standard deviation of the prior.

    One half of the starts are the best of many points, the others are samples of the prior.
    """
    best = (starts + 1) // 2
    derived = random.derived_seed(seed, "starts of a search for modes")
    samples_ISK = target.prior.draw(derived, image_ids, max(SCREENED, 2 * starts))
    half = samples_ISK.shape[1] // 2
    points_ISK = torch.cat([samples_ISK[:, :half], 2 * samples_ISK[:, half:]], dim=1)
    points_ISK = points_ISK.to(target.distortion.x_IN.device)
    values_IS = torch.cat([target(chunk)[0] for chunk in points_ISK.split(_CHUNK, dim=1)], dim=1)
    order_IS = values_IS.argsort(dim=1, stable=True)[:, :best]
    chosen_ISK = points_ISK.gather(1, order_IS[..., None].expand(-1, -1, points_ISK.shape[-1]))
    starts_ISK = torch.cat([chosen_ISK, points_ISK[:, : starts - best]], dim=1)
    return starts_ISK, float(samples_ISK.std())


def _descend(target: _Target, z_ISK: Tensor, learning_rate: float) -> Tensor:
    """The starts after a descent, where each went no higher than it began."""
    value_IS, _ = target(z_ISK)
    moved_ISK = z_ISK.clone()
    optimizer = torch.optim.Adam([moved_ISK], learning_rate, betas=(0.9, 0.99))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, DESCENT)
    for _ in range(DESCENT):
        _, moved_ISK.grad = target(moved_ISK)
        optimizer.step()
        cosine.step()
    lower_IS = target(moved_ISK)[0] < value_IS
    return torch.where(lower_IS[..., None], moved_ISK, z_ISK)


def _laplace(target: _Target, z_ISK: Tensor, width_ISK: Tensor, scale: float) -> Modes:
    """The Laplace approximation at given points, with Hessians by central differences.

    Args:
        target: the function.
        z_ISK: the points.
        width_ISK: the distances of the differences.
        scale: the standard deviation of the prior; no direction is taken to be wider.
    """
    latent_dim = z_ISK.shape[-1]
    z_ISK, width_ISK = z_ISK.double(), width_ISK.to(z_ISK.device)
    rows = []
    for k in range(latent_dim):
        step_ISK = torch.zeros_like(z_ISK)
        step_ISK[..., k] = width_ISK[..., k]
        _, both_ISK = target(torch.cat([z_ISK + step_ISK, z_ISK - step_ISK], dim=1))
        plus_ISK, minus_ISK = both_ISK.chunk(2, dim=1)
        rows.append((plus_ISK - minus_ISK) / (2 * width_ISK[..., k, None]))
    hessian_ISKK = torch.stack(rows, dim=-2).cpu()
    hessian_ISKK = 0.5 * (hessian_ISKK + hessian_ISKK.mT)
    curvature_ISK, basis_ISKK = torch.linalg.eigh(hessian_ISKK)
    curvature_ISK = curvature_ISK.clamp(min=scale**-2)
    precision_ISKK = (basis_ISKK * curvature_ISK[..., None, :]) @ basis_ISKK.mT
    log_volume_IS = 0.5 * (latent_dim * math.log(2 * math.pi) - curvature_ISK.log().sum(-1))
    return Modes(z_ISK.cpu(), precision_ISKK, log_volume_IS - target(z_ISK)[0].cpu())


def _newton(target: _Target, modes: Modes) -> Tensor:
    """The lowest points on the way of a Newton step from each mode, [I, C, K] on the CPU."""
    value_IC, gradient_ICK = (t.cpu() for t in target(modes.z_ICK))
    step_ICK = torch.linalg.solve(modes.precision_ICKK, gradient_ICK[..., None])[..., 0]
    best_ICK, best_IC = modes.z_ICK, value_IC
    for length in (1.0, 0.25, 0.0625):
        tried_ICK = modes.z_ICK - length * step_ICK
        tried_IC = target(tried_ICK)[0].cpu()
        lower_IC = tried_IC < best_IC
        best_IC = torch.where(lower_IC, tried_IC, best_IC)
        best_ICK = torch.where(lower_IC[..., None], tried_ICK, best_ICK)
    return best_ICK


def _distinct(modes: Modes, kept: int) -> Modes:
    """The modes of most mass, without those that lie in the Gaussian of one with more mass."""
    images, count, latent_dim = modes.z_ICK.shape
    kept = min(kept, count)
    chosen_IC = torch.zeros(images, kept, dtype=torch.int64)
    log_mass_IC = torch.full((images, kept), -math.inf, dtype=torch.float64)
    for image in range(images):
        mass_S = modes.log_mass_IC[image].nan_to_num(nan=-math.inf)
        found: list[int] = []
        for one in mass_S.argsort(descending=True, stable=True).tolist():
            apart_CK = modes.z_ICK[image, found] - modes.z_ICK[image, one]
            square_C = torch.einsum(
                "ck,ckl,cl->c", apart_CK, modes.precision_ICKK[image, found], apart_CK
            )
            if len(found) < kept and mass_S[one] > -math.inf and (square_C > latent_dim).all():
                found.append(one)
        chosen_IC[image, : len(found)] = torch.tensor(found, dtype=torch.int64)
        log_mass_IC[image, : len(found)] = mass_S[found]
    image_I1 = torch.arange(images)[:, None]
    return Modes(
        modes.z_ICK[image_I1, chosen_IC], modes.precision_ICKK[image_I1, chosen_IC], log_mass_IC
    )


@dataclass(frozen=True, eq=False)
class Mixture:
    """The mixture of the Gaussians of an image's modes and a share of the prior, for each image.

    It is a prior for samplers, in coordinates y with z = z_0 + A y, where z_0 is the image's first
    mode and A Aᵀ the inverse of the modes' mean precision, so that one step size fits all images.
    Densities are densities of z. Rows of y are grouped by image: [I·G, M, K] for any number G of
    rows of each image.

    Attributes:
        prior: the prior.
        modes: the modes, at least one for each image.
        device: the device of the samples' densities.
    """

    prior: Prior
    modes: Modes
    device: torch.device

    @property
    def latent_dim(self) -> int:
        return self.prior.latent_dim

    @property
    def log_normaliser(self) -> float:
        return 0.0

    @cached_property
    def identity(self) -> str:
        digest = hashlib.sha256(self.prior.identity.encode())
        for tensor in self.modes:
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"Mixture({digest.hexdigest()})"

    def latent(self, y_BMK: Tensor) -> Tensor:
        """The latents z of coordinates y, in the type of y."""
        y_IMK = self._by_image(y_BMK)
        z_IMK = self._of(y_IMK).centre_I1K + y_IMK @ self._of(y_IMK).chart_IKK.mT
        return z_IMK.view(y_BMK.shape)

    def pull(self, gradient_BMK: Tensor) -> Tensor:
        """The gradient with respect to y, of a gradient with respect to z."""
        gradient_IMK = self._by_image(gradient_BMK)
        return (gradient_IMK @ self._of(gradient_IMK).chart_IKK).view(gradient_BMK.shape)

    def draw(self, seed: int, image_ids: Sequence[int], chains: int) -> Tensor:
        """Exact samples y [I·G, M, K], float64 on the CPU, for the ids of all rows."""
        uniforms = random.start_uniforms(seed, image_ids, chains, self.latent_dim + 1)
        uniforms_BMK = torch.from_numpy(uniforms)
        normals_IMK = self._by_image(torch.from_numpy(random.normals(uniforms[..., 1:])))
        edges_IC = self._weight_IC.cumsum(-1)
        uniform_IM = self._by_image(uniforms_BMK)[..., 0].contiguous()
        component_IM = torch.searchsorted(edges_IC, uniform_IM, right=True)
        of_prior_IM1 = (component_IM >= edges_IC.shape[1])[..., None]
        component_IM = component_IM.clamp(max=edges_IC.shape[1] - 1)
        image_I1 = torch.arange(len(edges_IC))[:, None]
        spread_IMK = (self._root_ICKK[image_I1, component_IM] @ normals_IMK[..., None])[..., 0]
        z_IMK = self.modes.z_ICK[image_I1, component_IM] + spread_IMK
        derived = random.derived_seed(seed, "share of the prior")
        prior_IMK = self._by_image(self.prior.draw(derived, image_ids, chains))
        z_IMK = torch.where(of_prior_IM1, prior_IMK, z_IMK) - self.modes.z_ICK[:, :1]
        y_IMK = torch.linalg.solve_triangular(self._chart_IKK, z_IMK.mT, upper=False).mT
        return y_IMK.reshape(len(image_ids), chains, -1)

    def potential_and_grad(self, y_BMK: Tensor) -> tuple[Tensor, Tensor]:
        """-log q(z), float64, and its gradient with respect to y in the type of y."""
        z_BMK = self.latent(y_BMK)
        z_IMK = self._by_image(z_BMK)
        own = self._of(z_IMK.double())
        apart_IMCK = z_IMK.double()[:, :, None] - own.mean_I1CK
        half_IMCK = torch.einsum("imck,ickl->imcl", apart_IMCK, own.half_ICKK)
        gaussian_IMC = own.log_density_I1C - 0.5 * half_IMCK.square().sum(-1)
        potential_IM, grad_IMK = self.prior.potential_and_grad(z_IMK)
        prior_IM = math.log(PRIOR_SHARE) - potential_IM - self.prior.log_normaliser
        joint_IMC = torch.cat([gaussian_IMC, prior_IM[..., None]], dim=-1)
        share_IMC = joint_IMC.softmax(-1)
        push_IMCK = torch.einsum("imcl,ickl->imck", half_IMCK, own.half_ICKK)
        gradient_IMK = (share_IMC[..., :-1, None] * push_IMCK).sum(-2)
        gradient_IMK = gradient_IMK + share_IMC[..., -1:] * grad_IMK.double()
        gradient_BMK = gradient_IMK.to(y_BMK.dtype).view(y_BMK.shape)
        return -joint_IMC.logsumexp(-1).view(y_BMK.shape[:2]), self.pull(gradient_BMK)

    def grad(self, y_BMK: Tensor) -> Tensor:
        return self.potential_and_grad(y_BMK)[1]

    def _by_image(self, rows_BMK: Tensor) -> Tensor:
        """The rows [I·G, M, ...] of each image in one, [I, G·M, ...]."""
        return rows_BMK.reshape(len(self.modes.z_ICK), -1, *rows_BMK.shape[2:])

    @cached_property
    def _weight_IC(self) -> Tensor:
        """The weights of the Gaussians, which sum to 1 - PRIOR_SHARE."""
        present_IC = self.modes.log_mass_IC.isfinite()
        equal_IC = present_IC / present_IC.sum(-1, keepdim=True)
        by_mass_IC = self.modes.log_mass_IC.softmax(-1)
        return (1 - PRIOR_SHARE) * torch.lerp(by_mass_IC, equal_IC.double(), EQUAL_SHARE)

    @cached_property
    def _half_ICKK(self) -> Tensor:
        """The lower triangular L with L Lᵀ = the precision of each Gaussian."""
        return torch.linalg.cholesky(self.modes.precision_ICKK / INFLATION)

    @cached_property
    def _root_ICKK(self) -> Tensor:
        """The B with B Bᵀ = the covariance of each Gaussian: L⁻ᵀ."""
        identity = torch.eye(self.latent_dim, dtype=torch.float64).expand_as(self._half_ICKK)
        return torch.linalg.solve_triangular(self._half_ICKK, identity, upper=False).mT

    @cached_property
    def _chart_IKK(self) -> Tensor:
        """The lower triangular A of each image."""
        share_IC = self._weight_IC / self._weight_IC.sum(-1, keepdim=True)
        precision_IKK = (share_IC[..., None, None] * self.modes.precision_ICKK).sum(1)
        return torch.linalg.cholesky(torch.linalg.inv(precision_IKK))

    @cached_property
    def _double(self) -> _OnDevice:
        log_density_IC = (
            self._weight_IC.log()
            + self._half_ICKK.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            - 0.5 * self.latent_dim * math.log(2 * math.pi)
        )
        tensors = (
            *(self.modes.z_ICK[:, :1], self._chart_IKK, self.modes.z_ICK[:, None]),
            *(self._half_ICKK, log_density_IC[:, None]),
        )
        return _OnDevice(*(tensor.to(self.device) for tensor in tensors))

    @cached_property
    def _single(self) -> _OnDevice:
        return _OnDevice(*(tensor.float() for tensor in self._double))

    def _of(self, like: Tensor) -> _OnDevice:
        return self._double if like.dtype == torch.float64 else self._single


class _OnDevice(NamedTuple):
    """The constants of a mixture on the device of the chains, in one type."""

    centre_I1K: Tensor
    chart_IKK: Tensor
    mean_I1CK: Tensor
    half_ICKK: Tensor
    log_density_I1C: Tensor
