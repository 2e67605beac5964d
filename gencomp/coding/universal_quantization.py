"""Universal quantization: a latent arrives as its mean and noise that is exactly uniform.

    sender      u from the shared dither,  k = round(mean − u)
    stream      k given u, with the probability that the prior gives it
    receiver    z = k + u,  where z − mean is uniform on [−½, ½] and independent of the mean

So z is an exact sample of a posterior that is uniform with width 1 about its mean, at no more than
its divergence from the prior (Ziv, 1985; for learned codecs Agustsson and Theis, 2020). It fits
models that were trained with such a posterior, in place of relative entropy coding, and takes time
linear in the number of latents. The prior of z is the normal distribution N(μ, σ²) plus uniform
noise of width 1, whose density at k + u is the probability of k given u:

    P(k | u) = Φ((k + u + ½ − μ)/σ) − Φ((k + u − ½ − μ)/σ)

Over all k this sums to 1. The average of −log2 P(k | u) over u is the divergence.

A latent is coded as the digits in base 8 of its place in a window about μ that is at least 7 σ wide
to each side, so that a wide prior costs some evaluations of Φ and not one for each k. Whatever lies
beyond the window counts to its outermost places, behind which the distance beyond follows. All
frequencies come from the rounded Gaussians of the model by `gencomp.coding.portable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from gencomp.coding import portable
from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.coding.range_coder import Decoder, Encoder, damaged
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

_DIGIT_BITS = 3
_BASE = 1 << _DIGIT_BITS
_MOST_DIGITS = 10
# Half of a window is at least so many standard deviations and one step more.
_DEVIATIONS = 7.0
# The distance beyond a window is coded in two digits of 16 bits, which are all equally likely.
_FAR_BITS = 16
_FAR = np.full(1 << _FAR_BITS, 1 << PRECISION - _FAR_BITS, np.int64)
# Numbers of steps are smaller than this, so that they are exact beside the dither.
_MOST = 1 << 30
# Below this mass of a window's part, its parts are rounding errors, and an even share does as well.
_NO_MASS = 2.0**-36
# So many latents at once fit into the cache of a processor.
_AT_ONCE = 1 << 12


def encode(encoder: Encoder, mean_D: Floats, prior: Gaussian, dither_D: Floats) -> Floats:
    """Append latents, and return the values that the receiver gets, float64 [D].

    Args:
        encoder: what the latents are appended to.
        mean_D: the means of the posterior, which is uniform with width 1 about them.
        prior: the Gaussians of the prior, rounded, without the uniform noise.
        dither_D: shared noise, uniform in (−½, ½), such as a row of `gencomp.coding.dither`.

    Raises:
        InputError: a mean is no number below 2^30, or a scale is none from above 0 to 7·10^7.
    """
    centre_D = _nearest(prior.mean_D - dither_D)
    from_centre_D = _nearest(mean_D - dither_D) - centre_D
    for latents, digits in _classes(prior.scale_D):
        wanted = from_centre_D[latents] + _half(digits)
        places = np.clip(wanted, 0, 2 * _half(digits) - 1)

        def put(rows_A8: Integers, shift: int, places: Integers = places) -> Integers:
            digits_A = places >> shift & _BASE - 1
            encoder.put(digits_A, rows_A8)
            return digits_A

        _walk(_part(prior, latents), centre_D[latents] + dither_D[latents], digits, put)
        beyond = np.abs(wanted - places)[_is_outermost(places, digits)]
        encoder.put(beyond >> _FAR_BITS, _FAR)
        encoder.put(beyond & (1 << _FAR_BITS) - 1, _FAR)
    return (centre_D + from_centre_D) + dither_D


def decode(decoder: Decoder, prior: Gaussian, dither_D: Floats) -> Floats:
    """The latents that `encode` has appended with this prior and this dither, float64 [D].

    Raises:
        InputError: the stream holds no such latents, or the prior has a number that none may have.
    """
    centre_D = _nearest(prior.mean_D - dither_D)
    from_centre_D = np.empty_like(centre_D)
    for latents, digits in _classes(prior.scale_D):
        places = _walk(
            _part(prior, latents),
            centre_D[latents] + dither_D[latents],
            digits,
            lambda rows_A8, shift: decoder.take(rows_A8),
        )
        outermost = _is_outermost(places, digits)
        count = int(outermost.sum())
        beyond = decoder.take(_FAR, count=count) << _FAR_BITS
        beyond += decoder.take(_FAR, count=count)
        if (beyond >= 2 * _MOST).any():
            raise damaged()
        from_centre_D[latents] = places - _half(digits)
        from_centre_D[latents[outermost]] += np.where(places[outermost] == 0, -beyond, beyond)
    return (centre_D + from_centre_D) + dither_D


def _nearest(x_D: Floats) -> Integers:
    if not (np.abs(x_D) < _MOST).all():
        raise InputError("A mean of a latent is not a number below 2^30.")
    return np.rint(x_D).astype(np.int64)


def _classes(scale_D: Floats) -> Iterator[tuple[Integers, int]]:
    """Latents whose windows have as many digits, at most some thousand at once, and this number."""
    if not ((scale_D > 0) & (_DEVIATIONS * scale_D + 1 <= _half(_MOST_DIGITS))).all():
        raise InputError("The scale of a latent's prior is not a number from above 0 to 7e7.")
    digits_D = np.ones(len(scale_D), np.int64)
    for digits in range(1, _MOST_DIGITS):
        digits_D += _DEVIATIONS * scale_D + 1 > _half(digits)
    for digits in range(1, _MOST_DIGITS + 1):
        latents = np.flatnonzero(digits_D == digits)
        for first in range(0, len(latents), _AT_ONCE):
            yield latents[first : first + _AT_ONCE], digits


def _half(digits: int) -> int:
    """Half the number of places of a window."""
    return 1 << _DIGIT_BITS * digits - 1


def _is_outermost(places: Integers, digits: int) -> npt.NDArray[np.bool_]:
    return (places == 0) | (places == 2 * _half(digits) - 1)


def _part(prior: Gaussian, latents: Integers) -> Gaussian:
    return Gaussian(prior.mean_D[latents], prior.scale_D[latents])


def _walk(
    prior: Gaussian, middle_A: Floats, digits: int, choose: Callable[[Integers, int], Integers]
) -> Integers:
    """The places of latents in their windows, digit by digit, [A].

    Args:
        prior: their priors.
        middle_A: the values in the middle of their windows, whose places are half the width.
        digits: the number of digits of a place.
        choose: maps the frequencies of the next digits [A, 8] and the place of the digit in the
            binary number to these digits.
    """
    count, half = len(middle_A), _half(digits)
    places_A = np.zeros(count, np.int64)
    below_A, upto_A = np.zeros(count), np.ones(count)
    for shift in range(_DIGIT_BITS * (digits - 1), -1, -_DIGIT_BITS):
        first_A7 = places_A[:, None] + (np.arange(1, _BASE) << shift)
        distance_A7 = middle_A[:, None] + (first_A7 - half - 0.5) - prior.mean_D[:, None]
        edges_A9 = np.empty((count, _BASE + 1))
        edges_A9[:, 0], edges_A9[:, -1] = below_A, upto_A
        edges_A9[:, 1:-1] = portable.normal_cdf(distance_A7 / prior.scale_D[:, None])
        digits_A = choose(_frequencies(edges_A9), shift)
        places_A += digits_A << shift
        rows = np.arange(count)
        below_A, upto_A = edges_A9[rows, digits_A], edges_A9[rows, digits_A + 1]
    return places_A


def _frequencies(edges_A9: Floats) -> Integers:
    """The frequencies of 8 digits in proportion to the masses between their edges, [A, 8]."""
    mass_A1 = edges_A9[:, -1:] - edges_A9[:, :1]
    shares_A9 = (edges_A9 - edges_A9[:, :1]) / np.maximum(mass_A1, _NO_MASS)
    shares_A9 = np.where(mass_A1 > _NO_MASS, shares_A9, np.arange(_BASE + 1) / _BASE)
    free = (1 << PRECISION) - _BASE
    ends_A9 = np.clip(np.rint(shares_A9 * free), 0, free).astype(np.int64)
    return np.diff(np.maximum.accumulate(ends_A9, axis=1), axis=1) + 1
