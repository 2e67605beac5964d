"""The files that `gencomp slurm collect` writes of a rate-distortion curve: images and means."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import shards
from cluster.evaluations.curve.plan import Evaluation
from cluster.evaluations.decoders import read_images
from gencomp.errors import InputError
from gencomp.report import Curve
from gencomp.report.content import MeasuredBound, SimulatedGap


def read(evaluation: Evaluation) -> Curve:
    """The curve of each image.

    Raises:
        InputError: the table lacks values that the means were computed from.
    """
    plan, content = evaluation.plan, means(evaluation)
    columns = pq.read_table(evaluation.path / "curve.parquet")
    points = len(content["points"])
    if columns.num_rows != content["images"] * points:
        raise InputError(
            f"{evaluation.path} was collected only in part; run `gencomp slurm collect` again"
        )
    values = {name: columns[name].to_numpy().reshape(-1, points) for name in columns.column_names}
    missing = (
        f"{content['images']} of {content['images_planned']} images are measured, "
        f"{len(content['missing_blocks'])} blocks are missing"
    )
    return Curve(
        beta_T=values["beta"][0],
        rate_IT=values["rate"],
        distortion_IT=values["distortion"],
        log_z_IT=values["log_z"],
        ess_IT=values["ess"],
        acceptance_IT=values["acceptance"],
        chains=plan.settings.chains,
        temperatures=plan.settings.temperatures,
        height=plan.height,
        width=plan.width,
        missing="" if content["complete"] else missing,
        single_chain_gap=content["protocol"].get("expected_single_chain_gap"),
        gaps=_gaps(content),
        bounds=_bounds(content),
    )


def _gaps(content: dict[str, Any]) -> list[SimulatedGap]:
    found = [
        SimulatedGap(
            one["beta"],
            one["gap"],
            one["gap_standard_error"],
            tuple(one["gap_interval"]),
            one.get("worst_gap"),
            one["images"],
        )
        for one in content["bdmc"]
    ]
    return sorted(found)


def _bounds(content: dict[str, Any]) -> list[MeasuredBound]:
    found = [
        MeasuredBound(
            one["beta"],
            one["missed"],
            one["missed_standard_error"],
            one["missed_at_least"],
            one["worst_missed_at_least"],
            len(one["flagged"]),
            one["images"],
            one["confidence"],
            one["tolerance"],
        )
        for one in content.get("certificate", ())
    ]
    return sorted(found)


def means(evaluation: Evaluation) -> dict[str, Any]:
    """The content of curve.json."""
    content: dict[str, Any] = json.loads(
        (evaluation.path / "curve.json").read_text(encoding="utf-8")
    )
    return content


def images(evaluation: Evaluation) -> list[np.ndarray]:
    """The images on which the curve was measured, in the curve's order, uint8 [H, W, 3] each.

    Raises:
        InputError: another shard set lies in the place of the one that was measured.
    """
    plan = evaluation.plan
    shard_set = shards.open_set(plan.shards)
    if shard_set.index_hash != plan.data:
        raise InputError(f"shard set {plan.shards} is another one than the curve was measured on")
    rows = pq.read_table(evaluation.path / "curve.parquet", columns=["image"])["image"].to_numpy()
    points = len(means(evaluation)["points"])
    split = shard_set.split(plan.settings.split)
    images_BCHW = read_images(evaluation.subject, split, rows[::points].tolist())
    return list(images_BCHW.permute(0, 2, 3, 1).numpy())
