"""A baseline at work: an encoder trained for one beta after another, and the result.

See `gencomp.rate_distortion.variational`.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

import shards
from cluster import data, tensor_files
from cluster.files import write_bytes
from cluster.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.rate_distortion import variational
from gencomp.rate_distortion.priors import Gaussian
from gencomp.system import LatentDecoder
from shards.reader import Split
from slurm import files
from slurm.baseline import Baseline, Plan, Settings
from slurm.blocks import load_chains, remove
from slurm.collect import summaries
from slurm.subject import open_decoder, read_images
from slurm.workplace import of_pixels

_BATCH = 256  # images that are read at once


@dataclass
class Training:
    """A baseline in flight. `at` is replaced as a whole, as that of a block."""

    baseline: Baseline
    run: variational.Run
    at: tuple[variational.VariationalState, Tensor]  # and [P, 2, I] rates and distortions so far

    ess = None

    @property
    def done(self) -> bool:
        return variational.done(self.run, self.at[0])

    @property
    def steps(self) -> int:
        return self.at[0].trained

    def advance(self) -> None:
        """One beta further."""
        state, points_P2I = self.at
        state, point = variational.advance(self.run, state)
        new_2I = torch.stack([point.rate_I, point.distortion_I]).cpu()
        self.at = state, torch.cat([points_P2I, new_2I[None]])

    def save(self) -> None:
        """Write encoder and points, whole or not at all; nothing once the result is there."""
        state, points_P2I = self.at
        if self.baseline.missing():
            encoder = {f"encoder.{name}": t.cpu() for name, t in state.encoder.items()}
            tensors = {**encoder, "points_P2I": points_P2I}
            tensor_files.write(self.baseline.chains, tensors, _protocol(self.baseline.plan))

    def finish(self) -> None:
        """Write the result; the encoder is not needed any more."""
        _write(self.baseline, self.at[1].numpy())
        remove(self.baseline.chains)


def open_training(baseline: Baseline) -> Training:
    """A baseline where its file stands, else at its start.

    Raises:
        InputError: decoder or data are no longer those of the plan.
        ShardError: an image cannot be read.
    """
    plan, chosen = baseline.plan, baseline.plan.settings
    recipe = baseline.run.recipe()
    training, _ = data.open_training(recipe)
    shard_set = shards.open_set(plan.shards)
    decoder, found = open_decoder(baseline.run, chosen.device)
    if (found, shard_set.index_hash, training.index_hash) != (
        plan.decoder,
        plan.data,
        plan.training_data,
    ):
        raise InputError(
            f"run {baseline.run.path} or its data are others than when {baseline.path} was planned"
        )
    images_BCHW = read_images(baseline.run, shard_set.split(chosen.split), plan.rows)
    # Rows of a mixture are read as those of a split.
    train_IN = _targets(baseline.run, cast(Split, training), decoder, chosen)
    assert isinstance(decoder.prior, Gaussian)  # as when it was planned
    encoder = variational.gaussian_encoder(plan.values, decoder.latent_dim, seed=chosen.seed)
    run = variational.Run(
        of_pixels(chosen.distortion, decoder, images_BCHW, chosen.device),
        decoder.prior,
        train_IN,
        encoder.to(train_IN),
        chosen.betas,
        chosen.seed,
        epochs=chosen.epochs,
        batch=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        samples=chosen.samples,
    )
    tensors = load_chains(baseline.chains, _protocol(plan), "the baseline")
    if tensors is None:
        nothing = torch.empty(0, 2, len(plan.rows), dtype=torch.float64)
        return Training(baseline, run, (variational.start(run), nothing))
    points_P2I = tensors.pop("points_P2I")
    weights = {name.removeprefix("encoder."): t.to(chosen.device) for name, t in tensors.items()}
    state = variational.VariationalState(weights, trained=len(points_P2I))
    return Training(baseline, run, (state, points_P2I))


def _targets(run: Run, split: Split, decoder: LatentDecoder, chosen: Settings) -> Tensor:
    """Training images on the decoder's scale and device."""
    rows = spaced(len(split), chosen.training_images, split.name)
    parts = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    targets = [decoder.target(read_images(run, split, part)) for part in parts]
    return torch.cat(targets).to(chosen.device)


def _protocol(plan: Plan) -> dict[str, str]:
    return {"plan": plan.hash, "decoder": plan.decoder, "data": plan.data}


def _write(baseline: Baseline, points_P2I: np.ndarray) -> None:
    """Per image into a table, means with intervals into a JSON file, which is written last."""
    plan, settings = baseline.plan, baseline.plan.settings
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
    pq.write_table(table.replace_schema_metadata({"gencomp": json.dumps(_protocol(plan))}), buffer)
    write_bytes(baseline.path / "variational.parquet", buffer.getvalue())
    columns = {
        "rate": rate_IP,
        "distortion": distortion_IP,
        "lagrangian": rate_IP + beta_P * distortion_IP,
    }
    means = summaries(columns, plan.pixels, plan.values, settings.distortion)
    content = {
        "images": images,
        "points": [{"beta": b, **m} for b, m in zip(settings.betas, means, strict=True)],
        "protocol": {
            **_protocol(plan),
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
    files.write_json(baseline.result, content)
