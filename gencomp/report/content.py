"""The content of a report as plain values; every part but the heading may be missing.

Suffixes of arrays: I images, T inverse temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from gencomp.coding.symbols import LayerSymbols
from gencomp.evaluation.measured import Measured
from gencomp.figures.file_parts import FileParts


class Line(NamedTuple):
    """Values over steps."""

    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class History:
    """The history of a training run.

    Attributes:
        name: the name of the run in a legend.
        training: the values of each term on the training batches.
        held_out: the values of each term in the evaluations, drawn into the panel of that term.
    """

    name: str
    training: Mapping[str, Line]
    held_out: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Generator:
    """A generative model with the metrics of its last evaluation (mse, psnr, mmd, images, ...)."""

    name: str
    metrics: Mapping[str, float]
    history: History


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        point: the values of the dotted recipe keys that the sweep sets.
        metrics: the metrics of the last evaluation, with its `step`.
        score: the number that the sweep minimises; infinite where it is unknown.
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
class Files:
    """The cost of real files of some images, and what they decode to.

    Attributes:
        images: the number of images.
        code_bpp: the bits of code in joint containers, over all pixels.
        file_bpp: all bits of joint containers, over all pixels.
        bytes_alone: the mean size of the file of a single image.
        mse: the mean squared error of the decoded images.
        mse_interval: its 95 % interval over images, or no interval.
    """

    images: int
    code_bpp: float
    file_bpp: float
    bytes_alone: float
    mse: float
    mse_interval: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class CurveFiles:
    """The cost of real files of the curve's images, and what they decode to.

    Attributes:
        bits_I: the bits of code of each image, alone in a file.
        mse_I: the mean squared error of each decoded image.
        file_bpp: all bits of one joint container, over all pixels.
    """

    bits_I: np.ndarray
    mse_I: np.ndarray
    file_bpp: float


@dataclass(frozen=True)
class Best:
    """The best trial of a group, with its codec.

    Attributes:
        held_out: the files of held-out images; None for a stage without a codec.
        on_curve: the files of the curve's images; None if there is no curve.
    """

    trial: Trial
    history: History
    held_out: Files | None = None
    on_curve: CurveFiles | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep with its trials, the best score first, and the best trial of each group.

    Attributes:
        group_by: the key whose value defines the group within which trials competed.
        bounds: the greatest value of each metric that the objective allows.
        minimised: the metrics that the objective wants small.
    """

    name: str
    objective: str
    group_by: str | None
    bounds: Mapping[str, float]
    trials: Sequence[Trial]
    best: Sequence[Best]
    minimised: Sequence[str] = ()


class SimulatedGap(NamedTuple):
    """The gap between two bounds of log Z on images of the model, in nats per image.

    Attributes:
        beta: the inverse temperature.
        value: the mean gap over the images.
        standard_error: the standard error of the mean.
        interval: the 95 % interval of the mean.
        worst: the gap of the image with the largest one; None where the result does not say.
        images: the number of simulated images.
    """

    beta: float
    value: float
    standard_error: float
    interval: tuple[float, float]
    worst: float | None
    images: int


