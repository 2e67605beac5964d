"""The protocol of a measurement: everything that its numbers depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import gencomp
from cluster import data
from cluster.compressed_files.sources import codec_between
from cluster.evaluations import evaluation, plans
from cluster.evaluations.metrics.abilities import Abilities
from cluster.evaluations.metrics.settings import OF_FEATURES, Metric, Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation import (
    intervals,
    kernel,
    networks,
    patches,
    sliced_wasserstein,
    ssim,
)
from gencomp.evaluation.feature_inputs import (
    PACKAGED,
    PACKAGED_RULES,
    RESIZE_RULES,
    network_name,
)
from gencomp.system import Codec
from gencomp.validation import checked


class Block(NamedTuple):
    """A unit of work.

    Attributes:
        kind: whether the items are images or samples of the prior.
        items: the places of the images among the measured ones, or the numbers of the samples.
    """

    kind: Literal["images", "samples"]
    items: range


class Plan(plans.Plan):
    """The plan of a measurement, called its protocol."""

    FILE: ClassVar[str] = "protocol.json"
    LOCATIONS: ClassVar[tuple[str, ...]] = (
        "shards",
        "features_file",
        "lpips_file",
        "dists_file",
        "segmentation_file",
        "toward",
    )
    DERIVED: ClassVar[tuple[str, ...]] = ("sizes",)
    COMMAND: ClassVar[str] = "gencomp evaluate"
    BEFORE: ClassVar[dict[str, Any]] = {
        **plans.Plan.BEFORE,
        "reconstructions": "networks",
        "reader": None,
        "segmentation": None,
        "label_map": "label",
        "patches": None,
        "share": None,
        "dists": None,
    }

    format: Literal[1] = 1
    gencomp: str
    system: str
    weights: str
    # The fingerprint of the codec's reader, where reconstructions go through files.
    reader: str | None = None
    data: str
    stored: dict[str, Any]
    transforms: dict[str, Any]
    split_images: int
    height: int | None
    width: int | None
    # Each size as (height, width, number of images), where the sizes differ. They follow from the
    # data and the transforms.
    sizes: tuple[tuple[int, int, int], ...] = ()
    reconstructs: bool
    rules: dict[str, str]
    shards: str
    features_file: str | None
    lpips_file: str | None
    dists_file: str | None = None
    segmentation_file: str | None = None
    # The other run, where images are shown between two decoders; `reader` identifies both.
    toward: str | None = None
    settings: Settings

    def identity(self) -> dict[str, Any]:
        """The identity without the rules of metrics that are measured beside others by themselves.

        So evaluations that were begun before there was such a metric can be finished.
        """
        found = super().identity()
        return found | {"rules": {k: v for k, v in self.rules.items() if k != "mean_psnr"}}

    def differences(self, other: Self) -> list[str]:
        """The changes that `other` would make to this plan, in words.

        Rules follow from the other fields, so they are named only if nothing else differs.
        """
        found = super().differences(other)
        return [text for text in found if not text.startswith("rules ")] or found

    @property
    def every_size(self) -> tuple[tuple[int, int, int], ...]:
        """Every size as (height, width, number of measured images)."""
        if self.height is None or self.width is None:
            return self.sizes
        return ((self.height, self.width, self.settings.images),)

    @property
    def rows(self) -> tuple[int, ...]:
        """The measured rows of the split."""
        return spaced(self.split_images, self.settings.images, self.settings.split)

    @property
    def blocks(self) -> list[Block]:
        """All units of work, nearly equal in size. Those that measure images come first."""
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
    RESULT: ClassVar[str] = "metrics.json"

    plan: Plan


def divided(items: range, size: int) -> list[range]:
    """Consecutive parts of `size` items or a few fewer, as equal in length as possible.

    If `size` is not 1 and there are two items or more, no part has a single item, because batch
    statistics need two. Where `size` is 2, an odd number of items therefore has a part of three.
    """
    count = len(items) if size == 1 else min(-(-len(items) // size), max(len(items) // 2, 1))
    cuts = [len(items) * i // count for i in range(count + 1)] if count else [0]
    return [items[a:b] for a, b in pairwise(cuts)]


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
    dists: Path | None = None,
    dists_sha256: str | None = None,
    segmentation: Path | None = None,
    segmentation_sha256: str | None = None,
    toward: Path | None = None,
    share: float | None = None,
    **chosen: Any,
) -> Plan:
    """The protocol for a finished run. Two images go through the run, and nothing is written.

    Args:
        run: the finished run.
        metrics: the metrics; by default mse, psnr and ms_ssim if the run reconstructs, and those
            that the given networks measure.
        images: the number of images; by default the whole split is measured.
        samples: the number of samples; by default as many as images, if features are compared and
            the run has a prior.
        features, features_sha256: the file of the feature network and its hash, which may be left
            out for the known Inception network.
        lpips, lpips_sha256: the file of the LPIPS network and its hash.
        dists, dists_sha256: the file of the DISTS network and its hash.
        segmentation, segmentation_sha256: the file of the segmentation network and its hash.
        toward: another run whose decoder reads the same files, to measure images between those of
            the two decoders.
        share: the share of the other run's image, 0..1.
        chosen: the other fields of `Settings`.

    Raises:
        InputError: the run is not finished, cannot do what is asked, or a value is out of range.
        ShardError: the shard set or the split is missing.
    """
    checkpoint = run.final_checkpoint()
    recipe = run.recipe()
    shard_set = data.open_evaluation_set(run)
    split = shard_set.split(chosen["split"])
    through_files = chosen["reconstructions"] == "files"
    if run.writing and not through_files:
        raise InputError(
            f"{' '.join(run.writing)} says how files are written: it needs --reconstructions files"
        )
    if toward is not None and not through_files:
        raise InputError("--toward shows what files decode to: it needs --reconstructions files")
    if (toward is None) != (share is None):
        raise InputError("--toward and --share need each other: the other run and its share")
    codec = opened_codec(run, toward, share) if through_files else None
    abilities = Abilities.of_files(run, split) if through_files else Abilities.of(run, split)
    if metrics is None:
        metrics = abilities.usual_metrics(
            features is not None, lpips=lpips is not None, dists=dists is not None
        )
    abilities.require(metrics, samples)
    images = len(split) if images is None else images
    settings = checked(
        Settings,
        {
            **chosen,
            "metrics": metrics,
            "images": images,
            "samples": abilities.samples(metrics, images) if samples is None else samples,
            "share": share,
            "features": _hash(features, features_sha256, "features"),
            "lpips": _hash(lpips, lpips_sha256, "lpips"),
            "dists": _hash(dists, dists_sha256, "dists"),
            "segmentation": _hash(segmentation, segmentation_sha256, "segmentation"),
        },
    )
    _require_batches(settings, recipe.evaluation_statistics(), abilities.run)
    rows = spaced(len(split), images, split.name)
    if settings.asks("miou"):
        split.maps(rows[0], [settings.label_map])  # which refuses a map that the split lacks
    sizes = Counter(map(tuple, data.held_out_sizes(recipe, split, rows).tolist()))
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return Plan(
        checkpoint=run.checkpoint,
        gencomp=gencomp.__version__,
        system=f"{recipe.system}/{recipe.stage}",
        weights=checkpoint.networks_hash(),
        written=recipes.writing(recipe) if through_files else {},
        reader=None if codec is None else codec.reader_fingerprint.hex(),
        data=split.index_hash,
        stored=data.stored(shard_set.info),
        transforms=data.evaluation_protocol(recipe),
        split_images=len(split),
        height=height,
        width=width,
        sizes=tuple((*size, count) for size, count in sizes.items()) if len(sizes) > 1 else (),
        reconstructs=abilities.reconstructs,
        rules=rules(settings, list(sizes)),
        shards=plans.absolute(str(shard_set.path)),
        features_file=_place(features),
        lpips_file=None if lpips is None else str(lpips.resolve()),
        dists_file=None if dists is None else str(dists.resolve()),
        segmentation_file=None if segmentation is None else str(segmentation.resolve()),
        toward=None if toward is None else str(toward.resolve()),
        settings=settings,
    )


def rules(settings: Settings, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The meaning of the numbers, in words.

    Args:
        settings: the evaluation's settings.
        sizes: every size (height, width) that an image has.

    Raises:
        InputError: the images are too small for a metric that is asked for.
    """
    said = {
        "images": "evenly spaced over the split; every mean weights each image once",
        "pixels": "reconstructions and samples rounded to 8 bits; errors on the scale [-1, 1]",
        "interval": intervals.RULE,
    }
    if settings.reconstructions == "files":
        said["reconstructions"] = (
            "what the real file of each image decodes to, by the codec; draw i by the decoder's"
            " draw i; bpp is the bits of code in the file and file_bpp all its bits, over the"
            " image's pixels, mean over images"
        )
    if settings.share is not None:
        said["share"] = "(1 - share) of this decoder's image and share of the other's, then rounded"
    if settings.asks("psnr"):
        said["psnr"] = "10 log10(4 / MSE) of the mean MSE"
        said["mean_psnr"] = "mean over images of 10 log10(4 / MSE) of each"
    if settings.asks("ms_ssim"):
        every = dict.fromkeys(ssim.scale_weights(height, width) for height, width in sizes)
        weights = " or ".join(", ".join(f"{w:.6f}" for w in one) for one in every)
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
    if settings.asks(*OF_FEATURES):
        packaged = network_name(settings.features or "")
        said["features"] = PACKAGED_RULES.get(packaged, RESIZE_RULES[settings.features_input])
        said["reference"] = "the measured images themselves"
    if (side := settings.patches) is not None:
        for height, width in sizes:
            if not patches.count(height, width, side):
                raise InputError(
                    f"--patches is {side}, but there are images of {width}x{height} pixels, which"
                    " have no such patch"
                )
        said["patches"] = (
            f"features of {side}x{side} patches: a grid from the upper left corner and one shifted"
            " by half a patch (Mentzer et al. 2020); every patch weights the same, and errors are"
            " those of images"
        )
    if settings.asks("fid"):
        said["fid"] = "unbiased covariances; interval by influence functions"
    if settings.asks("kid"):
        said["kid"] = (
            "unbiased, kernel (x.y/D + 1)^3, no image with what was made for it, mean over strided"
            f" subsets of up to {kernel.SUBSET}; {kernel.INTERVAL_RULE}"
        )
    if settings.asks("swd"):
        if len(sizes) > 1:
            raise InputError(
                "--metrics swd needs images of one size, but those of the split have"
                f" {len(sizes)} sizes: leave it out, or state evaluation.transforms"
            )
        said["swd"] = (
            "mean Wasserstein-1 distance of the projections on"
            f" {sliced_wasserstein.DIRECTIONS} random directions, pixels on [0, 1]"
        )
    if settings.asks("miou"):
        said["miou"] = (
            "mean over the classes that are labelled of intersection over union, over all images"
            " together; labels beyond the network's classes do not count; interval by influence"
            " functions"
        )
    if settings.asks("mmd"):
        said["mmd"] = (
            "unbiased, the seven kernels of the training loss, latents against as many samples of"
            f" the prior, mean over strided subsets of up to {kernel.SUBSET};"
            f" {kernel.INTERVAL_RULE}"
        )
    return said


def _require_batches(settings: Settings, statistics: str, run: str) -> None:
    """Raise `InputError` if a batch of one image cannot have the statistics that the run takes."""
    for option in ("images", "batch_size", "block"):
        if statistics and getattr(settings, option) < 2:
            raise InputError(
                f"--{option.replace('_', '-')} is 1, but {statistics} of {run} need 2 images or"
                " more"
            )


def opened_codec(run: Run, toward: str | Path | None, share: float | None) -> Codec | None:
    """The codec whose files are measured; None if the run has none.

    Raises:
        InputError: there is none between the two runs.
    """
    if toward is None or share is None:
        return run.system().codec()
    return codec_between(run, toward, share)


def _place(features: Path | None) -> str | None:
    """Where the feature network is found again: its path, or its name if a package ships it."""
    if features is None:
        return None
    return str(features) if str(features) in PACKAGED else str(features.resolve())


def _hash(path: Path | None, stated: str | None, what: str) -> str | None:
    if path is None:
        if stated is not None:
            raise InputError(f"--{what}-sha256 needs the file: name it by --{what}")
        return None
    return networks.checked_sha256(path, stated, what)
