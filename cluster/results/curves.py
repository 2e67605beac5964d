"""Rate-distortion curves by annealed importance sampling, with the other results on their images:
curves of trained encoders and operating points of codecs."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cluster.evaluations.curve.plan import Evaluation, Plan
from cluster.evaluations.decoders import OfModel, distortion_per_mse, open_decoder, value_range
from cluster.results import curve_tables, metrics
from gencomp.errors import InputError
from gencomp.figures.convergence import Convergence
from gencomp.figures.rate_axes import Units
from gencomp.figures.rate_distortion import (
    DrawnCurve,
    Gap,
    ImageCurves,
    OperatingPoint,
    Variational,
    distortion_interval,
)
from gencomp.rate_distortion.units import nats_to_bpp
from gencomp.report import content

_MIDDLE = (0.1, 0.9)  # the quantiles over images at the ends of bands of convergence
_UNKNOWN = (np.nan, np.nan)  # the ends of the interval of one image, which draw nothing


@dataclass(frozen=True, eq=False)
class MeasuredCurve:
    """A collected evaluation.

    Attributes:
        label: the name of the curve in legends.
        evaluation: the evaluation's directory and plan.
        means: the content of curve.json.
    """

    label: str
    evaluation: Evaluation
    means: dict[str, Any]

    @property
    def plan(self) -> Plan:
        return self.evaluation.plan

    @property
    def remark(self) -> str:
        """A remark behind the label: what is missing, and where the curve is surely too high."""
        return self._partial + self._too_high

    @property
    def _too_high(self) -> str:
        flagged = [one for one in self.means.get("certificate", ()) if one["flagged"]]
        if not flagged:
            return ""
        worst = max(flagged, key=lambda one: one["missed_at_least"])
        return (
            f" (TOO HIGH for {len(worst['flagged'])} of {worst['images']} images at"
            f" β = {worst['beta']:.3g}, by {worst['missed_at_least']:.3g} nats or more on average)"
        )

    @property
    def _partial(self) -> str:
        if self.means["complete"]:
            return ""
        images, planned = self.means["images"], self.means["images_planned"]
        if images < planned:
            return f" (PARTIAL: {images} of {planned} images)"
        return " (PARTIAL: a certificate is missing)"

    @property
    def gaps(self) -> list[Gap]:
        asked = np.array(self.plan.settings.bdmc_betas)
        return [
            Gap(
                one["beta"],
                float(asked[np.abs(np.log(asked / one["beta"])).argmin()]),
                one["gap"],
                one["gap_standard_error"],
                tuple(one["gap_interval"] or _UNKNOWN),
                one.get("worst_gap"),
            )
            for one in self.means["bdmc"]
        ]

    def curve(self) -> DrawnCurve:
        """The mean curve over the images with its band."""
        names = ("beta", "rate", "distortion", "lagrangian")
        beta_T, rate_T, distortion_T, total_T = (
            np.array([point[name] for point in self.means["points"]]) for name in names
        )
        ends_T2 = np.array(
            [point["lagrangian_interval"] or _UNKNOWN for point in self.means["points"]]
        )
        ends = distortion_interval(beta_T, distortion_T, total_T, ends_T2.T)
        return DrawnCurve(self.label, beta_T, rate_T, distortion_T, *ends, self.gaps, self.remark)

    @cached_property
    def table(self) -> content.Curve:
        """The content of curve.parquet."""
        return curve_tables.read(self.evaluation)

    def images(self) -> ImageCurves:
        """The curve of each image."""
        return ImageCurves(self.table.beta_T, self.table.rate_IT, self.table.distortion_IT)

    def convergence(self) -> Convergence:
        """The evidence of how well the sampler has converged."""
        settings = self.plan.settings
        return Convergence(
            label=f"{self.label}, T = {settings.temperatures:,}{self.remark}",
            temperatures=settings.temperatures,
            beta_T=self.table.beta_T,
            ess_3T=_spread(self.table.ess_IT / settings.chains),
            acceptance_3T=_spread(self.table.acceptance_IT),
            gaps=self.gaps,
            expected_gap=self.means["protocol"]["expected_single_chain_gap"],
        )

    @cached_property
    def value_range(self) -> tuple[float, float] | None:
        """Black and white on the decoder's scale; None unless squared errors are measured on it.

        Raises:
            InputError: the decoder cannot be opened.
        """
        if self.plan.settings.distortion != "squared_error":
            return None
        if self.plan.value_range is not None:
            return self.plan.value_range
        decoder, _ = open_decoder(self.evaluation.subject)
        return value_range(decoder, self.plan.height, self.plan.width)

    @property
    def units(self) -> Units:
        name = self.plan.settings.distortion
        return Units(name, self.plan.values, self.plan.pixels, self.value_range)

    @property
    def images_said(self) -> str:
        """The images in words: `mnist, test split, 64 images of 28×28`."""
        plan = self.plan
        size = f"{plan.height}×{plan.width}"
        split = f"{plan.settings.split} split"
        return f"{plan.stored['name']}, {split}, {len(plan.rows)} images of {size}"


def read(words: Sequence[str]) -> list[MeasuredCurve]:
    """The evaluations that some words name, each with a label of its own.

    The label is that of LABEL=EVALUATION, or else the name of the run, followed by that of the
    evaluation if a run has several.

    Raises:
        InputError: a word names no evaluation or one that was not collected, or two evaluations
            have the same label.
    """
    if not words:
        raise InputError("a figure of curves needs one evaluation or more, RUN/evaluations/NAME")
    opened = [_open(word) for word in words]
    runs = Counter(_subject(evaluation) for label, evaluation, _ in opened if not label)
    measured = []
    for label, evaluation, means in opened:
        name = _subject(evaluation)
        several = runs[name] > 1 and not isinstance(evaluation.plan.subject, OfModel)
        label = label or (f"{name}/{evaluation.path.name}" if several else name)
        measured.append(MeasuredCurve(label, evaluation, means))
    label, count = Counter(one.label for one in measured).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} evaluations are called {label}; tell them apart by LABEL=PATH")
    return measured


def _open(word: str) -> tuple[str, Evaluation, dict[str, Any]]:
    label, _, path = word.rpartition("=")
    evaluation = Evaluation.open(path)
    if not (evaluation.path / "curve.json").is_file():
        raise InputError(
            f"{path} has no curve yet; run `gencomp slurm collect {shlex.quote(path)}` first"
        )
    return label, evaluation, curve_tables.means(evaluation)


def _subject(evaluation: Evaluation) -> str:
    """The name of the evaluation's run, or of the directory of the evaluation of a model."""
    path = evaluation.path
    return path.name if isinstance(evaluation.plan.subject, OfModel) else path.parent.parent.name


