"""The metrics of runs as operating points, each with the protocol by which it was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.checkpoints.store import LAST
from cluster.data import evaluation_protocol, open_evaluation_set
from cluster.results import file_rates, latents, pictures
from cluster.results.file_rates import FileRates
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.evaluation.feature_inputs import network_name, whole_name
from gencomp.evaluation.psnr import psnr_ends
from gencomp.figures.curves import Panel, Point

_SEED = 7  # the default seed of evaluations
_Found = tuple[float, tuple[float, float] | None, dict[str, Any]]  # value, interval, protocol
_OTHER_FILE = "{} is not a metrics.json of `gencomp evaluate`, nor JSON with the results of a curve"
_OF_DRAWS = ("pv", "rate0_pv")  # the metrics whose estimates depend on the number of draws
_OF_FEATURES = tuple(
    f"{place}r{name}" for place in ("", "rate0_") for name in ("fid", "kid", "fd", "kd")
)


@dataclass(frozen=True)
class RunResult:
    """The result of a run, of an evaluation, or of both.

    Attributes:
        name: the place that the result comes from, for messages.
        series: the line to which the result's points belong; empty until one is given, as by
            `joined`.
        run: the run, if it is at hand.
        evaluation: the content of metrics.json, if there is an evaluation.
        rates: the rates of the run's real files, if they were measured.
        files: the name of the evaluation that measures them.
    """

    name: str
    series: str
    run: Run | None
    evaluation: dict[str, Any] | None
    rates: FileRates | None = None
    files: str = "files"

    def point(self, metric: str, bpp: float | None = None) -> Point | None:
        """A metric as a point; None if this result does not have the metric.

        Args:
            metric: the metric's name in metrics.json, or mmd.
            bpp: the rate at which to draw the point, if not at the rate of the run's files.

        Raises:
            InputError: the run has no rate, or its files were not measured.
        """
        found = self._mmd() if metric == "mmd" else self._value(metric)
        if found is None:
            return None
        value, interval, protocol = found
        if interval is not None and not math.isfinite(interval[1]):
            interval = None  # the PSNR of an error that may be 0 has no upper end to draw
        if bpp is not None:
            return Point(self.series, bpp, value, interval, self.name, protocol)
        rates = self.measured_rates
        point = Point(self.series, rates.code_bpp, value, interval, self.name, protocol)
        return replace(point, file_bpp=rates.file_bpp, rate_of=rates.pictures)

    @property
    def bpp(self) -> float:
        """The measured rate of the run: bits of code in joint containers, per pixel.

        Raises:
            InputError: the run has no rate, or its files were not measured.
        """
        return self.measured_rates.code_bpp

    @cached_property
    def measured_rates(self) -> FileRates:
        """The rates of the run's real files, which belong to the weights and data of its metrics.

        Raises:
            InputError: the run has no codec, or its files were not measured or are others.
        """
        if self.rates is None:
            if self.run is None:
                raise InputError(
                    f"{self.name} lies outside its run, and no {file_rates.FILE} of `gencomp files`"
                    " lies beside it, so it has no rate"
                )
            pictures.require_codec(self.run)
            raise file_rates.missing([self.run.path], self.files)
        if self.evaluation is not None:
            own = self.evaluation["protocol"]
            split = own["settings"]["split"]
            self.rates.require(own["weights"], own["data"], split, own["transforms"])
        elif self.run is not None:
            recipe, weights = self.run.recipe(), self.run.final_checkpoint().networks_hash()
            index_hash = open_evaluation_set(self.run).index_hash
            split, transforms = recipe.evaluation.split, evaluation_protocol(recipe)
            self.rates.require(weights, index_hash, split, transforms)
        return self.rates

    def _value(self, metric: str) -> _Found | None:
        if self.evaluation is not None:
            entry = self.evaluation["metrics"].get(metric)
            if entry is None or entry["value"] is None:
                return None
            low, high = entry.get("interval") or (None, None)  # an end without a bound is None too
            interval = None if low is None or high is None else (low, high)
            return entry["value"], interval, self._protocol(metric)
        assert self.run is not None
        result = self.run.result() or {}
        if metric not in ("mse", "psnr") or metric not in result:
            return None
        ends = intervals.at_least(0.0, training_interval(result, "mse"))
        interval = ends if metric == "mse" else psnr_ends(ends)
        return result[metric], interval, self._protocol_of_training(result)

    def _mmd(self) -> _Found | None:
        """The MMD on the images of the other metrics, or on fewer of them if they are too many."""
        if self.run is None:
            return None
        images = self.images()
        if len(images.rows) > latents.MOST_IMAGES:
            images = images.thinned(latents.MOST_IMAGES)
        seed = (self.evaluation or {}).get("protocol", {}).get("settings", {}).get("seed", _SEED)
        try:
            found = latents.encoded(self.run, self.name, images, seed)
        except InputError:  # the latents of a baseline have no prior
            return None
        measured = latents.against_prior(found, seed)
        protocol = {
            "data": _short(images.split.index_hash),
            "data set": images.data_set,
            **_images(images.split.name, len(images.rows), len(images.split), self._which),
        }
        return measured.value, measured.interval, protocol

    def images(self) -> pictures.Images:
        """The images on which the metrics were measured.

        Raises:
            InputError: the run is not at hand.
        """
        if self.run is None:
            raise InputError(f"{self.name} lies outside its run, so its images are not known here")
        if self.evaluation is not None:
            chosen = self.evaluation["protocol"]["settings"]
            return pictures.choose_images([self.run], chosen["split"], chosen["images"])
        split = self.run.recipe().evaluation.split
        images = pictures.choose_images([self.run], split, None)
        count = int((self.run.result() or {}).get("images", len(images.rows)))
        return pictures.choose_rows(images, range(count))

    @property
    def _which(self) -> str:
        return "first" if self.evaluation is None else "evenly spaced"

    def _protocol(self, metric: str) -> dict[str, Any]:
        assert self.evaluation is not None
        plan = self.evaluation["protocol"]
        chosen = plan["settings"]
        found = {
            "data": _short(plan["data"]),
            "data set": plan["stored"]["name"],
            **_images(
                chosen["split"], self.evaluation["images"], plan["split_images"], self._which
            ),
            "the geometry of images": plan["stored"].get("geometry"),
            "the rule of pixels": plan["rules"].get("pixels"),
            "the transforms of images": plan["transforms"],
        }
        if (kind := chosen.get("reconstructions", "networks")) != "networks":
            found["the source of reconstructions"] = kind
        if metric in _OF_DRAWS:
            found["draws of each image"] = chosen["draws"]
        if whole_name(metric)[0] in _OF_FEATURES:
            found["feature network"] = network_name(chosen["features"])
            found["input of the feature network"] = chosen["features_input"]
        return found

    def _protocol_of_training(self, result: dict[str, Any]) -> dict[str, Any]:
        assert self.run is not None
        recipe = self.run.recipe()
        shard_set = open_evaluation_set(self.run)
        held_out = shard_set.split(recipe.evaluation.split)
        return {
            "data": _short(held_out.index_hash),
            "data set": shard_set.info.name,
            **_images(held_out.name, int(result["images"]), len(held_out), self._which),
            "the geometry of images": shard_set.info.transform.geometry,
            "the rule of pixels": "reconstructions not rounded; errors on the scale [-1, 1]",
            "the transforms of images": evaluation_protocol(recipe),
        }


def training_interval(result: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of a metric at the end of a training; None where its error is unknown.

    Args:
        result: the content of result.json.
        name: the metric, whose error is `<name>_standard_error`.
    """
    error = result.get(f"{name}_standard_error")
    if error is None:
        return None
    return intervals.of_estimate(result[name], error, int(result["images"]) - 1)


