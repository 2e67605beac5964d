"""Images of finished runs (originals, reconstructions, samples), and words for runs and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cluster import data
from cluster.checkpoints.store import LAST
from cluster.evaluations.plans import spaced
from cluster.runs import Run, open_run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation.draws import ItemDraws
from gencomp.evaluation.pixels import squared_error
from gencomp.evaluation.psnr import psnr
from gencomp.recipes.schema import BaseRecipe
from gencomp.report.wording import value_of
from gencomp.system import Batch, Latents, Picture, System, evaluation_mode
from shards.reading.reader import ShardSet, Split

# The sections that every recipe has, and the names of parents, which are no part of a method.
_SHARED = (*BaseRecipe.model_fields, "parents")
_BATCH = 64


@dataclass(frozen=True)
class Images:
    """Some rows of a split, with words for them."""

    split: Split
    rows: tuple[int, ...]
    data_set: str

    @property
    def said(self) -> str:
        """The images in words: `photos, test split, 4 of 922 images`."""
        return f"{self.data_set}, {self.split.name} split, {len(self.rows)} of {len(self.split)}"

    def thinned(self, count: int) -> Images:
        """Evenly spaced ones of these images, `count` in number."""
        places = spaced(len(self.rows), count, self.split.name)
        return Images(self.split, tuple(self.rows[place] for place in places), self.data_set)

    def batches(self, recipe: BaseRecipe) -> Iterator[Batch]:
        """The images in order, in batches, under the recipe's fixed transforms."""
        for start in range(0, len(self.rows), _BATCH):
            host = data.held_out_rows(recipe, self.split, self.rows[start : start + _BATCH])
            yield data.to_batch(host, torch.device("cpu"))

    def pictures(self, recipe: BaseRecipe) -> Iterator[Picture]:
        """The images in order, as a codec takes them."""
        for row in self.rows:
            yield data.held_out_picture(recipe, self.split, row)


def finished(path: Path, checkpoint: str | int = LAST) -> Run:
    """A finished run.

    Args:
        path: the run's directory.
        checkpoint: the choice of the checkpoint, as `--checkpoint` names it.

    Raises:
        InputError: the directory holds no run, the run is not finished, or it does not keep the
            checkpoint.
    """
    run = open_run(path, checkpoint)
    run.final_checkpoint()
    return run


def finished_runs(paths: Sequence[Path], checkpoint: str = "last") -> list[Run]:
    """The finished runs that a figure shows.

    Args:
        paths: the runs' directories.
        checkpoint: the choice of each run's checkpoint, as `--checkpoint` names it.

    Raises:
        InputError: no run is named, or a run is missing, not finished or without the checkpoint.
    """
    if not paths:
        raise InputError("a figure needs one run or more")
    return [finished(path, checkpoint) for path in paths]


def stage(run: Run) -> str:
    """The run in words: `run PATH (system/stage)`."""
    recipe = run.recipe()
    return f"run {run.path} ({recipe.system}/{recipe.stage})"


def evaluation_set(run: Run) -> ShardSet:
    """The shard set on which a run is evaluated.

    Raises:
        InputError: another shard set lies in its place.
        ShardError: the shard set is missing.
    """
    shard_set = data.open_evaluation_set(run)
    identity = run.identity()
    if shard_set.index_hash != identity.get("evaluation.data", identity["data"]):
        raise InputError(
            f"{shard_set.path} is another shard set than run {run.path} was trained on"
        )
    return shard_set


def choose_images(runs: Sequence[Run], split: str, count: int | None) -> Images:
    """Evenly spaced images of the shard set on which all runs are evaluated.

    Args:
        runs: the runs, one or more.
        split: the name of the split.
        count: the number of images; by default all.

    Raises:
        InputError: too many images are asked for, or the runs are evaluated on different data.
        ShardError: the shard set or the split is missing.
    """
    held: dict[str, tuple[Run, ShardSet]] = {}
    for run in runs:
        shard_set = evaluation_set(run)
        held.setdefault(shard_set.index_hash, (run, shard_set))
    (first, shard_set), *others = held.values()
    if others:
        raise InputError(
            f"run {first.path} and run {others[0][0].path} are of different data,"
            f" {shard_set.path} and {others[0][1].path}"
        )
    chosen = shard_set.split(split)
    if count is not None and count < 1:
        raise InputError(f"--images is {count}, but at least one image must be shown")
    rows = spaced(len(chosen), len(chosen) if count is None else count, split)
    return Images(chosen, rows, shard_set.info.name)


def choose_rows(images: Images, rows: Sequence[int]) -> Images:
    """Other images of the same split.

    Raises:
        InputError: the split has no such row.
    """
    for row in rows:
        if not 0 <= row < len(images.split):
            raise InputError(
                f"image {row} is not in split {images.split.name!r}, which has images 0 to"
                f" {len(images.split) - 1}"
            )
    return Images(images.split, tuple(rows), images.data_set)


