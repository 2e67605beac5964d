"""Parts are merged into metrics: values with intervals, counts and the protocol behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cluster import provenance
from cluster.evaluations.metrics import parts
from cluster.evaluations.metrics.parts import FeatureSet, StoredFeatures
from cluster.evaluations.metrics.plan import Evaluation, Plan
from cluster.evaluations.metrics.settings import Settings
from cluster.evaluations.tables import Collected, finite, metrics_table
from cluster.files import write_text
from gencomp.errors import InputError
from gencomp.evaluation import (
    frechet,
    intervals,
    kernel,
    pixels,
    segmentation,
    sliced_wasserstein,
)
from gencomp.evaluation.feature_inputs import distance_names
from gencomp.evaluation.frechet import Gaussian
from gencomp.evaluation.psnr import psnr, psnr_ends, psnr_of_each
from gencomp.system import Codec

_VALUES = ("mse", "ms_ssim", "lpips", "dists", "pv", "rate0_mse", "rate0_pv", "bpp", "file_bpp")
# The sets of features that are compared with the features of the images, and what stands before the
# names of their distances.
_COMPARED: dict[FeatureSet, str] = {"reconstructions": "r", "rate0": "rate0_r", "samples": "s"}

_OTHER_SETS: tuple[FeatureSet, ...] = ("latents", "prior", "image_slices", "made_slices")


class Result(NamedTuple):
    """The result that was merged from parts.

    Attributes:
        content: the content of metrics.json.
        missing: the numbers of the blocks without a part.
    """

    content: dict[str, Any]
    missing: list[int]


class Parts(NamedTuple):
    """The content of the existing parts, without their features.

    Attributes:
        values: name of a metric -> its values, float64 [N].
        sums: name of a tensor -> its int64 sums over pixels.
        segmented: set of images -> what was counted in them, int64 [N, 3, K].
        rows: set of features -> block -> number of rows of each of its items, for the blocks that
            hold the set.
        metadata: the metadata of the parts.
    """

    values: dict[str, np.ndarray]
    sums: dict[str, Tensor]
    segmented: dict[str, np.ndarray]
    rows: dict[FeatureSet, dict[int, np.ndarray]]
    metadata: list[dict[str, str]]


def collect(evaluation: Evaluation, require_all: bool = False) -> Result:
    """Merge the parts that exist and write `metrics.json`.

    Raises:
        InputError: there is no part of images yet, a part is damaged or belongs to another
            protocol, or (require_all) blocks are missing; then nothing is written.
    """
    plan, missing = evaluation.plan, evaluation.missing()
    if require_all and missing:
        raise InputError(f"{evaluation.path} lacks {len(missing)} of {len(plan.blocks)} blocks")
    torch.set_num_threads(plan.settings.threads)
    found = _read(evaluation, missing)
    images = sum(
        len(block.items)
        for number, block in enumerate(plan.blocks)
        if block.kind == "images" and number not in missing
    )
    if not images:
        raise InputError(f"{evaluation.path} has no finished block of images yet")
    warnings: list[str] = []
    metrics = _of_values(found.values, plan.settings)
    metrics |= _of_features(evaluation, found, warnings)
    if plan.settings.asks("mmd"):
        metrics |= _of_latents(evaluation, found, warnings)
    if plan.settings.asks("swd"):
        metrics |= _of_slices(evaluation, found)
    if plan.settings.asks("miou"):
        metrics |= _of_segments(found, warnings)
    codec = evaluation.run.system().codec()
    if codec is not None and (rate := _nominal_rate(codec, plan)) is not None:
        metrics["nominal_bpp"] = {"value": rate}
    if plan.settings.asks("pv"):
        metrics["pv"]["draws"] = plan.settings.draws
    if plan.settings.asks("rate0"):
        metrics["rate0_pv"]["draws"] = metrics["rate0_mse"]["draws"] = plan.settings.draws
    content: dict[str, Any] = {
        "run": evaluation.run.name,
        "complete": not missing,
        "images": images,
        "images_planned": plan.settings.images,
        "missing_blocks": missing,
        "metrics": metrics,
        "warnings": warnings,
    }
    if plan.settings.asks("rate0") and not plan.sizes:
        content["zero_rate_identity"] = _identity(found, images, plan.settings.draws)
    content["protocol"] = {
        "hash": plan.hash,
        **plan.model_dump(mode="json"),
        "versions": provenance.of_parts(found.metadata),
    }
    content["environment"] = provenance.recorded(evaluation.path)
    write_text(evaluation.result, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")
    return Result(content, missing)


def _nominal_rate(codec: Codec, plan: Plan) -> float | None:
    """The bits per pixel of all measured images at the codec's fixed length, if it has one."""
    bits, values = 0.0, 0
    for height, width, images in plan.every_size:
        if (of_image := codec.nominal_bits(height, width)) is None:
            return None
        bits, values = bits + images * of_image, values + images * height * width
    return bits / values


