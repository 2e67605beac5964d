"""The parts of a curve are merged into the curve.

`curve.parquet` holds every measured image at every reported temperature. `curve.json` holds the
means over the images with intervals, and the certificates (`certificates`). For each
image and in expectation, rate + β·distortion lies above the least possible value at that β, and the
pair (rate, distortion) lies above the image's curve. The rate alone, or the distortion alone, at
one β may lie on either side of its exact value.
"""

from __future__ import annotations

import io
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.evaluations.curve import certificates, parts
from cluster.evaluations.curve.context import protocol
from cluster.evaluations.curve.plan import Evaluation, Plan
from cluster.evaluations.decoders import distortion_per_mse
from cluster.evaluations.evaluation import name_blocks
from cluster.evaluations.tables import Collected, Table
from cluster.files import write_bytes, write_json
from gencomp.errors import InputError
from gencomp.evaluation import intervals, scales
from gencomp.rate_distortion.certificate import GROUPS
from gencomp.rate_distortion.tuning import Tuning
from gencomp.rate_distortion.units import nats_to_bpp

_ESTIMATOR = "annealed importance sampling with resampling"
_DISTORTIONS = {
    "squared_error": "summed squared error",
    "gaussian_likelihood": "negative log-likelihood of a Gaussian with the decoder's variance",
    "features": "summed squared error of a network's features",
}


class CollectedCurve(NamedTuple):
    """The result that was merged from parts.

    Attributes:
        table: one row per measured image and reported temperature.
        means: the content of curve.json.
        missing: the numbers of the blocks without a part.
    """

    table: pa.Table
    means: dict[str, Any]
    missing: list[int]


def collect(evaluation: Evaluation, require_all: bool = False) -> CollectedCurve:
    """Merge the parts that exist, and write `curve.parquet` and `curve.json`.

    Raises:
        InputError: there is no part of measured images yet, the parts have different protocols, or
            (require_all) blocks are missing; then nothing is written.
    """
    plan = evaluation.plan
    missing = evaluation.missing()
    there = [block for block in range(len(plan.blocks)) if block not in set(missing)]
    measured = [block for block in there if plan.blocks[block].kind == "measure"]
    if not measured:
        raise InputError(
            f"{evaluation.path} has no finished block yet; "
            f"`gencomp slurm status {shlex.quote(str(evaluation.path))}` shows where the jobs stand"
        )
    if require_all and missing:
        raise InputError(f"{evaluation.path} lacks {name_blocks(evaluation.block_sizes, missing)}")
    tuning = Tuning.load(evaluation.tuning)
    shared = protocol(plan, tuning)
    tables, modes, versions = _read(evaluation, there, shared)
    curve = pa.concat_tables([tables[block] for block in measured])
    points = _points(curve, plan)
    means = {
        "complete": not missing,
        "images": len(curve) // len(plan.reported),
        "images_planned": len(plan.rows),
        "missing_blocks": missing,
        "missing_images": _rows(plan, missing),
        "points": points,
        "bdmc": certificates.gaps(tables, plan, tuning, points),
        **_certified(tables, modes, plan, tuning),
        "protocol": {
            **shared,
            **_stated(plan, tuning),
            "versions": [{"gencomp": g, "torch": t} for g, t in sorted(versions)],
        },
    }
    buffer = io.BytesIO()
    schema = {"gencomp": json.dumps({**shared, "complete": not missing})}
    pq.write_table(curve.replace_schema_metadata(schema), buffer)
    write_bytes(evaluation.path / "curve.parquet", buffer.getvalue())
    write_json(evaluation.path / "curve.json", means)
    return CollectedCurve(curve, means, missing)


def _read(
    evaluation: Evaluation, blocks: Iterable[int], shared: Mapping[str, str]
) -> tuple[dict[int, pa.Table], dict[int, list[int]], set[tuple[str, str]]]:
    """Read and check the parts of some blocks.

    Returns:
        The table of each block, the modes of each block, and the versions of gencomp and of torch.
    """
    tables, modes, versions = {}, {}, set()
    for block in blocks:
        table, found = parts.read(evaluation.part(block))
        expected = {**shared, "block": str(block), "kind": evaluation.plan.blocks[block].kind}
        _check(evaluation, block, table, found, expected)
        versions.add((found["gencomp"], found["torch"]))
        modes[block] = found.get("modes", [])
        tables[block] = table.drop_columns("kind").replace_schema_metadata(None)
    return tables, modes, versions


def _stated(plan: Plan, tuning: Tuning) -> dict[str, Any]:
    """The part of the protocol that only the merged curve states."""
    return {
        "subject": plan.identity()["subject"],
        **plan.named_checkpoint,
        "prior": plan.prior,
        "estimator": f"{_ESTIMATOR}; {_DISTORTIONS[plan.settings.distortion]}",
        "settings": plan.settings.model_dump(mode="json"),
        "shards": plan.shards,
        "stored": plan.stored,
        "height": plan.height,
        "width": plan.width,
        "values": plan.values,
        "expected_single_chain_gap": tuning.expected_gap,
        "interval": intervals.RULE,
    }


def _certified(
    tables: Mapping[int, pa.Table], modes: Mapping[int, list[int]], plan: Plan, tuning: Tuning
) -> dict[str, Any]:
    """The entry of the measured images' certificate; empty if none was asked for."""
    if not plan.settings.certify:
        return {}
    return {"certificate": certificates.certificates(tables, modes, plan, tuning)}


