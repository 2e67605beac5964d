"""How the part of a block is made: images or samples go through the networks in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import shards
from cluster import data
from cluster.evaluations.metrics import parts
from cluster.evaluations.metrics.parts import FeatureSet
from cluster.evaluations.metrics.plan import Block, Evaluation, divided, opened_codec
from cluster.evaluations.metrics.settings import Settings
from cluster.evaluations.work import MakePart
from gencomp import float32_products
from gencomp.errors import InputError
from gencomp.evaluation import (
    networks,
    patches,
    pixels,
    segmentation,
    sliced_wasserstein,
    ssim,
)
from gencomp.evaluation.draws import ItemDraws
from gencomp.evaluation.latents import standardised
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Codec, Picture, System, evaluation_mode
from shards.reading.reader import Split

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What all the blocks of a process share, on its device."""

    evaluation: Evaluation
    recipe: BaseRecipe
    system: System
    split: Split
    device: torch.device
    features: networks.FeatureNetwork | None
    perceptual: Mapping[str, networks.PerceptualNetwork]
    segmenter: networks.SegmentationNetwork | None = None
    codec: Codec | None = None

    @property
    def settings(self) -> Settings:
        return self.evaluation.plan.settings

    def draws(self, purpose: str, number: int, items: list[int]) -> ItemDraws:
        return ItemDraws.of(self.settings.seed, (purpose, number), items, self.device)


def open_context(evaluation: Evaluation, gpu: int = 0) -> Context:
    """The run's system, its images and the networks that measure.

    Args:
        evaluation: the evaluation, whose settings name the kind of device.
        gpu: the number of the GPU, if the device is a GPU.

    Raises:
        InputError: the weights or the network files are no longer those of the protocol, or there
            is no such device.
        ShardError: the shard set is no longer that of the protocol.
    """
    plan, run = evaluation.plan, evaluation.run
    settings = plan.settings
    if (found := run.final_checkpoint().networks_hash()) != plan.weights:
        raise InputError(
            f"run {run.path} has other weights ({found}) than the protocol of {evaluation.path}"
        )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{evaluation.path} asks for a GPU, but this process sees none")
    device = torch.device("cuda", gpu) if settings.device == "cuda" else torch.device("cpu")
    torch.set_num_threads(settings.threads)
    float32_products.set_precision("ieee")
    torch.backends.cudnn.deterministic = True
    split = shards.open_set(plan.shards).split(settings.split)
    if split.index_hash != plan.data:
        raise InputError(
            f"shard set {plan.shards} is another one than in the protocol of {evaluation.path}"
        )
    system = run.system()
    features = segmenter = None
    perceptual: dict[str, networks.PerceptualNetwork] = {}
    if plan.features_file is not None:
        module, name = _network(plan.features_file, settings.features, "features", device)
        features = networks.FeatureNetwork(module, settings.features_input, name)
    for metric, file, stated in (
        ("lpips", plan.lpips_file, settings.lpips),
        ("dists", plan.dists_file, settings.dists),
    ):
        if file is not None:
            loaded = _network(file, stated, metric, device)
            perceptual[metric] = networks.PerceptualNetwork(*loaded, signed=metric == "lpips")
    if plan.segmentation_file is not None:
        segmenter = networks.SegmentationNetwork(
            *_network(plan.segmentation_file, settings.segmentation, "segmentation", device)
        )
    through_files = settings.reconstructions == "files"
    codec = opened_codec(run, plan.toward, settings.share) if through_files else None
    if (codec and codec.reader_fingerprint.hex()) != plan.reader:
        raise InputError(f"run {run.path} has another codec than the protocol of {evaluation.path}")
    system.to(device)
    measure = features, perceptual, segmenter
    return Context(evaluation, run.recipe(), system, split, device, *measure, codec)


def open_maker(directory: Path, number: int = 0) -> MakePart:
    """The function that makes the parts of a measurement in this process.

    Args:
        directory: the measurement's directory.
        number: the number of the process; the processes take the GPUs in turn.

    Raises:
        InputError: the weights or the network files are no longer those of the protocol, or there
            is no such device.
        ShardError: the shard set is no longer that of the protocol.
    """
    gpu = number % max(torch.cuda.device_count(), 1)
    return partial(make_part, open_context(Evaluation.open(directory), gpu))