def _read(evaluation: Evaluation, missing: list[int]) -> Parts:
    """Read and check the parts, one at a time."""
    values: dict[str, list[np.ndarray]] = {}
    segmented: dict[str, list[np.ndarray]] = {}
    found = Parts({}, {}, {}, {}, [])
    for block in range(len(evaluation.plan.blocks)):
        if block in missing:
            continue
        tensors, metadata = parts.read_part(evaluation, block)
        found.metadata.append(metadata)
        for name, tensor in tensors.items():
            if name in _VALUES:
                values.setdefault(name, []).append(tensor.numpy())
            elif name.startswith("segmentation/"):
                segmented.setdefault(name, []).append(tensor.numpy())
            elif name.startswith("pixels/"):
                found.sums[name] = found.sums[name] + tensor if name in found.sums else tensor
        for which in (*_COMPARED, "images", *_OTHER_SETS):
            if (features := tensors.get(parts.feature_name(which))) is not None:
                found.rows.setdefault(which, {})[block] = (
                    tensors[parts.PATCHES].numpy()
                    if parts.PATCHES in tensors and which in parts.OF_PATCHES
                    else np.ones(len(features), np.int64)
                )
    found.values.update({name: np.concatenate(those) for name, those in values.items()})
    found.segmented.update({name: np.concatenate(those) for name, those in segmented.items()})
    return found


def _of_values(values: dict[str, np.ndarray], settings: Settings) -> dict[str, dict[str, Any]]:
    """The means over images, with intervals."""
    metrics: dict[str, dict[str, Any]] = {}
    for name in _VALUES:
        if name not in values:
            continue
        mean, count = float(values[name].mean()), len(values[name])
        ends = intervals.at_least(0.0, intervals.of_mean(values[name]))
        metrics[name] = _entry(mean, ends, count)
        if name == "mse" and settings.asks("psnr"):
            metrics["psnr"] = _entry(psnr(mean), psnr_ends(ends), count)
            metrics["mean_psnr"] = _mean_psnr(values[name])
    return metrics


def _mean_psnr(mse_N: np.ndarray) -> dict[str, Any]:
    """The mean of the PSNR of each image, which an image without error makes infinite."""
    each_N = psnr_of_each(mse_N)
    finite_ends = intervals.of_mean(each_N) if np.isfinite(each_N).all() else None
    return _entry(float(each_N.mean()), finite_ends, len(each_N))


def _of_features(
    evaluation: Evaluation, found: Parts, warnings: list[str]
) -> dict[str, dict[str, Any]]:
    """The distances of every set of features from the features of the images."""
    settings = evaluation.plan.settings
    metrics: dict[str, dict[str, Any]] = {}
    compared = [which for which in _COMPARED if which in found.rows]
    if not compared:
        return metrics
    images = _stored(evaluation, found, "images")
    reference = images.sums().gaussian() if settings.asks("fid") and len(images) > 1 else None
    for which in compared:
        names = distance_names(settings.features or "", settings.patches)
        fid, kid = (_COMPARED[which] + name for name in names)
        others = _stored(evaluation, found, which)
        counts = {"samples": len(others)} if which == "samples" else {}
        rows = int(images.rows_N.sum()), int(others.rows_N.sum())
        if settings.patches is not None:
            counts["patches"] = rows[0]
        if min(len(images), len(others)) < 2:
            what = "samples" if len(others) < 2 and which == "samples" else "images"
            warnings.append(f"{fid} and {kid} are left out: they need two {what} or more")
            continue
        if reference is not None:
            dimension = len(reference.mean_D)
            metrics[fid] = _frechet(images, reference, others) | counts
            if min(rows) <= dimension:
                what = "images" if settings.patches is None else "patches"
                warnings.append(
                    f"{fid} compares {rows[1]} with {rows[0]} {what} of {dimension} "
                    f"features: with no more {what} than features it is biased far upwards, and "
                    f"compares only with values of the same counts ({kid} is not biased)"
                )
        if settings.asks("kid"):
            metrics[kid] = _kernel(images, others, kernel.cubic) | counts
    return metrics


def _of_latents(
    evaluation: Evaluation, found: Parts, warnings: list[str]
) -> dict[str, dict[str, Any]]:
    """The kernel distance of the latents from as many samples of the prior."""
    latents, prior = (_stored(evaluation, found, which) for which in ("latents", "prior"))
    if len(latents) < 2:
        warnings.append("mmd is left out: it needs two images or more")
        return {}
    entry = _kernel(latents, prior, kernel.inverse_multiquadric)
    return {"mmd": entry | {"samples": len(prior)}}


def _of_slices(evaluation: Evaluation, found: Parts) -> dict[str, dict[str, Any]]:
    """The sliced Wasserstein distance of images and their reconstructions."""
    images, made = (
        stored.at(np.arange(len(stored)))
        for stored in (
            _stored(evaluation, found, which) for which in ("image_slices", "made_slices")
        )
    )
    distance = sliced_wasserstein.distance(images, made)
    ends = intervals.at_least(0.0, intervals.of_mean(distance.influence_N + distance.value))
    return {"swd": _entry(distance.value, ends, len(images))}


