"""The decoder whose curve is measured: a run's decoder, or the user's own model on a shard set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cluster import data
from cluster.runs import Run
from gencomp import float32_products
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation.psnr import PEAK_TO_PEAK
from gencomp.external import decoders
from gencomp.system import LatentDecoder, evaluation_mode
from shards.reading.reader import Split
from shards.reading.stream import read_batch


class OfRun(BaseModel):
    """The subject of an evaluation that measures the run in whose directory it lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["run"] = "run"


class OfModel(BaseModel):
    """The subject of an evaluation of the user's own decoder; see `gencomp.external.decoders`.

    Attributes:
        reference: the place of the decoder in Python, as module:attribute.
        weights: the file with the decoder's weights, if it has one.
        directory: the directory in which the module is looked for after the installed ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["model"] = "model"
    reference: str
    weights: str | None
    directory: str


def open_decoder(subject: Run | OfModel, device: str = "cpu") -> tuple[LatentDecoder, str]:
    """The decoder on a device, and the hash that identifies its weights.

    Raises:
        InputError: the run is not finished or has no decoder, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "the plan asks for a GPU, but this process sees none (--gres=gpu:1 asks for one)"
        )
    # TF32 has 10 bits of mantissa, which are too few for beta times a distortion.
    float32_products.set_precision("ieee")
    if isinstance(subject, OfModel):
        weights = None if subject.weights is None else Path(subject.weights)
        return decoders.open_model(
            subject.reference,
            weights,
            directory=Path(subject.directory),
            device=torch.device(device),
        )
    identity = subject.final_checkpoint().networks_hash()
    system = subject.system()
    system.to(torch.device(device))
    decoder = system.latent_decoder()
    if decoder is None:
        recipe = subject.recipe()
        raise InputError(
            f"run {subject.path} ({recipe.system}/{recipe.stage}) has no decoder from a latent "
            "prior, so it has no rate-distortion curve of this kind"
        )
    return decoder, identity


def read_images(subject: Run | OfModel, split: Split, rows: Sequence[int]) -> Tensor:
    """The images of a split as the decoder should reproduce them, uint8 [B, 3, H, W].

    Raises:
        ShardError: an image cannot be read.
    """
    if isinstance(subject, Run):
        host = data.held_out_rows(subject.recipe(), split, rows)
    else:
        host = read_batch(split, np.array(rows, dtype=np.int64))
    return data.to_batch(host, torch.device("cpu")).images_BCHW.contiguous()


def value_range(decoder: LatentDecoder, height: int, width: int) -> tuple[float, float] | None:
    """Black and white on the decoder's scale; None if white is not above black on it.

    Args:
        decoder: the decoder.
        height, width: the size of its images.
    """
    ends = [torch.full((1, 3, height, width), value, dtype=torch.uint8) for value in (0, 255)]
    low, high = (round(float(decoder.target(image).double().mean()), 6) for image in ends)
    return (low, high) if low < high else None


def distortion_per_mse(
    distortion: str, values: int, value_range: tuple[float, float] | None
) -> float | None:
    """The distortion of an image with an MSE of 1 of pixels on [−1, 1]; None if it has no MSE.

    Args:
        distortion: the name of the distortion; only squared_error has an MSE.
        values: the number of values of an image.
        value_range: black and white on the decoder's scale, where they are known.
    """
    if distortion != "squared_error" or value_range is None:
        return None
    low, high = value_range
    return values * ((high - low) / PEAK_TO_PEAK) ** 2


def encoded(
    run: Run, split: Split, rows: Sequence[int], draws: int, seed: int, device: str = "cpu"
) -> Tensor | None:
    """Latents of images by the run's encoder, [B, draws, K], or None if the run has no encoder.

    Args:
        run: the run.
        split: the split of the images.
        rows: the rows of the images.
        draws: the number of latents of each image; those of an encoder without noise are equal.
        seed: the seed of the encoder's noise.
        device: the device on which the encoder runs.

    Raises:
        ShardError: an image cannot be read.
    """
    system, where = run.system(), torch.device(device)
    system.to(where)
    batch = data.to_batch(data.held_out_rows(run.recipe(), split, rows), where)
    found = []
    with evaluation_mode(system.networks):
        for draw in range(draws):
            key: tuple[str | int, ...] = ("latents", *rows, draw)
            latents = system.latents(batch, Draws(seed, key, len(rows), device=where))
            if latents is None:
                return None
            found.append(latents.z_BK.flatten(1))
    return torch.stack(found, dim=1)


def stated_variance(decoder: LatentDecoder) -> Tensor:
    """The log variance of a decoder's pixels.

    Raises:
        InputError: the decoder states no variance.
    """
    if decoder.log_variance is None:
        raise InputError(
            "--distortion gaussian_likelihood needs a decoder that states the variance of its "
            "pixels; this one has none"
        )
    return decoder.log_variance