def _check(
    evaluation: Evaluation,
    block: int,
    table: pa.Table,
    found: dict[str, Any],
    expected: dict[str, str],
) -> None:
    path = evaluation.part(block)
    for key, value in expected.items():
        if found.get(key) != value:
            raise InputError(
                f"{path} belongs to another curve: its {key} is {found.get(key)}, not {value}; "
                "remove it and run `gencomp slurm ais` again"
            )
    plan = evaluation.plan
    many = {"measure": len(plan.reported), "repeat": len(plan.reported), "certify": GROUPS}
    points = many.get(expected["kind"], 1)
    if not np.array_equal(table["image"], np.repeat(plan.blocks[block].items, points)):
        raise InputError(
            f"{path} does not hold the images of block {block}; remove it and measure again"
        )


def _rows(plan: Plan, blocks: Iterable[int]) -> list[int]:
    """The images of the split that some blocks measure."""
    chosen = (plan.blocks[block] for block in blocks)
    return [row for block in chosen if block.kind == "measure" for row in block.items]


def _points(curve: pa.Table, plan: Plan) -> list[dict[str, Any]]:
    """The points of the curve: one entry per reported temperature."""
    points = len(plan.reported)
    column = {name: curve[name].to_numpy().reshape(-1, points) for name in curve.column_names}
    averaged = {name: column[name] for name in ("rate", "distortion", "log_z")}
    averaged["lagrangian"] = -column["log_z"]
    distortion = plan.settings.distortion
    per_mse = distortion_per_mse(distortion, plan.values, plan.value_range)
    means = summaries(averaged, plan.pixels, per_mse)
    return [
        {
            "temperature": int(column["temperature"][0, p]),
            "beta": float(column["beta"][0, p]),
            **means[p],
            "log_z_integral": float(column["log_z_integral"][:, p].mean()),
            "ess": float(column["ess"][:, p].mean()),
            "ess_least": float(column["ess"][:, p].min()),
            "acceptance": float(column["acceptance"][:, p].mean()),
            "resampled": float(column["resampled"][:, p].mean()),
            "nonfinite": int(column["nonfinite"][:, p].sum()),
        }
        for p in range(points)
    ]


def summaries(
    columns: Mapping[str, np.ndarray], pixels: int, per_mse: float | None
) -> list[dict[str, Any]]:
    """Means over images with standard errors and intervals, one entry per point.

    Args:
        columns: name -> [I, P] values; among the names are rate (nats) and distortion (per image).
        pixels: height times width, for bits per pixel.
        per_mse: the distortion of an MSE of 1; None if distortions have no MSE.
    """
    points = columns["rate"].shape[1]
    result = []
    for p in range(points):
        means = {name: _mean(column[:, p]) for name, column in columns.items()}
        means["bpp"] = means["rate"].scaled(lambda nats: nats_to_bpp(nats, pixels))
        if per_mse is not None:
            means["mse"] = means["distortion"].scaled(lambda summed: summed / per_mse)
        entry: dict[str, Any] = {}
        for name, (value, error, interval) in means.items():
            entry |= {
                name: value,
                f"{name}_standard_error": error,
                f"{name}_interval": interval,
            }
        result.append(entry)
    return result


class _Mean(NamedTuple):
    """A mean over images, its standard error and the ends of its interval.

    The error of a single image is unknown (None), and so are the ends where an image has no finite
    value.
    """

    value: float
    standard_error: float | None
    interval: list[float] | None

    def scaled(self, convert: Callable[[float], float]) -> _Mean:
        """The same in another unit."""
        value, error, ends = self
        if error is None or ends is None:
            return _Mean(convert(value), None, None)
        return _Mean(convert(value), convert(error), [convert(end) for end in ends])


def _mean(values_I: np.ndarray) -> _Mean:
    mean, error = float(values_I.mean()), intervals.standard_error(values_I)
    ends = intervals.of_mean(values_I)
    return _Mean(mean, error if math.isfinite(error) else None, ends and list(ends))


def shown(evaluation: Evaluation, curve: CollectedCurve) -> Collected:
    """Ten points of a curve in words, and its certificates."""
    points = curve.means["points"]
    chosen = sorted({round(i * (len(points) - 1) / 9) for i in range(10)})
    quality = [("ESS", "ess", ".1f"), ("acceptance", "acceptance", ".2f")]
    tables = [points_table([points[i] for i in chosen], quality)]
    warnings = []
    if gaps := curve.means["bdmc"]:
        tables.append(certificates.gaps_table(gaps))
        warnings += certificates.gap_warnings(gaps)
    if certified := curve.means.get("certificate"):
        tables.append(certificates.certificates_table(certified))
        warnings += certificates.certificate_warnings(certified)
    return Collected(tables, [], warnings, evaluation.result, curve.means["images"], curve.missing)


def points_table(points: list[dict[str, Any]], quality: list[tuple[str, str, str]]) -> Table:
    """A table of rate and distortion at each beta.

    Args:
        points: the points of the result.
        quality: more columns, each with its heading, the name of its entry and its format.
    """
    # The distortion as an MSE of pixels on [−1, 1], where it has one; else per image.
    distortion = "mse" if "mse" in points[0] else "distortion"
    columns = [
        ("beta", "beta", ".4g"),
        ("rate [nats]", "rate", ".2f"),
        ("± s.e.", "rate_standard_error", ".2f"),
        ("bpp", "bpp", ".5f"),
        (distortion, distortion, ".5g"),
        ("± s.e.", f"{distortion}_standard_error", ".2g"),
        *quality,
    ]
    rows = [
        [certificates.shown_error(point[name], form) for _, name, form in columns]
        for point in points
    ]
    return Table([heading for heading, *_ in columns], rows, remark=scales.remark(points[0]))
