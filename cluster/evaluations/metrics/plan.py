"""The protocol of a measurement: everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

import gencomp
import shards
from cluster import data
from cluster.evaluations import evaluation, plans
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation import bootstrap, kernel, networks, ssim
from gencomp.evaluation.draws import ItemDraws
from gencomp.system import evaluation_mode
from shards.reading.reader import Split

Metric = Literal["mse", "psnr", "ms_ssim", "pv", "fid", "kid", "lpips", "rate0", "mmd"]
METRICS: tuple[Metric, ...] = get_args(Metric)
_OF_RECONSTRUCTIONS: tuple[Metric, ...] = ("mse", "psnr", "ms_ssim", "pv", "lpips")
_OF_DRAWS: tuple[Metric, ...] = ("pv", "rate0")
_OF_FEATURES: tuple[Metric, ...] = ("fid", "kid")
_MANY = 2**31


class Settings(BaseModel):
    """What the user chooses, and the hashes of the networks that measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: tuple[Metric, ...] = Field(min_length=1, description="in the order of METRICS")
    split: str = Field(description="split of the shard set to measure on")
    images: int = Field(
        ge=2, description="how many, evenly spaced over the split; an interval needs two"
    )
    samples: int = Field(ge=0, lt=_MANY, description="of the prior, for sFID and sKID; 0: none")
    draws: int = Field(ge=1, le=10_000, description="for each image, for pv and rate0")
    batch_size: int = Field(ge=1, description="images that go through the networks at once")
    block: int = Field(ge=1, description="images of a part")
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, description="of noise and bootstrap")]
    features_input: networks.Input = Field(description="what the feature network is given")
    threads: int = Field(ge=1, le=1024, description="of a process: they shape last bits")
    device: Literal["cpu", "cuda"] = Field(description="where the networks run")
    features: str | None = Field(description="SHA-256 of the feature network's file")
    lpips: str | None = Field(description="SHA-256 of the perceptual network's file")

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        if self.samples == 1:
            raise ValueError("--samples is 1, but a distance needs two samples or more (0: none)")
        if self.draws < 2 and self.asks(*_OF_DRAWS):
            raise ValueError(f"--draws is {self.draws}, but pv and rate0 need two or more")
        if self.asks(*_OF_FEATURES) and not self.features:
            raise ValueError("--metrics fid and kid need a feature network: name it by --features")
        if self.asks("lpips") and not self.lpips:
            raise ValueError("--metrics lpips needs a network: name it by --lpips")
        return self

    def asks(self, *metrics: Metric) -> bool:
        """Whether one of these metrics is wanted."""
        return any(metric in self.metrics for metric in metrics)


class Block(NamedTuple):
    """A unit of work: images of the split by their place among the measured ones, or samples."""

    kind: Literal["images", "samples"]
    items: range


class Plan(plans.Plan):
    """A measurement."""

    FILE: ClassVar[str] = "protocol.json"
    LOCATIONS: ClassVar[tuple[str, ...]] = ("shards", "features_file", "lpips_file")
    COMMAND: ClassVar[str] = "gencomp evaluate"

    format: Literal[1] = 1
    gencomp: str
    system: str
    weights: str
    data: str
    stored: dict[str, Any]
    transforms: dict[str, Any]
    split_images: int
    height: int
    width: int
    reconstructs: bool
    rules: dict[str, str]
    shards: str
    features_file: str | None
    lpips_file: str | None
    settings: Settings

    def differences(self, other: Self) -> list[str]:
        """Rules follow from the rest, so they are named only where they alone differ."""
        found = super().differences(other)
        return [text for text in found if not text.startswith("rules ")] or found

    @property
    def rows(self) -> tuple[int, ...]:
        """The measured rows of the split."""
        return spaced(self.split_images, self.settings.images, self.settings.split)

    @property
    def blocks(self) -> list[Block]:
        """All units of work, images first; of nearly equal size."""
        chosen = self.settings
        images = divided(range(chosen.images), chosen.block)
        samples = divided(range(chosen.samples), chosen.block)
        return [Block("images", part) for part in images] + [
            Block("samples", part) for part in samples
        ]


