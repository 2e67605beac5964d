"""What a report says, as plain values. Every part but the heading may be missing.

Suffixes: I images, T inverse temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np


class Line(NamedTuple):
    """Values over steps."""

    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class History:
    """How a training run went.

    Attributes:
        name: what to call it in a legend.
        training: term -> values of the training batches.
        held_out: term -> values of the evaluations; drawn into the panel of the same term.
    """

    name: str
    training: Mapping[str, Line]
    held_out: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Generator:
    """A generative model; metrics of its last evaluation (mse, psnr, mmd, images, ...)."""

    name: str
    metrics: Mapping[str, float]
    history: History


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        point: dotted recipe key -> value.
        metrics: last evaluation, with `step`.
        score: what the sweep minimises; infinite where it is unknown.
        scores: the score over steps.
    """

    id: str
    status: Literal["pending", "finished", "stopped", "failed"]
    error: str | None
    point: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    score: float
    scores: Line


@dataclass(frozen=True)
class Best:
    """The best trial of a group, with its codec.

    Attributes:
        nominal_bits: bits of one image at the code's fixed length, without the file's container.
        file_bytes: mean size of the files of the pictured images, container included.
        mse_I: mean squared error of each image of the curve, as decoded from files; None without a
            curve.
    """

    trial: Trial
    history: History
    nominal_bits: int | None = None
    file_bytes: float | None = None
    mse_I: np.ndarray | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep: trials with the best score first, and the best of each group.

    Attributes:
        group_by: the key of the point within which trials competed.
        bounds: metric -> greatest value that the objective allows.
    """

    name: str
    objective: str
    group_by: str | None
    bounds: Mapping[str, float]
    trials: Sequence[Trial]
    best: Sequence[Best]


@dataclass(frozen=True, eq=False)
class Curve:
    """The rate-distortion curve of a generator by annealed importance sampling, image by image.

    Attributes:
        beta_T: inverse temperatures of the summed squared error, increasing.
        rate_IT: nats per image.
        distortion_IT: squared error, summed over the image's values.
        log_z_IT: nats; rate + β·distortion = -log Z.
        ess_IT: effective sample size, 1 to `chains`.
        acceptance_IT: mean acceptance of the moves.
        missing: what is not measured yet, in words; empty for a complete curve.
        single_chain_gap: nats by which log Z of one perfectly mixing chain falls short, as the
            pilot expects.
    """

    beta_T: np.ndarray
    rate_IT: np.ndarray
    distortion_IT: np.ndarray
    log_z_IT: np.ndarray
    ess_IT: np.ndarray
    acceptance_IT: np.ndarray
    chains: int
    temperatures: int
    height: int
    width: int
    missing: str = ""
    single_chain_gap: float | None = None

    @property
    def images(self) -> int:
        return len(self.rate_IT)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def values(self) -> int:
        """Numbers in an image."""
        return 3 * self.pixels


@dataclass(frozen=True)
class PictureRow:
    """Images of one kind, uint8 [H, W, 3], with one caption each (or none)."""

    title: str
    note: str
    images: Sequence[np.ndarray]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The page.

    Attributes:
        facts: (name, value) pairs that say what was run, for the head of the page.
        notes: what is left out, or wants a warning; one sentence each.
        pixels: height times width of the images.
        protocol: (title, pairs) lists of hashes, counts, scales, seeds and versions for its foot.
    """

    title: str
    date: str
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    pixels: int | None = None
    generator: Generator | None = None
    sweep: Sweep | None = None
    curve: Curve | None = None
    pictures: Sequence[PictureRow] = ()
    protocol: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
