"""A linear Gaussian hierarchy, whose posterior is known, as a model of small images.

    z_1 ~ N(0, 1),   z_2 | z_1 ~ N(A z_1, s_2²),   x | z_2 ~ Logistic(W z_2, s)

with orthogonal columns of A and of W. With a normal distribution of the logistic's variance in its
place, the posteriors of both layers are independent normal distributions, which this model has.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from gencomp.coding.latent_model import Floats, Gaussian, Logistic, rounded

GAIN = 0.4
TOP_GAIN = 1.5
SCALE_2 = 0.7
SCALE = 0.02
_PIXEL_VARIANCE = SCALE**2 * np.pi**2 / 3


class State(NamedTuple):
    """The size of the image, the image if it is known, and the latents so far."""

    height: int
    width: int
    image_HWC: np.ndarray | None
    latents: tuple[Floats, ...] = ()


class LinearModel:
    """The model; images have at least 4 pixels.

    Args:
        scale: the scale of the logistic.
    """

    layers = 2

    def dimensions(self, height: int, width: int) -> tuple[int, ...]:
        return 3 * height * width // 24, 3 * height * width // 6

    def start(self, height: int, width: int, image_HWC: np.ndarray | None = None) -> State:
        return State(height, width, image_HWC)

    def prior(self, state: State) -> Gaussian:
        top, _ = _columns(state)
        if not state.latents:
            return rounded(np.zeros(top.shape[1]), np.ones(top.shape[1]))
        return rounded(top @ state.latents[0], np.full(len(top), SCALE_2))

    def posterior(self, state: State) -> Gaussian:
        assert state.image_HWC is not None
        top, bottom = _columns(state)
        x_N = (state.image_HWC.reshape(-1) + 0.5) / 256 - 0.5
        # The evidence of z_2 in the image, and that of z_1 in this evidence.
        seen, noise = bottom.T @ x_N / GAIN**2, _PIXEL_VARIANCE / GAIN**2
        if not state.latents:
            mean, variance = _told(top.T @ seen / TOP_GAIN**2, (noise + SCALE_2**2) / TOP_GAIN**2)
            return rounded(mean, np.full(len(mean), np.sqrt(variance)))
        prior = top @ state.latents[0]
        mean, variance = _told((seen - prior) / SCALE_2, noise / SCALE_2**2)
        return rounded(prior + SCALE_2 * mean, np.full(len(mean), SCALE_2 * np.sqrt(variance)))

    def after(self, state: State, z_D: Floats) -> State:
        return state._replace(latents=(*state.latents, z_D))

    def likelihood(self, state: State) -> Logistic:
        _, bottom = _columns(state)
        return Logistic(bottom @ state.latents[1], SCALE)

    def shown(self, state: State) -> np.ndarray:
        mean_N = self.likelihood(state).mean_N
        pixels_N = np.clip(np.floor(256 * (mean_N + 0.5)), 0, 255).astype(np.uint8)
        return pixels_N.reshape(state.height, state.width, 3)

    def draw(self, height: int, width: int, seed: int) -> np.ndarray:
        """An image of the model, uint8 [H, W, 3]."""
        generator = np.random.default_rng(seed)
        state = self.start(height, width)
        for _ in range(self.layers):
            mean_D, scale_D = self.prior(state)
            state = self.after(state, mean_D + scale_D * generator.standard_normal(len(mean_D)))
        mean_N, scale = self.likelihood(state)
        x_N = mean_N + scale * generator.logistic(size=len(mean_N))
        pixels_N = np.clip(np.floor(256 * (x_N + 0.5)), 0, 255).astype(np.uint8)
        return pixels_N.reshape(height, width, 3)


def _told(evidence: Floats, variance: float) -> tuple[Floats, float]:
    """The posterior of standard normal latents that are seen with noise of a variance."""
    return evidence / (1 + variance), variance / (1 + variance)


def _columns(state: State) -> tuple[Floats, Floats]:
    """A [D_2, D_1] and W [N, D_2]: cosines, which are orthogonal, times their gains."""
    count = 3 * state.height * state.width
    top, bottom = LinearModel().dimensions(state.height, state.width)
    return _cosines(bottom, top, TOP_GAIN), _cosines(count, bottom, GAIN)


@cache
def _cosines(rows: int, columns: int, gain: float) -> Floats:
    angles = np.pi / rows * (np.arange(rows)[:, None] + 0.5) * (np.arange(columns) + 1)
    return gain * np.sqrt(2 / rows) * np.cos(angles)