def require_one_protocol(measured: Sequence[MeasuredCurve], one_decoder: bool = False) -> None:
    """Raise `InputError` unless the curves may be compared; the message says what differs first.

    Curves may differ in their decoders, priors and samplers, but not in their data, images,
    distortions or scales of the values.
    """
    shared: list[Callable[[MeasuredCurve], dict[str, Any]]] = [_shared]
    shared.append(_decoder if one_decoder else _scale)  # the scale opens decoders, so it is last
    first, *others = measured
    for part in shared:
        for other in others:
            known = part(first)
            for key, value in part(other).items():
                if value != known[key]:
                    raise InputError(
                        f"{first.evaluation.path} and {other.evaluation.path} cannot stand in one"
                        f" figure: {key} {_short(known[key])} of the first and {_short(value)} of"
                        " the second"
                    )


def _shared(one: MeasuredCurve) -> dict[str, Any]:
    plan, settings = one.plan, one.plan.settings
    return {
        "the data are": plan.data,
        "the split is": settings.split,
        "the images are": plan.rows,
        "the size of the images is": (plan.height, plan.width),
        "the distortion is": settings.distortion,
        "the feature network is": settings.features,
        "the number of values is": plan.values,
    }


def _decoder(one: MeasuredCurve) -> dict[str, Any]:
    return {"the decoder is": one.plan.decoder, "the last β is": one.plan.settings.beta_max}


def _scale(one: MeasuredCurve) -> dict[str, Any]:
    return {"black and white on the decoder's scale are": one.value_range}


def require_gaps(measured: Sequence[MeasuredCurve]) -> None:
    """Raise `InputError` unless an evaluation has a gap of bidirectional Monte Carlo."""
    if not any(one.gaps for one in measured):
        raise InputError(
            f"{measured[0].evaluation.path} has no BDMC gap to draw; `gencomp slurm ais` measures"
            " it with --bdmc-images 16"
        )


