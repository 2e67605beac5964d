"""From parts to a curve.

`curve.parquet` holds every image at every reported temperature, `curve.json` the means over the
images. For each image and in expectation, rate + β·distortion lies above the least possible value
at that β, and so does the pair (rate, distortion) above the image's curve. Rate or distortion alone
at one β may lie on either side of its exact value.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.files import write_bytes
from gencomp.errors import InputError
from gencomp.rate_distortion.tuning import Tuning
from gencomp.rate_distortion.units import nats_to_bpp
from slurm import blocks, files
from slurm.plan import Evaluation

_SHARED = ("plan", "decoder", "data", "tuning")


class Curve(NamedTuple):
    """What was collected.

    Attributes:
        table: one row per image and reported temperature.
        means: the content of curve.json.
        missing: blocks without a part.
    """

    table: pa.Table
    means: dict[str, Any]
    missing: list[int]


def collect(evaluation: Evaluation, require_all: bool = False) -> Curve:
    """Merge the parts there are, and write `curve.parquet` and `curve.json`.

    Raises:
        InputError: no part yet, parts of different protocols, or (require_all) missing blocks; then
            nothing
            is written.
    """
    plan = evaluation.plan
    missing = evaluation.missing()
    there = [block for block in range(len(plan.blocks)) if block not in set(missing)]
    if not there:
        raise InputError(
            f"{evaluation.path} has no finished block yet; "
            f"`gencomp slurm status {evaluation.path}` shows where the jobs stand"
        )
    if require_all and missing:
        raise InputError(f"{evaluation.path} lacks {evaluation.name_blocks(missing)}")
    tuning = Tuning.load(evaluation.tuning)
    shared = blocks.protocol(plan, tuning)
    tables, versions = [], set()
    for block in there:
        table, protocol = blocks.read_part(evaluation.part(block))
        _check(evaluation, block, table, protocol, {**shared, "block": str(block)})
        versions.add((protocol["gencomp"], protocol["torch"]))
        tables.append(table.replace_schema_metadata(None))
    merged = pa.concat_tables(tables)
    means = {
        "complete": not missing,
        "images": len(merged) // len(plan.reported),
        "images_planned": len(plan.rows),
        "missing_blocks": missing,
        "missing_images": [row for block in missing for row in plan.blocks[block]],
        "points": _points(merged, evaluation),
        "protocol": {
            **shared,
            "estimator": "annealed importance sampling with resampling; summed squared error",
            "settings": plan.settings.model_dump(),
            "shards": plan.shards,
            "stored": plan.stored,
            "height": plan.height,
            "width": plan.width,
            "expected_single_chain_gap": tuning.expected_gap,
            "versions": [{"gencomp": g, "torch": t} for g, t in sorted(versions)],
        },
    }
    buffer = io.BytesIO()
    schema = {"gencomp": json.dumps({**shared, "complete": not missing})}
    pq.write_table(merged.replace_schema_metadata(schema), buffer)
    write_bytes(evaluation.path / "curve.parquet", buffer.getvalue())
    files.write_json(evaluation.path / "curve.json", means)
    return Curve(merged, means, missing)


def _check(
    evaluation: Evaluation,
    block: int,
    table: pa.Table,
    found: dict[str, str],
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
    images = np.repeat(np.array(plan.blocks[block]), len(plan.reported))
    if not table.schema.equals(blocks.SCHEMA) or not np.array_equal(table["image"], images):
        raise InputError(
            f"{path} does not hold the images of block {block}; remove it and measure again"
        )


def _points(merged: pa.Table, evaluation: Evaluation) -> list[dict[str, float | int]]:
    """Means over images with standard errors, one entry per reported temperature."""
    plan = evaluation.plan
    points = len(plan.reported)
    column = {name: merged[name].to_numpy().reshape(-1, points) for name in merged.column_names}
    values = 3 * plan.pixels
    lagrangian = -column["log_z"]
    result = []
    for p in range(points):
        rate, rate_error = _mean(column["rate"][:, p])
        distortion, distortion_error = _mean(column["distortion"][:, p])
        total, total_error = _mean(lagrangian[:, p])
        result.append(
            {
                "temperature": int(column["temperature"][0, p]),
                "beta": float(column["beta"][0, p]),
                "rate": rate,
                "rate_standard_error": rate_error,
                "bpp": nats_to_bpp(rate, plan.pixels),
                "bpp_standard_error": nats_to_bpp(rate_error, plan.pixels),
                "distortion": distortion,
                "distortion_standard_error": distortion_error,
                "mse": distortion / values,
                "mse_standard_error": distortion_error / values,
                "lagrangian": total,
                "lagrangian_standard_error": total_error,
                "ess": float(column["ess"][:, p].mean()),
                "ess_least": float(column["ess"][:, p].min()),
                "acceptance": float(column["acceptance"][:, p].mean()),
                "nonfinite": int(column["nonfinite"][:, p].sum()),
            }
        )
    return result


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over images (0 for a single image, where it is unknown)."""
    if len(values) == 1:
        return float(values[0]), 0.0
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
