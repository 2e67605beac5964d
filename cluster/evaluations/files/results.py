"""Parts are merged into rates: means over pictures with intervals, and the protocol behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cluster import provenance
from cluster.evaluations.evaluation import name_blocks
from cluster.evaluations.files import parts
from cluster.evaluations.files.plan import Evaluation
from cluster.evaluations.files.settings import Settings
from cluster.evaluations.tables import Collected, Table, finite, metrics_table
from cluster.files import write_json
from gencomp.coding.symbols import LayerSymbols
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.evaluation.psnr import psnr, psnr_ends

_RATES = {
    "bpp": "code_bits",
    "file_bpp": "file_bits",
    "nominal_bpp": "nominal_bits",
    "ideal_bpp": "ideal_bits",
}
_COLOURS = 3
_SECONDS = ("encode_seconds", "decode_seconds")


class Result(NamedTuple):
    """The result that was merged from parts.

    Attributes:
        content: the content of rates.json.
        missing: the numbers of the blocks without a part.
    """

    content: dict[str, Any]
    missing: list[int]


def collect(evaluation: Evaluation, require_all: bool = False) -> Result:
    """Merge the parts that exist and write `rates.json`.

    Raises:
        InputError: there is no part yet, a part is damaged or belongs to another plan, or
            (`require_all`) blocks are missing; then nothing is written.
    """
    plan, missing = evaluation.plan, evaluation.missing()
    there = [block for block in range(len(plan.blocks)) if block not in missing]
    if require_all and missing:
        raise InputError(f"{evaluation.path} lacks {name_blocks(evaluation.block_sizes, missing)}")
    if not there:
        raise InputError(f"{evaluation.path} has no finished block yet")
    read = [parts.read_part(evaluation, block) for block in there]
    single, joint = (
        [
            {name: tensor.numpy() for name, tensor in tensors.items()}
            for block, (tensors, _) in zip(there, read, strict=True)
            if plan.blocks[block].kind == kind
        ]
        for kind in ("single", "joint")
    )
    if not single:
        raise InputError(f"{evaluation.path} has no finished block of single files yet")
    values = {name: np.concatenate([one[name] for one in single]) for name in single[0]}
    metrics = (
        summary(values)
        | of_parts(plan.parts, values)
        | joint_rates(joint)
        | engineered(plan.settings, values, joint)
    )
    if not values["mse"].any():  # nothing was lost
        metrics |= by_dimension(metrics)
    content = {
        "run": evaluation.run.name,
        "complete": not missing,
        "images": len(values["pixels"]),
        "images_planned": plan.settings.images,
        "missing_blocks": missing,
        "metrics": metrics,
        "symbols": [
            {"levels": layer.levels, "bits": list(layer.bits_K)}
            for layer in evaluation.run.system().symbols()
        ],
        "protocol": {
            "hash": plan.hash,
            **plan.model_dump(mode="json"),
            "versions": provenance.of_parts(metadata for _, metadata in read),
        },
        "environment": provenance.recorded(evaluation.path),
    }
    write_json(evaluation.result, finite(content))
    return Result(content, missing)


def summary(values: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Means over pictures with intervals, and medians of seconds.

    Args:
        values: each name of `parts.VALUES`, and of `parts.IDEAL_VALUES` where there are any -> its
            values, float64 [N].
    """
    found: dict[str, dict[str, Any]] = {}
    for name, bits in _RATES.items():
        if bits in values:
            found |= _mean(name, values[bits] / values["pixels"])
    found["bytes_alone"] = {
        "value": float(values["file_bits"].mean() / 8),
        "images": len(values["file_bits"]),
    }
    found |= _errors(values, "")
    if "ideal_mse" in values:
        found |= _errors(values, "ideal_")
    for name in _SECONDS:
        found[name] = {"value": float(np.median(values[name])), "images": len(values[name])}
    return found