def band(measured: Sequence[MeasuredCurve]) -> str:
    """The meaning of the bands of some curves, in words."""
    if all(one.means["images"] < 2 for one in measured):
        return "no band: the error of a single image is unknown"
    return "band: 95 % interval over images, at equal rate"


def images_and_chains(measured: Sequence[MeasuredCurve]) -> str:
    """The images of some curves in words, with the range of the numbers of chains per image."""
    first = measured[0]
    chains = sorted({one.plan.settings.chains for one in measured})
    said = "–".join(str(count) for count in dict.fromkeys((chains[0], chains[-1])))
    return f"{first.images_said}, {said} chains each"


def variational(path: Path, measured: Sequence[MeasuredCurve]) -> Variational:
    """The points of trained encoders from a JSON file with `points` and `protocol` like curve.json.

    Raises:
        InputError: the file cannot be read, or no curve has its decoder and its images.
    """
    found = _json(path)
    try:
        protocol, settings = found["protocol"], found["protocol"]["settings"]
        own = {name: protocol[name] for name in ("decoder", "data")}
        own |= {name: settings[name] for name in ("split", "images", "distortion")}
        rate_P, distortion_P = (
            np.array([float(point[name]) for point in found["points"]])
            for name in ("rate", "distortion")
        )
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} is no file of a variational curve, with the points' rate and distortion, and"
            " the protocol's decoder, data and settings (split, images, distortion)"
        ) from None
    for number, one in enumerate(measured):
        of_curve = {**one.means["protocol"], **one.means["protocol"]["settings"]}
        if all(of_curve[name] == value for name, value in own.items()):
            return Variational(number, rate_P, distortion_P)
    said = ", ".join(f"{name} {_short(value)}" for name, value in own.items())
    raise InputError(f"{path} is of {said}, and none of the evaluations of this figure is")


def operating_points(
    codecs: Sequence[metrics.RunResult], beside: MeasuredCurve
) -> list[OperatingPoint]:
    """The operating points of codecs in the units of a curve of squared errors.

    Args:
        codecs: the codecs' results with their series.
        beside: a curve of the figure.

    Raises:
        InputError: a codec has no rate or no MSE, or was measured on other images.
    """
    name, values = beside.plan.settings.distortion, beside.plan.values
    if (per_mse := distortion_per_mse(name, values, beside.value_range)) is None:
        raise InputError("--runs needs curves of squared errors: codecs are measured by their MSE")
    nats_per_bpp = 1 / nats_to_bpp(1.0, beside.plan.pixels)
    points = []
    for codec in codecs:
        point = codec.point("mse")
        if point is None:
            raise InputError(
                f"{codec.name} has no MSE; measure it with `gencomp evaluate RUN --metrics mse`"
            )
        _require_same_images(codec, beside)
        interval = point.interval and (point.interval[0] * per_mse, point.interval[1] * per_mse)
        rate = point.bpp * nats_per_bpp
        points.append(OperatingPoint(point.series, rate, point.value * per_mse, interval))
    return points


def _require_same_images(codec: metrics.RunResult, beside: MeasuredCurve) -> None:
    """Raise `InputError` if the codec was measured on other images than the curve."""
    images, plan = codec.images(), beside.plan
    own = (images.split.index_hash, images.split.name, images.rows)
    if own != (plan.data, plan.settings.split, plan.rows):
        raise InputError(
            f"{codec.name} was measured on {images.said} images and the curves on"
            f" {beside.images_said}: measure it on the same ones with `gencomp evaluate RUN --split"
            f" {shlex.quote(plan.settings.split)} --images {len(plan.rows)}`"
        )
    assert codec.run is not None
    (first,) = images.thinned(1).batches(codec.run.recipe())
    if (height_width := tuple(first.images_BCHW.shape[2:])) != (plan.height, plan.width):
        raise InputError(
            f"{codec.name} codes images of {height_width[0]}×{height_width[1]} pixels, but the"
            f" curves are of {plan.height}×{plan.width}"
        )


def _spread(values_IT: np.ndarray) -> np.ndarray:
    """The lower end of the band over images, the mean, and the upper end, [3, T]."""
    low_T, high_T = np.nanquantile(values_IT, _MIDDLE, axis=0)
    return np.stack([low_T, np.nanmean(values_IT, axis=0), high_T])


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path} is not JSON") from None
    return found if isinstance(found, dict) else {}


def _short(value: Any) -> str:
    """A hash, a list of images or a number, shortened for a message."""
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