def joined(measured: Sequence[RunResult]) -> list[RunResult]:
    """Results without labels, each joined to its series.

    Results whose recipes differ only in keys that set the rate share a series. Results without a
    run have a series with the name of their system.
    """
    runs = [one.run for one in measured if one.run is not None]
    names = iter(pictures.differing(runs, rates=False) if runs else ())
    return [
        replace(one, series=_system(one) if one.run is None else next(names)) for one in measured
    ]


def remarks(panels: Sequence[Panel]) -> list[str]:
    """The images on which the points were measured; one line if all axes agree."""
    metrics: dict[str, list[str]] = {}
    for panel in panels:
        known = (point.protocol for point in panel.points if point.protocol is not None)
        if (protocol := next(known, None)) is None:
            continue
        said = f"{protocol['data set']}, {protocol['split']} split, {protocol['images']}"
        if "the source of reconstructions" in protocol:
            said += ", reconstructed from files"
        draws = protocol.get("draws of each image")
        name = f"{panel.metric} from {draws} draws of each" if draws else panel.metric
        if network := protocol.get("feature network"):
            name += f" by the feature network {network}"
        metrics.setdefault(said, []).append(name)
    lines = [f"{said}: {', '.join(names)}" for said, names in metrics.items()]
    points = [point for panel in panels for point in panel.points]
    for behind in dict.fromkeys(point.rate_of for point in points if point.rate_of):
        lines.append(
            f"rates: code in joint containers of {behind}; a thin line ends at all their bits"
        )
    if unknown := dict.fromkeys(point.series for point in points if point.protocol is None):
        lines.append(f"{', '.join(unknown)}: protocol as the file says: unknown")
    if any(point.kind == "classical" for point in points):
        lines.append("rates of classical codecs: all bits of one archive of their files")
    return [*lines, "bars: 95 % intervals over images"]


