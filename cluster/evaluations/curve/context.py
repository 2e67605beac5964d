"""What the jobs of one curve share: the decoder, the images, their distortion and the sampler."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import shards
from cluster.evaluations import decoders
from cluster.evaluations.curve.plan import Evaluation, Plan
from cluster.evaluations.decoders import OfModel
from gencomp.errors import InputError
from gencomp.evaluation import networks
from gencomp.rate_distortion.distortion import (
    Distortion,
    FeatureError,
    GaussianLikelihood,
    SquaredError,
)
from gencomp.rate_distortion.pullback import Forces
from gencomp.rate_distortion.tuning import Tuning
from gencomp.system import LatentDecoder
from shards.reading.reader import Split

_SUGGESTED = 4  # latents of an image by an encoder, from which modes are looked for


@dataclass(frozen=True)
class Context:
    """What all the blocks of a job share: the decoder and the frozen sampler, on their device."""

    evaluation: Evaluation
    decoder: LatentDecoder
    tuning: Tuning

    @property
    def plan(self) -> Plan:
        return self.evaluation.plan

    @cached_property
    def template(self) -> Distortion:
        """The distortion of a black image, as a template for simulated images."""
        black_BCHW = torch.zeros(1, 3, self.plan.height, self.plan.width, dtype=torch.uint8)
        return distortion(self.plan, self.decoder, black_BCHW)

    def images(self, rows: tuple[int, ...]) -> Distortion:
        """The distortion of images of the plan's split."""
        return distortion(self.plan, self.decoder, read_images(self.evaluation, rows))

    def suggested(self, rows: tuple[int, ...]) -> Tensor | None:
        """Latents of images by the run's own encoder, [I, S, K]; None if it has none."""
        plan, subject = self.plan, self.evaluation.subject
        if isinstance(subject, OfModel):
            return None
        split = open_split(self.evaluation)
        seed, device = plan.settings.certify_seed, plan.settings.device
        found = decoders.encoded(subject, split, rows, _SUGGESTED, seed, device)
        fits = found is not None and found.shape[-1] == self.decoder.latent_dim
        return found if fits else None

    def protocol(self, block: int) -> dict[str, str]:
        """The hashes that a part must share with the others, and its block's number and kind."""
        kind = self.plan.blocks[block].kind
        return {**protocol(self.plan, self.tuning), "block": str(block), "kind": kind}


def open_context(evaluation: Evaluation) -> Context:
    """The decoder and the frozen sampler of an evaluation.

    Raises:
        InputError: the pilot has not written a tuning yet, or the decoder is no longer that of the
            plan.
    """
    tuning = Tuning.load(evaluation.tuning)
    return Context(evaluation, open_decoder(evaluation), tuning)


def protocol(plan: Plan, tuning: Tuning) -> dict[str, str]:
    """The hashes that all parts of one curve share."""
    schedule = hashlib.sha256(tuning.betas.astype("<f8").tobytes()).hexdigest()
    return {
        "plan": plan.hash,
        "decoder": plan.decoder,
        "data": plan.data,
        "tuning": tuning.hash,
        "schedule": schedule,
    }


def open_decoder(evaluation: Evaluation) -> LatentDecoder:
    """The decoder on the plan's device.

    Raises:
        InputError: the decoder's weights are no longer those of the plan, or there is no such
            device.
    """
    plan = evaluation.plan
    decoder, found = decoders.open_decoder(evaluation.subject, plan.settings.device)
    if found != plan.decoder:
        raise InputError(
            f"{evaluation.subject_name} has other weights ({found}) than the plan of "
            f"{evaluation.path}"
        )
    return decoder


def read_images(evaluation: Evaluation, rows: tuple[int, ...]) -> Tensor:
    """Some images of the plan's split, uint8 [B, 3, H, W].

    Raises:
        InputError: the shard set is no longer that of the plan.
        ShardError: an image cannot be read.
    """
    return decoders.read_images(evaluation.subject, open_split(evaluation), rows)


def open_split(evaluation: Evaluation) -> Split:
    """The plan's split.

    Raises:
        InputError: the shard set is no longer that of the plan.
    """
    plan = evaluation.plan
    shard_set = shards.open_set(plan.shards)
    if shard_set.index_hash != plan.data:
        raise InputError(
            f"shard set {plan.shards} is another one than when the evaluation was planned"
        )
    return shard_set.split(plan.settings.split)


def distortion(plan: Plan, decoder: LatentDecoder, images_BCHW: Tensor) -> Distortion:
    """The plan's distortion of some images (uint8), on the plan's device.

    Raises:
        InputError: the feature network is no longer that of the plan.
    """
    settings = plan.settings
    if settings.distortion != "features":
        return of_pixels(
            settings.distortion, decoder, images_BCHW, settings.device, settings.forces
        )
    assert plan.features_file is not None
    file = Path(plan.features_file)
    networks.checked_sha256(file, settings.features, "features")
    network = networks.load(file, torch.device(settings.device))
    x_BN = decoder.target(images_BCHW).to(settings.device)
    x_BCHW = x_BN.view(len(x_BN), -1, plan.height, plan.width)
    return FeatureError(decoder.decode, x_BCHW, network, settings.forces)


def of_pixels(
    name: str,
    decoder: LatentDecoder,
    images_BCHW: Tensor,
    device: str,
    forces: Forces = "float32",
) -> Distortion:
    """A distortion that depends on the values of the images alone, without a feature network.

    Args:
        name: squared_error or gaussian_likelihood.
        decoder: the decoder, on the device.
        images_BCHW: the images, uint8.
        device: the device on which the distortion is computed.
        forces: the precision inside trajectories.

    Raises:
        InputError: the distortion needs a variance, but the decoder states none.
    """
    x_BN = decoder.target(images_BCHW).to(device)
    if name == "squared_error":
        return SquaredError(decoder.decode, x_BN, forces)
    return GaussianLikelihood(decoder.decode, x_BN, decoders.stated_variance(decoder), forces)
