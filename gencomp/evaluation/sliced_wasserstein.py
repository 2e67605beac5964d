"""The sliced Wasserstein distance between two sets of images (Bonneel et al., 2015).

It is the mean, over random directions θ on the unit sphere, of the Wasserstein-1 distance of the
two sets of numbers x·θ, where x are the pixels of an image on [0, 1]. It needs no network and no
training, so it compares any two decoders. Two sets from one distribution have a distance above 0,
the more so the smaller they are; compare distances at equal counts only.

The derivative of the distance with the weight of an image is the Kantorovich potential of its
projection, averaged over the directions:

    dW₁ = ∫ sign(F(t) − G(t)) (1[x ≤ t] − F(t)) dt

for a number x of the set with the distribution function F. Its variance over images gives the
standard error, where an image and its reconstruction count as one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DIRECTIONS = 256


class SlicedDistance(NamedTuple):
    """A distance with the influence of each pair of rows on it, [N], whose mean is 0."""

    value: float
    influence_N: Floats


def directions(values: int, seed: int, count: int = DIRECTIONS) -> Floats:
    """Random unit vectors, [values, count].

    Args:
        values: the number of values of an image.
        seed: the seed of the directions.
        count: the number of directions.
    """
    normals = np.random.Generator(np.random.Philox(seed)).standard_normal((values, count))
    return normals / np.linalg.norm(normals, axis=0)


def distance(x_NK: Floats, y_NK: Floats) -> SlicedDistance:
    """The distance of projected images and their projected reconstructions, row by row.

    Args:
        x_NK: the projections of N images on K directions.
        y_NK: those of their reconstructions.
    """
    total, influence_N = 0.0, np.zeros(len(x_NK))
    for x_N, y_N in zip(x_NK.T.astype(np.float64), y_NK.T.astype(np.float64), strict=True):
        value, of_x, of_y = _line(x_N, y_N)
        total += value
        influence_N += of_x + of_y
    count = x_NK.shape[1]
    return SlicedDistance(total / count, influence_N / count)


def _line(x_N: Floats, y_N: Floats) -> tuple[float, Floats, Floats]:
    """The Wasserstein-1 distance of two sets of numbers, and each number's influence on it."""
    both = np.concatenate([x_N, y_N])
    order = np.argsort(both, kind="stable")
    widths = np.diff(both[order])
    steps = np.concatenate([np.full(len(x_N), 1 / len(x_N)), np.full(len(y_N), -1 / len(y_N))])
    # F − G on the intervals between neighbours.
    difference = np.cumsum(steps[order])[:-1]
    value = float(np.abs(difference) @ widths)
    # The integral of sign(F − G) from each number up to the largest one.
    signs = np.where(np.abs(difference) > 0.5 / both.size**2, np.sign(difference), 0.0)
    above = np.concatenate([np.cumsum((signs * widths)[::-1])[::-1], [0.0]])
    potential = np.empty_like(both)
    potential[order] = above
    of_x, of_y = potential[: len(x_N)], -potential[len(x_N) :]
    return value, of_x - of_x.mean(), of_y - of_y.mean()
