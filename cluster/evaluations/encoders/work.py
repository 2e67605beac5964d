"""The work on trained encoders: an encoder is trained for one beta after another.

See `gencomp.rate_distortion.variational`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

import shards
from cluster import data, tensor_files
from cluster.evaluations.curve.context import of_pixels
from cluster.evaluations.curve.work import load_chains, remove
from cluster.evaluations.decoders import open_decoder, read_images
from cluster.evaluations.encoders import results
from cluster.evaluations.encoders.plan import Evaluation
from cluster.evaluations.encoders.settings import Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.rate_distortion import variational
from gencomp.rate_distortion.priors import Gaussian
from gencomp.system import LatentDecoder
from shards.reading.reader import Split

_BATCH = 256  # images that are read at once


@dataclass
class Training:
    """The training of encoders. `at` is replaced as a whole, so that it is always consistent."""

    evaluation: Evaluation
    run: variational.Training
    at: tuple[variational.VariationalState, Tensor]  # [P, 2, I]: rates and distortions so far

    ess = None

    @property
    def done(self) -> bool:
        return variational.done(self.run, self.at[0])

    @property
    def steps(self) -> int:
        return self.at[0].trained

    def advance(self) -> None:
        """Train for the next beta."""
        state, points_P2I = self.at
        state, point = variational.advance(self.run, state)
        new_2I = torch.stack([point.rate_I, point.distortion_I]).cpu()
        self.at = state, torch.cat([points_P2I, new_2I[None]])

    def save(self) -> None:
        """Write encoder and points, whole or not at all, unless the result exists already."""
        state, points_P2I = self.at
        if self.evaluation.missing():
            encoder = {f"encoder.{name}": t.cpu() for name, t in state.encoder.items()}
            tensors = {**encoder, "points_P2I": points_P2I}
            tensor_files.write(
                self.evaluation.chains, tensors, results.protocol(self.evaluation.plan)
            )

    def finish(self) -> None:
        """Write the result, and remove the encoder, which is not needed any more."""
        results.write(self.evaluation, self.at[1].numpy())
        remove(self.evaluation.chains)


def open_training(evaluation: Evaluation) -> Training:
    """The training as it was saved in its file, or at its start if there is no file.

    Raises:
        InputError: the decoder or the data are no longer those of the plan.
        ShardError: an image cannot be read.
    """
    plan, chosen = evaluation.plan, evaluation.plan.settings
    recipe = evaluation.run.recipe()
    training, _ = data.open_training(recipe)
    shard_set = shards.open_set(plan.shards)
    decoder, found = open_decoder(evaluation.run, chosen.device)
    if (found, shard_set.index_hash, training.index_hash) != (
        plan.decoder,
        plan.data,
        plan.training_data,
    ):
        raise InputError(
            f"run {evaluation.run.path} or its data are others than when {evaluation.path} was"
            " planned"
        )
    images_BCHW = read_images(evaluation.run, shard_set.split(chosen.split), plan.rows)
    # The rows of a mixture are read in the same way as the rows of a split.
    train_IN = _targets(evaluation.run, cast(Split, training), decoder, chosen)
    assert isinstance(decoder.prior, Gaussian)  # this was checked when the plan was made
    encoder = variational.gaussian_encoder(plan.values, decoder.latent_dim, seed=chosen.seed)
    run = variational.Training(
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
    tensors = load_chains(evaluation.chains, results.protocol(plan), "the training")
    if tensors is None:
        nothing = torch.empty(0, 2, len(plan.rows), dtype=torch.float64)
        return Training(evaluation, run, (variational.start(run), nothing))
    points_P2I = tensors.pop("points_P2I")
    weights = {name.removeprefix("encoder."): t.to(chosen.device) for name, t in tensors.items()}
    state = variational.VariationalState(weights, trained=len(points_P2I))
    return Training(evaluation, run, (state, points_P2I))


def _targets(run: Run, split: Split, decoder: LatentDecoder, chosen: Settings) -> Tensor:
    """The training images on the decoder's scale, on the device."""
    rows = spaced(len(split), chosen.training_images, split.name)
    parts = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    targets = [decoder.target(read_images(run, split, part)) for part in parts]
    return torch.cat(targets).to(chosen.device)