def make_part(
    context: Context, number: int, advanced: Callable[[int], None] = lambda items: None
) -> None:
    """Measure a block and write its part.

    Args:
        context: the objects that the blocks of the process share.
        number: the number of the block.
        advanced: a function that is called after each batch with the number of items done; an
            error that it raises stops the work, and the block must be made again.

    Raises:
        InputError: an image does not fit, or the output of a network is not what it must be.
        ShardError: an image cannot be read.
    """
    block = context.evaluation.plan.blocks[number]
    measured: list[Tensors] = []
    items: list[int] = []
    with evaluation_mode(context.system.networks):
        for of_batch, tensors in _batches(context, block):
            measured.append(tensors)
            items += of_batch
            advanced(len(items))
    order = sorted(range(len(items)), key=items.__getitem__)
    parts.write_part(context.evaluation, number, _joined(measured, order))


def _batches(context: Context, block: Block) -> Iterator[tuple[list[int], Tensors]]:
    """The items and results of each batch, on the CPU. The images of a batch have one size."""
    # Sample i has the size and the maps of measured image i; after the last image, the first one
    # follows again.
    measured = context.evaluation.plan.rows
    rows = [measured[item % len(measured)] for item in block.items]
    for group in data.of_one_size(data.held_out_sizes(context.recipe, context.split, rows)):
        for part in divided(range(len(group)), context.settings.batch_size):
            places = group[part.start : part.stop].tolist()
            of_batch = [rows[place] for place in places]
            more = [context.settings.label_map] if context.settings.asks("miou") else []
            host = data.held_out_rows(context.recipe, context.split, of_batch, more)
            batch = data.to_batch(host, context.device)
            items = [block.items[place] for place in places]
            if block.kind == "samples":
                yield items, _of_samples(context, batch, items)
            else:
                yield items, _of_images(context, batch)


def _of_images(context: Context, batch: Batch) -> Tensors:
    settings, images_BCHW = context.settings, batch.images_BCHW
    rows = batch.rows_B.tolist()
    found: Tensors = {}
    files = None if context.codec is None else _Files(context.codec, batch)

    def reconstruct(draw: int) -> Tensor:
        if files is not None:
            return files.decoded(draw).to(context.device)
        made = context.system.reconstruct(batch, context.draws("reconstruct", draw, rows))
        assert made is not None
        return made

    if files is not None:
        found |= files.rates()
    if context.evaluation.plan.reconstructs:
        first_BCHW = reconstruct(0)
        found |= _compared(context, images_BCHW, first_BCHW)
        if settings.asks("pv"):
            repeats = pixels.Repeats()
            repeats.add(first_BCHW)
            for draw in range(1, settings.draws):
                repeats.add(reconstruct(draw))
            found["pv"] = repeats.variance_B()
        found |= _features(context, "reconstructions", first_BCHW)
        found |= _segmented(context, batch, first_BCHW)
        if settings.asks("swd"):
            found |= _slices(context, images_BCHW, first_BCHW)
    if settings.asks("rate0"):
        found |= _of_zero_rate(context, batch, rows)
    if settings.asks("mmd"):
        found |= _of_latents(context, batch, rows)
    found |= _features(context, "images", images_BCHW)
    return {name: tensor.cpu() for name, tensor in found.items()}


class _Files:
    """The real files of a batch, each of one image."""

    def __init__(self, codec: Codec, batch: Batch) -> None:
        self._codec = codec
        self._images = batch.images_BCHW.permute(0, 2, 3, 1).cpu().contiguous().numpy()
        maps = {name: map_BHW.cpu().numpy() for name, map_BHW in batch.maps.items()}
        self._streams = [
            codec.compress(Picture(image_HWC, {name: one[i] for name, one in maps.items()}, row))
            for i, (image_HWC, row) in enumerate(
                zip(self._images, batch.rows_B.tolist(), strict=True)
            )
        ]

    def decoded(self, draw: int) -> Tensor:
        """What the files decode to by one draw of the decoder, uint8 [B, 3, H, W]."""
        made = [self._codec.decompress(stream, draw=draw) for stream in self._streams]
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()

    def rates(self) -> Tensors:
        """The rates of the files in bits per pixel, float64 [B]: of their code, and all bits."""
        _, height, width, _ = self._images.shape
        bits = {
            "bpp": [self._codec.code_bits(stream) for stream in self._streams],
            "file_bpp": [8 * len(stream) for stream in self._streams],
        }
        return {
            name: torch.tensor(one, dtype=torch.float64) / (height * width)
            for name, one in bits.items()
        }


def _compared(context: Context, images_BCHW: Tensor, made_BCHW: Tensor) -> Tensors:
    found: Tensors = {}
    if context.settings.asks("mse", "psnr"):
        found["mse"] = pixels.squared_error(images_BCHW, made_BCHW)
    if context.settings.asks("ms_ssim"):
        found["ms_ssim"] = ssim.ms_ssim(images_BCHW, made_BCHW)
    for metric, network in context.perceptual.items():
        if metric in context.settings.metrics:
            found[metric] = network(images_BCHW, made_BCHW)
    return found