def _of_segments(found: Parts, warnings: list[str]) -> dict[str, dict[str, Any]]:
    """The mean intersection over union in reconstructions, and in the images themselves."""
    metrics: dict[str, dict[str, Any]] = {}
    for name, which in (("miou", "reconstructions"), ("miou_images", "images")):
        counts_N3K = found.segmented[parts.segmentation_name(which)]
        if (iou := segmentation.mean_iou(counts_N3K)) is None:
            warnings.append("miou is left out: no pixel has a label that the network knows")
            return {}
        ends = intervals.of_mean(iou.value + iou.influence_N)
        within = ends and (max(ends[0], 0.0), min(ends[1], 1.0))
        metrics[name] = _entry(iou.value, within, len(counts_N3K)) | {"classes": iou.classes}
    return metrics


def _stored(evaluation: Evaluation, found: Parts, which: FeatureSet) -> StoredFeatures:
    files = found.rows[which]
    return StoredFeatures(which, [evaluation.part(b) for b in files], list(files.values()))


def _frechet(images: StoredFeatures, reference: Gaussian, others: StoredFeatures) -> dict[str, Any]:
    fitted = others.sums().gaussian()
    forth = frechet.Transport(reference, fitted)
    value = frechet.distance(reference, fitted, forth)
    of_images = images.by_item(frechet.influence(images.blocks(), reference, fitted, forth).numpy())
    of_others = others.by_item(frechet.influence(others.blocks(), fitted, reference).numpy())
    if _paired(images, others):
        ends = intervals.of_mean(of_images + of_others + value)
    else:
        ends = intervals.of_mean(of_images + value, of_others)
    return _entry(value, intervals.at_least(0.0, ends), len(images))


def _kernel(images: StoredFeatures, others: StoredFeatures, form: kernel.Kernel) -> dict[str, Any]:
    """The kernel distance of two sets of features.

    Args:
        images: the features of the images, whose number goes into the entry.
        others: the features to compare.
        form: the form of the kernel.
    """
    both = images, others
    rows = max(int(which.rows_N.sum()) for which in both)
    count = kernel.subsets(len(images), len(others), rows)
    paired = _paired(images, others)

    def subset(number: int) -> kernel.KernelDistance:
        items = [kernel.members(number, count, len(which)) for which in both]
        x, y = (which.at(of) for which, of in zip(both, items, strict=True))
        of_x, of_y = (which.rows_N[of] for which, of in zip(both, items, strict=True))
        patched = len(x) > len(of_x) or len(y) > len(of_y)
        return kernel.subset_distance(x, y, paired, form, (of_x, of_y) if patched else None)

    whole = kernel.mean([subset(number) for number in range(count)])
    return _entry(whole.value, whole.interval, len(images)) | {"subsets": count}


def _paired(images: StoredFeatures, others: StoredFeatures) -> bool:
    """Whether row i of both sets may depend on image i.

    A sample has the maps of the image of its number, where the method takes maps; only samples of
    the prior of latents know no image. Pairs that are independent lose nothing by being called so.
    """
    return others.which != "prior" and len(images) == len(others)


def _identity(found: Parts, images: int, draws: int) -> dict[str, float]:
    """Both sides of the identity E MSE(0) = Var(X) + PV(0) + |E X − E G(Z)|²."""
    originals = pixels.PixelSums(
        images, found.sums[parts.PIXEL_TOTAL], found.sums[parts.PIXEL_SQUARES]
    )
    both = pixels.zero_rate(
        float(found.values["rate0_mse"].mean()),
        originals,
        found.sums[parts.DRAWN_TOTAL].double() / (images * draws),
        float(found.values["rate0_pv"].mean()),
        draws,
    )
    return {**both._asdict(), "right_side": both.right_side}


def _entry(value: float, ends: tuple[float, float] | None, count: int) -> dict[str, Any]:
    return {"value": value, "interval": ends and list(ends), "images": count}


def shown(evaluation: Evaluation, result: Result) -> Collected:
    """The metrics in words, with the warnings that the reader must not overlook."""
    content = result.content
    counted = {name: name for name in ("images", "samples", "draws")}
    table = metrics_table(content["run"], content["metrics"], counted)
    notes = []
    if other := evaluation.plan.toward:
        share = evaluation.plan.settings.share
        notes.append(f"images between its decoder and that of {Path(other).name}, share {share:g}")
    if file := evaluation.plan.features_file:
        notes.append(f"features of {Path(file).name}, SHA-256 {evaluation.plan.settings.features}")
    if identity := content.get("zero_rate_identity"):
        notes.append(
            f"rate 0: MSE {identity['mse']:.6g}; variance of images, variance of draws and distance"
            f" of means add up to {identity['right_side']:.6g}"
        )
    return Collected(
        [table], notes, content["warnings"], evaluation.result, content["images"], result.missing
    )
