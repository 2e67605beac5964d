"""What the user chooses about trained encoders. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cluster.evaluations.options import Device, Options, Seed, Threads

ImageCount = Annotated[int, Field(ge=1)]


class EncoderOptions(Options):
    """The options that say what is trained and measured."""

    split: str = Field("test", description="Split to measure.")
    images: ImageCount = Field(
        16,
        description="Images to measure, evenly spaced over the split; those of `gencomp slurm ais`"
        " if their number is the same.",
    )
    distortion: Literal["squared_error", "gaussian_likelihood"] = Field(
        "squared_error",
        description="squared_error: summed over an image's values; gaussian_likelihood: negative"
        " log-likelihood with the decoder's variance.",
    )
    betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="Inverse temperatures, in the order in which encoders are trained: each begins"
        " where the one before ended.",
    )
    training_images: ImageCount | None = Field(
        None, description="Images of the training split to train on; by default all."
    )
    epochs: int = Field(50, ge=1, description="Epochs over the training images, for each beta.")
    batch_size: int = Field(100, ge=1, description="Images of a training step.")
    learning_rate: float = Field(
        1e-4, gt=0, description="Learning rate of Adam; it falls to 0 for each beta."
    )
    samples: int = Field(
        100, ge=1, description="Latents drawn for each measured image to measure the distortion."
    )
    seed: Seed = Field(9, description="Seed of weights, order and samples.")
    device: Device = Field("cpu", description="Device on which encoders are trained and measured.")


class Settings(EncoderOptions):
    """The options with everything filled in, such as the number of training images."""

    training_images: ImageCount
    threads: Threads
