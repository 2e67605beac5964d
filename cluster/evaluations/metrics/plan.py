"""The protocol of a measurement: everything that its numbers depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import gencomp
from cluster import data
from cluster.compressed_files.sources import codec_between
from cluster.evaluations import evaluation, plans
from cluster.evaluations.metrics import rules
from cluster.evaluations.metrics.abilities import Abilities
from cluster.evaluations.metrics.settings import Metric, Settings
from cluster.evaluations.plans import spaced
from cluster.runs import Run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation import networks
from gencomp.evaluation.feature_inputs import PACKAGED
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
    _require_files(run, through_files, toward, share)
    codec = opened_codec(run, toward, share) if through_files else None
    abilities = Abilities.of_files(run, split) if through_files else Abilities.of(run, split)
    settings = _settings(
        abilities,
        metrics,
        len(split) if images is None else images,
        samples,
        {
            "features": (features, features_sha256),
            "lpips": (lpips, lpips_sha256),
            "dists": (dists, dists_sha256),
            "segmentation": (segmentation, segmentation_sha256),
        },
        {**chosen, "share": share},
    )
    _require_batches(settings, recipe.evaluation_statistics(), abilities.run)
    rows = spaced(len(split), settings.images, split.name)
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
        rules=rules.stated(settings, list(sizes)),
        shards=plans.absolute(str(shard_set.path)),
        features_file=_place(features),
        lpips_file=_resolved(lpips),
        dists_file=_resolved(dists),
        segmentation_file=_resolved(segmentation),
        toward=_resolved(toward),
        settings=settings,
    )


def _settings(
    abilities: Abilities,
    metrics: tuple[Metric, ...] | None,
    images: int,
    samples: int | None,
    files: Mapping[str, tuple[Path | None, str | None]],
    chosen: Mapping[str, Any],
) -> Settings:
    """The settings with what the run's abilities and the given networks say of them.

    Args:
        abilities: what the run can do.
        metrics: the metrics; None for those that are usual.
        images: the number of images.
        samples: the number of samples; None for the usual one.
        files: the file of each network and the hash that was stated, by the network's name.
        chosen: the other settings.
    """
    if metrics is None:
        given = {name: file is not None for name, (file, _) in files.items()}
        metrics = abilities.usual_metrics(
            given["features"], lpips=given["lpips"], dists=given["dists"]
        )
    abilities.require(metrics, samples)
    return checked(
        Settings,
        {
            **chosen,
            "metrics": metrics,
            "images": images,
            "samples": abilities.samples(metrics, images) if samples is None else samples,
            **{name: _hash(file, stated, name) for name, (file, stated) in files.items()},
        },
    )


def _require_files(run: Run, through_files: bool, toward: Path | None, share: float | None) -> None:
    """Raise `InputError` for a choice about files where no files are written."""
    if run.writing and not through_files:
        raise InputError(
            f"{' '.join(run.writing)} says how files are written: it needs --reconstructions files"
        )
    if toward is not None and not through_files:
        raise InputError("--toward shows what files decode to: it needs --reconstructions files")
    if (toward is None) != (share is None):
        raise InputError("--toward and --share need each other: the other run and its share")


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
    """The path at which the feature network is found again, or its name if a package ships it."""
    if features is not None and str(features) in PACKAGED:
        return str(features)
    return _resolved(features)


def _resolved(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _hash(path: Path | None, stated: str | None, what: str) -> str | None:
    if path is None:
        if stated is not None:
            raise InputError(f"--{what}-sha256 needs the file: name it by --{what}")
        return None
    return networks.checked_sha256(path, stated, what)