def _of_zero_rate(context: Context, batch: Batch, rows: list[int]) -> Tensors:
    """The values of reconstructions at rate 0: samples of the prior that ignore the image."""
    images_BCHW = batch.images_BCHW
    repeats, errors, found = pixels.Repeats(), [], dict[str, Tensor]()
    for draw in range(context.settings.draws):
        made_BCHW = context.system.sample(context.draws("rate0", draw, rows), like=batch)
        assert made_BCHW is not None
        repeats.add(made_BCHW)
        errors.append(pixels.squared_error(images_BCHW, made_BCHW))
        if draw == 0:
            found |= _features(context, "rate0", made_BCHW)
    found |= {"rate0_mse": torch.stack(errors).mean(0), "rate0_pv": repeats.variance_B()}
    if context.evaluation.plan.sizes:  # images of different sizes have no mean image
        return found
    originals = pixels.PixelSums.of(images_BCHW)
    return found | {
        parts.PIXEL_TOTAL: originals.total_CHW,
        parts.PIXEL_SQUARES: originals.squares_CHW,
        parts.DRAWN_TOTAL: repeats.total_BCHW.sum(0),
    }


def _of_latents(context: Context, batch: Batch, rows: list[int]) -> Tensors:
    """The latents behind the first reconstruction of `_of_images`, and samples of the prior."""
    encoding, sampling = (context.draws(purpose, 0, rows) for purpose in ("reconstruct", "prior"))
    both = standardised(context.system, batch, encoding, sampling)
    assert both is not None
    latents_BK, prior_BK = both
    return {
        parts.feature_name("latents"): latents_BK.float(),
        parts.feature_name("prior"): prior_BK.float(),
    }


def _of_samples(context: Context, like: Batch, items: list[int]) -> Tensors:
    made_BCHW = context.system.sample(context.draws("sample", 0, items), like)
    assert made_BCHW is not None
    return _features(context, "samples", made_BCHW)


def _slices(context: Context, images_BCHW: Tensor, made_BCHW: Tensor) -> Tensors:
    """The projections of images and their reconstructions on the directions of the evaluation."""
    values = images_BCHW[0].numel()
    theta = torch.from_numpy(sliced_wasserstein.directions(values, context.settings.seed))
    both = {"image_slices": images_BCHW, "made_slices": made_BCHW}
    return {
        f"features/{which}": (x_BCHW.cpu().flatten(1).double() / 255 @ theta).float()
        for which, x_BCHW in both.items()
    }


def _segmented(context: Context, batch: Batch, made_BCHW: Tensor) -> Tensors:
    """What the segmentation network sees of the labels in images and in reconstructions."""
    if context.segmenter is None or not context.settings.asks("miou"):
        return {}
    labels_BHW = batch.maps[context.settings.label_map]
    found: Tensors = {}
    for which, x_BCHW in (("images", batch.images_BCHW), ("reconstructions", made_BCHW)):
        seen_BHW, classes = context.segmenter(x_BCHW)
        found[parts.segmentation_name(which)] = segmentation.counts(seen_BHW, labels_BHW, classes)
    return found


def _features(context: Context, which: FeatureSet, images_BCHW: Tensor) -> Tensors:
    """The features of images, [B, D]; or those of all their patches, [B, M, D]."""
    if context.features is None or not context.settings.asks("fid", "kid"):
        return {}
    if (side := context.settings.patches) is None:
        return {parts.feature_name(which): context.features(images_BCHW)}
    patches_BMCPP = patches.cut(images_BCHW, side)
    every = patches_BMCPP.flatten(0, 1).split(context.settings.batch_size)
    features_PD = torch.cat([context.features(some_PCHW) for some_PCHW in every])
    return {parts.feature_name(which): features_PD.unflatten(0, patches_BMCPP.shape[:2])}


def _joined(measured: list[Tensors], order: list[int]) -> Tensors:
    """The rows of all batches in order; sums over pixels are added up, and patches are counted."""
    joined: Tensors = {}
    for name in measured[0]:
        tensors = [one[name] for one in measured]
        if name.startswith("pixels/"):
            joined[name] = torch.stack(tensors).sum(0)
        elif name.startswith("features/") and tensors[0].ndim == 3:
            images = [features_MD for features_BMD in tensors for features_MD in features_BMD]
            images = [images[place] for place in order]
            joined[name] = torch.cat(images)
            joined[parts.PATCHES] = torch.tensor([len(features_MD) for features_MD in images])
        else:
            joined[name] = torch.cat(tensors)[order]
    return joined


def _network(path: str, stated: str | None, what: str, device: torch.device) -> tuple[object, str]:
    networks.checked_sha256(Path(path), stated, what)
    return networks.load(Path(path), device), path
