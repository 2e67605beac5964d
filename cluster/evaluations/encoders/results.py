"""The result of trained encoders: rates and distortions of every image, and their means."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cluster.evaluations.curve.results import points_table, summaries
from cluster.evaluations.decoders import distortion_per_mse
from cluster.evaluations.encoders.plan import Evaluation, Plan
from cluster.evaluations.tables import Collected
from cluster.files import read_json, write_bytes, write_json


def protocol(plan: Plan) -> dict[str, str]:
    """The hashes of what encoders were trained and measured on."""
    return {"plan": plan.hash, "decoder": plan.decoder, "data": plan.data}


def write(evaluation: Evaluation, points_P2I: np.ndarray) -> None:
    """Write the points of each image to a table, and then their means to a JSON file.

    Args:
        evaluation: the evaluation, whose directory takes the files.
        points_P2I: the rates and distortions of I images after each of P betas.
    """
    plan, settings = evaluation.plan, evaluation.plan.settings
    rate_IP, distortion_IP = points_P2I.transpose(1, 2, 0)
    beta_P = np.array(settings.betas)
    images = len(plan.rows)
    table = pa.table(
        {
            "image": np.repeat(np.array(plan.rows), len(beta_P)),
            "beta": np.tile(beta_P, images),
            "rate": rate_IP.ravel(),
            "distortion": distortion_IP.ravel(),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"gencomp": json.dumps(protocol(plan))}), buffer)
    write_bytes(evaluation.path / "variational.parquet", buffer.getvalue())
    columns = {
        "rate": rate_IP,
        "distortion": distortion_IP,
        "lagrangian": rate_IP + beta_P * distortion_IP,
    }
    per_mse = distortion_per_mse(settings.distortion, plan.values, plan.value_range)
    means = summaries(columns, plan.pixels, per_mse)
    content = {
        "images": images,
        "points": [{"beta": b, **m} for b, m in zip(settings.betas, means, strict=True)],
        "protocol": {
            **protocol(plan),
            **plan.named_checkpoint,
            "training_data": plan.training_data,
            "prior": plan.prior,
            "estimator": "Gaussian encoders trained with the decoder frozen, one for each beta",
            "settings": settings.model_dump(mode="json"),
            "shards": plan.shards,
            "stored": plan.stored,
            "height": plan.height,
            "width": plan.width,
            "values": plan.values,
            "versions": {"gencomp": plan.gencomp, "torch": torch.__version__},
        },
    }
    write_json(evaluation.result, content)


def shown(evaluation: Evaluation) -> Collected:
    """The finished result in words."""
    content: dict[str, Any] = read_json(evaluation.result) or {}
    table = points_table(content["points"], [])
    return Collected([table], [], [], evaluation.result, content["images"], [])