class MeasuredBound(NamedTuple):
    """What the curve certainly misses of log Z on its own images, in nats per image.

    Attributes:
        beta: the inverse temperature.
        missed: the mean estimate of log Z by chains from modes, minus that of the curve.
        missed_error: its standard error; None for a single image.
        at_least: what the curve misses at least on average, with the `confidence` of all bounds.
        worst: what it misses at least on the image for which that is most.
        flagged: the number of images for which it misses more than `tolerance`.
        images: the number of measured images that were certified.
    """

    beta: float
    missed: float
    missed_error: float | None
    at_least: float
    worst: float
    flagged: int
    images: int
    confidence: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class Curve:
    """The rate-distortion curve of each image for a generator, by annealed importance sampling.

    Attributes:
        beta_T: the inverse temperatures of the summed squared error, increasing.
        rate_IT: the rates in nats per image.
        distortion_IT: the squared errors, summed over the image's values.
        log_z_IT: log Z in nats; rate + β·distortion = -log Z.
        ess_IT: the effective sample sizes, 1 to `chains`.
        acceptance_IT: the mean acceptance probabilities of the moves.
        missing: a text that names what is not measured yet; empty for a complete curve.
        single_chain_gap: the mean shortfall, in nats, of the log Z of one chain whose moves are
            independent of each other, as the pilot predicts it.
        gaps: the gaps of bidirectional Monte Carlo on images of the model, by increasing β.
        bounds: the certificate of the measured images, by increasing β.
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
    gaps: Sequence[SimulatedGap] = ()
    bounds: Sequence[MeasuredBound] = ()

    @property
    def images(self) -> int:
        return len(self.rate_IT)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def values(self) -> int:
        """The number of values in an image."""
        return 3 * self.pixels


@dataclass(frozen=True)
class PictureRow:
    """Images of one kind, uint8 [H, W, 3], with one caption for each image or none at all."""

    title: str
    note: str
    images: Sequence[np.ndarray]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class TradeoffRun:
    """A run in the plane of distortion and perception.

    Attributes:
        series: the kind of run, such as its system and stage.
        label: what tells the run from the others, such as its λ.
        name: the name of the run, by which others name it as their base.
        bases: the names of the runs that it starts from.
        directory: the directory of the run.
        nominal_bpp: the rate at the fixed length of its symbols; None without one.
        images: the number of held-out images behind the metrics of its training.
        values: the metrics by name.
        symbols: the layers of its code; none for a method that says nothing of them.
    """

    series: str
    label: str
    name: str
    bases: Sequence[str]
    directory: str
    nominal_bpp: float | None
    images: int
    values: Mapping[str, Measured]
    symbols: Sequence[LayerSymbols] = ()


@dataclass(frozen=True)
class Tradeoff:
    """Runs by their distortion and their perception.

    Attributes:
        distortion: the metric of the horizontal axis.
        perceptions: the metrics of the vertical axes, of which each has an axis of its own.
        runs: the runs, those of one series together.
        pictures: the same images as each run shows them.
    """

    distortion: str
    perceptions: Sequence[str]
    runs: Sequence[TradeoffRun]
    pictures: Sequence[PictureRow] = ()


@dataclass(frozen=True)
class LosslessFiles:
    """The files of a lossless codec, all bits of which count, per colour value of a pixel.

    Attributes:
        name: the run, and how its files were written.
        directory: the directory of the measurement.
        bound: −ELBO at a sample of the posterior; None for a method that states none.
        code: the bits of code of files of one picture.
        alone: all bits of files of one picture.
        joint: all bits of joint files.
        seconds: the median time to write and to read the file of one picture.
    """

    name: str
    directory: str
    bound: Measured | None
    code: float
    alone: Measured
    joint: float
    seconds: tuple[float, float]


@dataclass(frozen=True)
class EngineeredFiles:
    """The files of an engineered lossless codec, in bits per colour value of a pixel.

    Attributes:
        alone: all bits of files of one picture.
        joint: all bits of one archive of all pictures.
    """

    name: str
    alone: Measured
    joint: float


@dataclass(frozen=True)
class PublishedFiles:
    """The published rate of files of one picture, in bits per colour value of a pixel.

    Attributes:
        source: the address of the file that states it.
    """

    name: str
    alone: float
    source: str


@dataclass(frozen=True)
class Lossless:
    """Files without loss of the same pictures.

    Attributes:
        pictures: the pictures in words.
        codecs: the files of codecs.
        engineered: the files of engineered codecs.
        published: what others have published of the same pictures.
        left_out: sentences that say which published rates differ, and in what.
    """

    pictures: str
    codecs: Sequence[LosslessFiles]
    engineered: Sequence[EngineeredFiles] = ()
    published: Sequence[PublishedFiles] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The content of the whole page.

    Attributes:
        facts: (name, value) pairs at the head of the page that say what was run.
        notes: sentences about what is left out or needs a warning.
        pixels: the height times the width of the images.
        parts: the rate of each part of files.
        figures: (name, pixels) of further figures, uint8 [H, W, 3].
        protocol: (title, pairs) lists of hashes, counts, scales, seeds and versions at the foot of
            the page.
    """

    title: str
    date: str
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    pixels: int | None = None
    generator: Generator | None = None
    sweep: Sweep | None = None
    tradeoff: Tradeoff | None = None
    lossless: Lossless | None = None
    parts: Sequence[FileParts] = ()
    curve: Curve | None = None
    pictures: Sequence[PictureRow] = ()
    figures: Sequence[tuple[str, np.ndarray]] = ()
    protocol: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