def of_run(path: Path, evaluation: str, files: str) -> RunResult:
    """A finished run with its evaluation and its rates of given names, as far as they are there.

    Args:
        path: the run's directory.
        evaluation: the name of its metrics.
        files: the name of the measurement of its files.

    Raises:
        InputError: the directory holds no finished run, or an evaluation is not complete.
    """
    file = path / "evaluations" / evaluation / "metrics.json"
    content = _content(file) if file.is_file() else None
    run = _finished(path, content)
    return RunResult(str(path), "", run, content, file_rates.of_run(path, files), files)


def of_file(path: Path, files: str) -> RunResult:
    """A metrics.json, with its run and the run's rates if it lies in one.

    Outside a run, the rates are those of a rates.json beside it.

    Raises:
        InputError: the file cannot be read, is something else, or is not complete.
    """
    content = _content(path)
    place = path.absolute().parents
    inside = len(place) > 2 and place[1].name == "evaluations"
    if not (inside and (place[2] / "identity.json").is_file()):
        beside = file_rates.read(path.with_name(file_rates.FILE))
        return RunResult(str(path), "", None, content, beside, files)
    rates = file_rates.of_run(place[2], files)
    return RunResult(str(path), "", _finished(place[2], content), content, rates, files)


def _finished(path: Path, content: dict[str, Any] | None) -> Run:
    """The run of an evaluation, with the checkpoint that was measured."""
    protocol = {} if content is None else content["protocol"]
    return pictures.finished(path, protocol.get("checkpoint", LAST))


def _content(path: Path) -> dict[str, Any]:
    """The content of a complete metrics.json.

    Raises:
        InputError: the file cannot be read, is something else, or is not complete.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        complete, metrics, plan = content["complete"], content["metrics"], content["protocol"]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(_OTHER_FILE.format(path)) from None
    if not isinstance(metrics, dict) or not isinstance(plan, dict) or "settings" not in plan:
        raise InputError(_OTHER_FILE.format(path))
    if not complete:
        raise InputError(
            f"{path} is not complete: {len(content['missing_blocks'])} blocks are missing"
        )
    return content


def _images(split: str, images: int, of: int, which: str) -> dict[str, str]:
    said = f"all {of} images" if images == of else f"{images} of {of} images, {which}"
    return {"split": split, "images": said}


def _system(one: RunResult) -> str:
    assert one.evaluation is not None
    return str(one.evaluation["protocol"]["system"])


def _short(digest: Any) -> str:
    return str(digest)[:12]