def of_parts(names: Sequence[str], values: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """The rate of each part of files that have several.

    Args:
        names: the names of the parts.
        values: the bits of each part, and the pixels of each picture.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found |= _mean(f"{name}_bpp", values[f"{name}_bits"] / values["pixels"])
    return found


def engineered(
    settings: Settings, values: dict[str, np.ndarray], containers: Sequence[dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """The rates of engineered lossless codecs per dimension, alone and in archives.

    Args:
        settings: the settings, which name the codecs.
        values: the bits of each picture's files, and its pixels.
        containers: the bits of each archive, and the pixels of its pictures.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in settings.lossless:
        bits = f"{name}_bits"
        found |= _mean(f"{name}_bpd", values[bits] / values["pixels"] / _COLOURS)
        if containers:
            total, pixels = (
                sum(float(one[key][0]) for one in containers) for key in (bits, "pixels")
            )
            counts = {"images": int(sum(float(one["pictures"][0]) for one in containers))}
            entry = {"value": total / pixels / _COLOURS, **counts, "containers": len(containers)}
            found[f"joint_{name}_bpd"] = entry
    return found


def by_dimension(metrics: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rates per dimension, which is a colour value of a pixel: lossless coding is told so."""
    found = {}
    for name, entry in metrics.items():
        if name.endswith("bpp"):
            ends = entry.get("interval")
            interval = {"interval": [end / _COLOURS for end in ends]} if ends else {}
            scaled = {**entry, "value": entry["value"] / _COLOURS, **interval}
            found[f"{name.removesuffix('bpp')}bpd"] = scaled
    return found


def _errors(values: dict[str, np.ndarray], prefix: str) -> dict[str, dict[str, Any]]:
    """The errors of decoded pictures, or of ideal ones, whose names have a prefix."""
    found = _mean(f"{prefix}mse", values[f"{prefix}mse"])
    mse = found[f"{prefix}mse"]
    found[f"{prefix}psnr"] = {
        **mse,
        "value": psnr(mse["value"]),
        "interval": _listed(psnr_ends(mse["interval"])),
    }
    return found | _mean(f"{prefix}ms_ssim", values[f"{prefix}ms_ssim"])


def joint_rates(containers: Sequence[dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """The rates of joint containers together; they have no intervals, as pictures share bytes.

    Args:
        containers: for each container, name of `parts.JOINT_VALUES` -> its value, float64 [1].
    """
    if not containers:
        return {}
    total = {name: sum(float(one[name][0]) for one in containers) for name in parts.JOINT_VALUES}
    counts = {"images": int(total["pictures"]), "containers": len(containers)}
    return {
        name: {"value": total[bits] / total["pixels"], **counts}
        for name, bits in (("joint_bpp", "code_bits"), ("joint_file_bpp", "file_bits"))
    }


def _mean(name: str, values_N: np.ndarray) -> dict[str, dict[str, Any]]:
    """The entry of one value, over the pictures that have it; empty if no picture has it."""
    known_N = values_N[~np.isnan(values_N)]
    if not len(known_N):
        return {}
    ends = intervals.at_least(0.0, intervals.of_mean(known_N))
    entry = {"value": float(known_N.mean()), "interval": _listed(ends), "images": len(known_N)}
    return {name: entry}


def _listed(ends: tuple[float, float] | None) -> list[float] | None:
    return ends and list(ends)


def shown(evaluation: Evaluation, result: Result) -> Collected:
    """The rates in words."""
    content = result.content
    counted = {"images": "pictures", "containers": "containers"}
    tables = [metrics_table(content["run"], content["metrics"], counted)]
    layers = [LayerSymbols(one["levels"], one["bits"]) for one in content["symbols"]]
    if layers:
        tables.append(symbols_table(layers))
    return Collected(tables, [], [], evaluation.result, content["images"], result.missing)


def symbols_table(layers: Sequence[LayerSymbols]) -> Table:
    """The entropy of the symbols of each latent, with all of a layer's latents at its end."""
    rows = []
    for number, layer in enumerate(layers, start=1):
        fixed = layer.fixed_bits / len(layer.bits_K)
        for latent, bits in enumerate(layer.bits_K, start=1):
            rows.append(
                [str(number), str(latent), str(layer.levels), f"{bits:.4f}", f"{fixed:.4f}"]
            )
        rows.append([str(number), "all", "", f"{layer.bits:.4f}", f"{layer.fixed_bits:.4f}"])
    return Table(
        ["layer", "latent", "levels", "entropy, bits", "log2 L"],
        rows,
        "symbols of an image",
        "entropies given what sender and receiver share, by the coder's tables of training images",
    )