@dataclass(frozen=True)
class Evaluation(evaluation.Evaluation):
    """The directory of a measurement with its plan."""

    PLAN: ClassVar[type[plans.Plan]] = Plan

    plan: Plan

    @property
    def result(self) -> Path:
        return self.path / "metrics.json"

    def part(self, block: int) -> Path:
        return self.path / "parts" / f"block-{block:05d}.safetensors"

    @property
    def block_sizes(self) -> list[int]:
        return [len(block.items) for block in self.plan.blocks]

    def missing(self) -> list[int]:
        return [block for block in range(len(self.plan.blocks)) if not self.part(block).exists()]


def divided(items: range, size: int) -> list[range]:
    """Consecutive parts of `size` items or a few fewer, as equal as they go.

    Unless parts of one are asked for, none of several has a single item, of which no batch
    statistics could be taken; of an odd number of items, parts of two are therefore two or three.
    """
    count = len(items) if size == 1 else min(-(-len(items) // size), max(len(items) // 2, 1))
    cuts = [len(items) * i // count for i in range(count + 1)] if count else [0]
    return [items[a:b] for a, b in pairwise(cuts)]


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """`mse,psnr` as names.

    Raises:
        InputError: one of them is no metric.
    """
    asked = [word.strip() for word in text.split(",") if word.strip()]
    for word in asked:
        if word not in METRICS:
            raise InputError(f"--metrics {word!r} is not one of {', '.join(METRICS)}")
    return tuple(metric for metric in METRICS if metric in asked)


def make(
    run: Run,
    *,
    metrics: tuple[Metric, ...] | None,
    images: int | None,
    samples: int | None,
    features: Path | None,
    features_sha256: str | None,
    lpips: Path | None,
    lpips_sha256: str | None,
    **chosen: Any,
) -> Plan:
    """The protocol of a finished run; runs two images through it, writes nothing.

    Args:
        run: finished.
        metrics: by default mse, psnr and ms_ssim where it reconstructs, and what the networks
            given measure.
        images: by default the whole split.
        samples: by default as many as images, where features are compared and there is a prior.
        features, features_sha256: file of the feature network, and its hash (may be left out for
            the known Inception).
        lpips, lpips_sha256: likewise.
        chosen: the other fields of `Settings`.

    Raises:
        InputError: the run is not finished, cannot do what is asked, or a value is out of range.
        ShardError: the shard set or the split is missing.
    """
    checkpoint = run.final_checkpoint()
    recipe = run.recipe()
    location = recipe.evaluation_shards()
    shard_set = shards.open_set(location)
    split = shard_set.split(chosen["split"])
    name = f"run {run.path} ({recipe.system}/{recipe.stage})"
    height, width, reconstructs, has_prior, has_latents = _abilities(run, split)
    if metrics is None:
        metrics = _usual(reconstructs, features is not None, lpips is not None)
    for metric in metrics:
        if metric in _OF_RECONSTRUCTIONS and not reconstructs:
            raise InputError(f"{name} has no encoder and reconstructs nothing: no {metric}")
        if metric == "rate0" and not has_prior:
            raise InputError(f"{name} has no prior to draw from: no rate0")
        if metric == "mmd" and not has_latents:
            raise InputError(f"{name} has no latents with a prior to compare them with: no mmd")
    compares = any(metric in _OF_FEATURES for metric in metrics)
    if samples and not (has_prior and compares):
        why = "has no prior to draw from" if compares else "is asked for neither fid nor kid"
        raise InputError(f"--samples is {samples}, but {name} {why}")
    images = len(split) if images is None else images
    if samples is None:
        samples = images if has_prior and compares else 0
    settings = plans.checked(
        Settings,
        {
            **chosen,
            "metrics": metrics,
            "images": images,
            "samples": samples,
            "features": _hash(features, features_sha256, "features"),
            "lpips": _hash(lpips, lpips_sha256, "lpips"),
        },
    )
    spaced(len(split), images, split.name)
    if what := recipe.evaluation_statistics():
        for option in ("batch_size", "block"):
            if getattr(settings, option) < 2:
                raise InputError(
                    f"--{option.replace('_', '-')} is 1, but {what} of {name} need 2 images or more"
                )
    return Plan(
        checkpoint=run.checkpoint,
        gencomp=gencomp.__version__,
        system=f"{recipe.system}/{recipe.stage}",
        weights=checkpoint.networks_hash(),
        data=split.index_hash,
        stored=data.stored(shard_set.info),
        transforms=recipe.data.transforms.model_dump(mode="json"),
        split_images=len(split),
        height=height,
        width=width,
        reconstructs=reconstructs,
        rules=rules(settings, height, width),
        shards=plans.absolute(location),
        features_file=None if features is None else str(features.resolve()),
        lpips_file=None if lpips is None else str(lpips.resolve()),
        settings=settings,
    )


def rules(settings: Settings, height: int, width: int) -> dict[str, str]:
    """What the numbers mean, in words.

    Raises:
        InputError: the images are too small for a metric that is asked for.
    """
    said = {
        "images": "evenly spaced over the split; every mean weights each image once",
        "pixels": "reconstructions and samples rounded to 8 bits; errors on the scale [-1, 1]",
        "interval": f"{bootstrap.LEVEL:.0%} percentile bootstrap over images,"
        f" {bootstrap.REPLICATES} resamples",
    }
    if settings.asks("psnr"):
        said["psnr"] = "10 log10(4 / MSE) of the mean MSE"
    if settings.asks("ms_ssim"):
        weights = ", ".join(f"{w:.6f}" for w in ssim.scale_weights(height, width))
        said["ms_ssim"] = (
            f"Wang et al. 2003 for each colour channel, weights of the scales {weights}"
        )
    if settings.asks("pv"):
        said["pv"] = f"biased (1/n) variance over n = {settings.draws} reconstructions of an image"
    if settings.asks("rate0"):
        said["rate0"] = (
            f"each image reconstructed by {settings.draws} prior samples that are independent of"
            " it; the first one for rFID and rKID"
        )
    if settings.asks(*_OF_FEATURES):
        said["features"] = networks.RESIZE_RULES[settings.features_input]
        said["reference"] = "the measured images themselves"
    if settings.asks("fid"):
        said["fid"] = "unbiased covariances; interval by influence functions"
    if settings.asks("kid"):
        said["kid"] = (
            f"unbiased, kernel (x.y/D + 1)^3, mean over strided subsets of up to {kernel.SUBSET}"
        )
    if settings.asks("mmd"):
        said["mmd"] = (
            "unbiased, the seven kernels of the training loss, latents against as many samples of"
            f" the prior, mean over strided subsets of up to {kernel.SUBSET}"
        )
    return said


def _abilities(run: Run, split: Split) -> tuple[int, int, bool, bool, bool]:
    """Height and width, whether the run reconstructs, has a prior, and encodes to latents that
    should follow it: two images tell."""
    recipe, system = run.recipe(), run.system()
    host = next(data.held_out_batches(recipe, split, 2, 0, 1, limit=2))
    batch = data.to_batch(host, torch.device("cpu"))
    draws = ItemDraws.of(0, ("abilities",), [0, 1])
    with evaluation_mode(system.networks):
        reconstructs = system.reconstruct(batch, draws) is not None
        has_prior = system.sample(draws) is not None
        has_latents = system.latents(batch, draws) is not None
    height, width = batch.images_BCHW.shape[2:]
    return height, width, reconstructs, has_prior, has_latents


def _usual(reconstructs: bool, features: bool, lpips: bool) -> tuple[Metric, ...]:
    able: Sequence[tuple[bool, tuple[Metric, ...]]] = (
        (reconstructs, ("mse", "psnr", "ms_ssim")),
        (features, _OF_FEATURES),
        (reconstructs and lpips, ("lpips",)),
    )
    return tuple(metric for can, those in able if can for metric in those)


def _hash(path: Path | None, stated: str | None, what: str) -> str | None:
    if path is None:
        if stated is not None:
            raise InputError(f"--{what}-sha256 needs the file: name it by --{what}")
        return None
    return networks.checked_sha256(path, stated, what)
