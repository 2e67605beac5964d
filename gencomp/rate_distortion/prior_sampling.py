"""The curve by samples of the prior alone, which all images share.

With N samples z_n of the prior and d_n = d(x, f(z_n)), at each β

    log Ẑ = log mean_n exp(-β d_n),    w_n ∝ exp(-β d_n),
    D̂ = Σ_n w_n d_n,                   R̂ = -log Ẑ - β D̂ .

This is annealed importance sampling that goes from 0 to β in one step and never moves its samples.
E[R̂ + βD̂] is at least the model's R + βD here too, and falls as N grows. But R̂ = log N - H(w) is at
most log N, so above it the estimate shows the samples and not the model: N has to be about exp(R).
Neural estimators of rate-distortion functions are trained on this bound and reported by it (Lei,
Hassani, Saeedi Bidokhti: Neural Estimation of the Rate-Distortion Function With Applications to
Operational Source Coding, 2022).

The errors of different images are correlated, since the images share the samples. A standard error
is that over several seeds, not that over images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion.distortion import Decode
from gencomp.rate_distortion.priors import Prior


class Estimate(NamedTuple):
    """The estimates of each image at each β, float64, with log_z = -rate - β·distortion."""

    log_z_IT: Tensor
    rate_IT: Tensor  # nats per image
    distortion_IT: Tensor
    ess_IT: Tensor  # the effective number of samples, 1/Σw²


def estimate(
    decode: Decode,
    prior: Prior,
    x_IN: Tensor,
    beta_T: Tensor,
    *,
    samples: int,
    seed: int,
    batch: int = 1000,
) -> Estimate:
    """R, D and log Z for the squared error, by samples of the prior.

    Args:
        decode: maps latents [B, K] to images [B, ...] of N values.
        prior: the prior of the latents.
        x_IN: the images, on the scale of the decoder.
        beta_T: the inverse temperatures, at least 0.
        samples: the number of samples.
        seed: the seed of the samples.
        batch: the number of samples that are decoded at once.

    Raises:
        InputError: there is no sample, or an inverse temperature is negative.
    """
    if samples < 1 or bool((beta_T < 0).any()):
        raise InputError(
            "an estimate by samples of the prior needs at least one sample, and inverse"
            " temperatures of at least 0"
        )
    x_IN, beta_T = x_IN.flatten(1).double(), beta_T.double()
    z_SK = prior.draw(seed, [0], samples)[0]
    sums: _Sums | None = None
    for z_BK in z_SK.float().to(x_IN.device).split(batch):
        with torch.no_grad():
            y_BN = decode(z_BK).flatten(1).double()
        new = _sums(_squared_distances(x_IN, y_BN), beta_T)
        sums = new if sums is None else _merged(sums, new)
    assert sums is not None
    log_z_IT = sums.log_weight_IT - math.log(samples)
    return Estimate(
        log_z_IT=log_z_IT,
        rate_IT=-log_z_IT - beta_T * sums.distortion_IT,
        distortion_IT=sums.distortion_IT,
        ess_IT=(2 * sums.log_weight_IT - sums.log_square_IT).exp(),
    )


class _Sums(NamedTuple):
    """What is known of some samples: log Σ exp(-βd), log Σ exp(-2βd), and the weighted mean d."""

    log_weight_IT: Tensor
    log_square_IT: Tensor
    distortion_IT: Tensor


def _sums(d_IB: Tensor, beta_T: Tensor) -> _Sums:
    log_weight_ITB = -beta_T[:, None] * d_IB[:, None]
    return _Sums(
        log_weight_ITB.logsumexp(-1),
        (2 * log_weight_ITB).logsumexp(-1),
        (log_weight_ITB.softmax(-1) * d_IB[:, None]).sum(-1),
    )


def _merged(one: _Sums, other: _Sums) -> _Sums:
    log_weight_IT = torch.logaddexp(one.log_weight_IT, other.log_weight_IT)
    share_IT = (other.log_weight_IT - log_weight_IT).exp()
    return _Sums(
        log_weight_IT,
        torch.logaddexp(one.log_square_IT, other.log_square_IT),
        torch.lerp(one.distortion_IT, other.distortion_IT, share_IT),
    )


def _squared_distances(x_IN: Tensor, y_BN: Tensor) -> Tensor:
    squares_IB = x_IN.square().sum(1)[:, None] + y_BN.square().sum(1)
    return (squares_IB - 2 * x_IN @ y_BN.T).clamp_min(0)