def require_one_generator(runs: Sequence[Run]) -> None:
    """Raise `InputError` unless all runs start from one and the same frozen generator."""
    weights: dict[str, Run] = {}
    for run in runs:
        if (found := run.identity().get("parent.generator")) is None:
            raise InputError(
                f"{stage(run)} has no frozen generator to share: figures along the rate need runs"
                " of codecs on one generator"
            )
        weights.setdefault(found, run)
    if len(weights) > 1:
        (a, first), (b, second) = list(weights.items())[:2]
        raise InputError(
            f"run {first.path} and run {second.path} decode by different generators"
            f" (weights {a[:12]} and {b[:12]})"
        )


def require_codec(run: Run) -> None:
    """Raise `InputError` unless a run has a codec."""
    if run.system().codec() is None:
        raise InputError(f"{stage(run)} has no codec, so it has no rate")


def differing(runs: Sequence[Run], rates: bool = True) -> list[str]:
    """A label for each run that tells it from the others.

    The label names the run's stage, if there are several stages, and the values of its method that
    differ among the runs of the stage. If no value differs, it is the stage alone.

    Args:
        runs: the runs, one or more.
        rates: whether labels name values that set the rate.
    """
    chosen = [run.recipe() for run in runs]
    apart_from = {key for recipe in chosen for key in recipe.DATA_KEYS}
    apart_from |= set() if rates else {key for recipe in chosen for key in recipe.RATE_KEYS}
    flat = [recipes.flatten(recipe.model_dump(mode="json")) for recipe in chosen]
    stages = [f"{values['system']}/{values['stage']}" for values in flat]
    labels = []
    for own, stage_ in zip(flat, stages, strict=True):
        peers = [values for values, of in zip(flat, stages, strict=True) if of == stage_]
        varying = [
            key
            for key in own
            if is_of_method(key)
            and key not in apart_from
            and any(values[key] != own[key] for values in peers)
        ]
        said = [value_of(key, own[key]) for key in varying]
        labels.append(", ".join([stage_] * (len(set(stages)) > 1 or not said) + said))
    return labels


def is_of_method(key: str) -> bool:
    """Whether a recipe's key belongs to the method, as networks do and optimizers do not."""
    section, *rest = key.split(".")
    return section not in _SHARED and "optimizer" not in rest


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run of a figure: its label, or the name of its directory if it is alone."""
    return differing(runs) if len(runs) > 1 else [runs[0].name]


def reconstructions(
    run: Run, system: System, images: Images, seed: int, draws: int
) -> list[Tensor]:
    """The reconstructions of the images, uint8 [n, 3, H, W] for each draw.

    Draw i is the same as draw i of `gencomp evaluate` with this seed.

    Raises:
        InputError: the run has no encoder.
    """
    found: list[list[Tensor]] = [[] for _ in range(draws)]
    with evaluation_mode(system.networks):
        for batch in images.batches(run.recipe()):
            for draw in range(draws):
                keyed = ItemDraws.of(seed, ("reconstruct", draw), batch.rows_B.tolist())
                made = system.reconstruct(batch, keyed)
                if made is None:
                    raise InputError(f"{stage(run)} has no encoder and reconstructs nothing")
                found[draw].append(made)
    return [torch.cat(parts) for parts in found]


def prior_samples(run: Run, system: System, images: Images, seed: int, draws: int) -> list[Tensor]:
    """Reconstructions at rate 0, independent of the images, uint8 [n, 3, H, W] for each draw."""
    found: list[list[Tensor]] = [[] for _ in range(draws)]
    with evaluation_mode(system.networks):
        for batch in images.batches(run.recipe()):
            for draw in range(draws):
                keyed = ItemDraws.of(seed, ("rate0", draw), batch.rows_B.tolist())
                made = system.sample(keyed, like=batch)
                assert made is not None
                found[draw].append(made)
    return [torch.cat(parts) for parts in found]


def latents(run: Run, system: System, images: Images, seed: int) -> Latents:
    """The latents of the first draw of `reconstructions`, [n, K].

    Raises:
        InputError: the run has no encoder or no prior.
    """
    found = []
    with evaluation_mode(system.networks):
        for batch in images.batches(run.recipe()):
            keyed = ItemDraws.of(seed, ("reconstruct", 0), batch.rows_B.tolist())
            if (made := system.latents(batch, keyed)) is None:
                raise InputError(f"{stage(run)} has no latents with a prior to compare with")
            found.append(made)
    return Latents(torch.cat([one.z_BK for one in found]), found[0].variance)


def as_tiles(images_BCHW: Tensor) -> list[np.ndarray]:
    """The images as arrays, uint8 [H, W, 3] each."""
    return list(images_BCHW.permute(0, 2, 3, 1).contiguous().numpy())


def psnr_captions(originals: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[str]:
    """The PSNR of each image against its original, uint8 [H, W, 3] both."""
    return [
        f"{psnr(squared_error_of(a, b)):.1f} dB" for a, b in zip(originals, images, strict=True)
    ]


def squared_error_of(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """The mean squared error between two images of 8 bits, on the scale [−1, 1]."""
    a_BHWC, b_BHWC = (torch.from_numpy(np.array(image))[None] for image in (a_HWC, b_HWC))
    return float(squared_error(a_BHWC, b_BHWC))
