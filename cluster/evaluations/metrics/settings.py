"""What the user chooses about the metrics of a run. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from cluster.evaluations.options import Device, Options, Seed, Threads
from gencomp.errors import InputError
from gencomp.evaluation.feature_inputs import LEAST_PATCH, PACKAGED, Input, network_name

# What reconstructions are: what the networks make of an image, or what its real file decodes to.
Reconstructions = Literal["networks", "files"]
Metric = Literal[
    "mse", "psnr", "ms_ssim", "pv", "fid", "kid", "swd", "lpips", "dists", "rate0", "mmd", "miou"
]
METRICS: tuple[Metric, ...] = get_args(Metric)
OF_RECONSTRUCTIONS: tuple[Metric, ...] = (
    "mse",
    "psnr",
    "ms_ssim",
    "pv",
    "swd",
    "lpips",
    "dists",
    "miou",
)
OF_FEATURES: tuple[Metric, ...] = ("fid", "kid")
_OF_DRAWS: tuple[Metric, ...] = ("pv", "rate0")
# These compare distributions; of a single image any other metric has a value without an interval.
_OF_DISTRIBUTIONS: tuple[Metric, ...] = (*OF_FEATURES, "swd", "mmd")
ImageCount = Annotated[int, Field(ge=1)]
SampleCount = Annotated[int, Field(ge=0, lt=2**31)]


class MetricOptions(Options):
    """The options that say what is measured, and how."""

    split: str = Field("test", description="Split to measure on.")
    images: ImageCount | None = Field(
        None, description="Number of images, evenly spaced over the split; by default all."
    )
    samples: SampleCount | None = Field(
        None,
        description="Samples of the prior for sFID and sKID; by default as many as images, 0 for"
        " none.",
    )
    draws: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Reconstructions of each image for pv, and samples for rate0.",
    )
    reconstructions: Reconstructions = Field(
        "networks",
        description="What the metrics of reconstructions measure: what the networks make of an"
        " image in float32 with fresh noise, or what its real file decodes to, by the run's codec.",
    )
    batch_size: int = Field(64, ge=1, description="Images that go through the networks at once.")
    block: int = Field(
        256, ge=1, description="Images of a part; a process that is killed loses one part at most."
    )
    seed: Seed = Field(7, description="Seed of noise and samples.")
    features_input: Input = Field(
        "uint8",
        description="Form of the images that the feature network is given: uint8 of any size, or"
        " floats on [-1, 1] at 299×299.",
    )
    patches: int | None = Field(
        None,
        ge=LEAST_PATCH,
        description="Side of the patches whose features fid and kid compare, such as 256; by"
        " default features of whole images. Results carry it in their names: rfid_256.",
    )
    label_map: str = Field(
        "label", description="Name of the map of class ids that miou compares with."
    )


class Settings(MetricOptions):
    """The options with everything filled in, and the hashes of the networks that measure.

    Attributes:
        metrics: the metrics, in the order of `METRICS`.
        share: the share of the other decoder's image, where images are shown between two decoders.
        features: SHA-256 of the feature network's file.
        lpips, dists: SHA-256 of the files of the perceptual networks.
        segmentation: SHA-256 of the segmentation network's file.
    """

    metrics: tuple[Metric, ...] = Field(min_length=1)
    images: ImageCount
    samples: SampleCount
    threads: Threads
    device: Device
    share: float | None = None
    features: str | None
    lpips: str | None
    dists: str | None = None
    segmentation: str | None = None

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        if self.images == 1 and (
            compared := [metric for metric in self.metrics if metric in _OF_DISTRIBUTIONS]
        ):
            raise ValueError(
                "--images is 1, but distributions are compared by 2 images or more: leave"
                f" {', '.join(compared)} out of --metrics"
            )
        if self.samples == 1:
            raise ValueError("--samples is 1, but a distance needs two samples or more (0: none)")
        if self.draws < 2 and self.asks(*_OF_DRAWS):
            raise ValueError(f"--draws is {self.draws}, but pv and rate0 need two or more")
        if self.patches is not None and not self.asks(*OF_FEATURES):
            raise ValueError("--patches is for the metrics fid and kid: ask for one of them")
        if self.features in PACKAGED.values() and self.features_input != "uint8":
            name = network_name(self.features or "")
            raise ValueError(f"--features {name} resizes images itself: leave --features-input out")
        if self.asks(*OF_FEATURES) and not self.features:
            raise ValueError("--metrics fid and kid need a feature network: name it by --features")
        for name in ("lpips", "dists"):
            if name in self.metrics and not getattr(self, name):
                raise ValueError(f"--metrics {name} needs a network: name it by --{name}")
        if self.asks("miou") and not self.segmentation:
            raise ValueError("--metrics miou needs a network: name it by --segmentation")
        return self

    def asks(self, *metrics: Metric) -> bool:
        """Whether one of these metrics is wanted."""
        return any(metric in self.metrics for metric in metrics)


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """The metrics that a text such as `mse,psnr` names.

    Raises:
        InputError: the text holds a word that is no metric.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    for word in asked:
        if word not in METRICS:
            raise InputError(f"--metrics {word!r} is not one of {', '.join(METRICS)}")
    return tuple(metric for metric in METRICS if metric in asked)
