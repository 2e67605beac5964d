"""Held-out images of different sizes: trained on crops, evaluated whole, each image once.

The system here is a network of one pixel, which takes images of any size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import shards
from cluster import data, runs
from cluster.evaluations.metrics import plan, results, work
from cluster.evaluations.metrics.plan import Evaluation
from cluster.evaluations.processes import make_parts
from cluster.runs import Run
from cluster.training import state as state_of_training
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.evaluation import frechet, kernel
from gencomp.evaluation import pixels as of_bytes
from gencomp.recipes.schema import BaseRecipe, OptimizerSection
from gencomp.sums import Sums
from gencomp.system import Batch, Phase, PhaseLoss, Progress, Supply, evaluation_mode
from gencomp.systems.common import pixels
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from shards.building.build import build
from tests import scripted, tiny

SIZES = ((20, 24), (24, 20), (32, 32), (20, 24), (17, 40))


class Error(Phase):
    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        return PhaseLoss((self.networks["mix"](x_BCHW) - x_BCHW).square().mean(), {})


class OnePixel(SystemOfObjectives):
    """The map x̂ = W x + b at each pixel; samples are of one colour each."""

    def __init__(self) -> None:
        nets = {"mix": nn.Conv2d(3, 3, 1)}
        super().__init__(nets, {"mix": Objective(Error(nets, ["mix"]), OptimizerSection())})

    def finalise(self, supply: Supply) -> None:
        pass

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        x_BCHW = pixels.to_signed(batch.images_BCHW)
        return squared_errors(x_BCHW, self.networks["mix"](x_BCHW))

    def summary(self, sums: Sums) -> dict[str, float]:
        return {**errors_summary(sums), "images": sums.count("mse")}

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        return pixels.to_bytes(self.networks["mix"](pixels.to_signed(batch.images_BCHW)))

    def sample(self, draws: Draws, like: Batch) -> Tensor:
        colours_B311 = draws.uniform("colour", -1, 1, 3, 1, 1)
        return pixels.to_bytes(colours_B311).expand(like.images_BCHW.shape)

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {"originals": batch.images_BCHW, "reconstructions": self.reconstruct(batch, draws)}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set of 40 images of four sizes, half of them held out."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(40):
        height, width = SIZES[number % len(SIZES)]
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02d}.png")
    out = tmp_path_factory.mktemp("data") / "photographs"
    build("folder", out, path=folder, options={"test_fraction": 0.5}, shard_size=8)
    return out


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished run that was trained on crops and evaluates whole images."""

    def one_pixel(recipe: BaseRecipe, parents: Mapping[str, BaseRecipe]) -> OnePixel:
        return OnePixel()

    changes = {"data.transforms.crop": [16, 16], "evaluation.transforms": {}}
    raw = tiny.generator(photographs, changes | {"evaluation.limit": None})
    with (
        mock.patch.object(state_of_training, "build_system", one_pixel),
        mock.patch.object(runs, "build_system", one_pixel),
    ):
        found, outcome = tiny.trained(tmp_path_factory.mktemp("runs") / "run", raw)
        assert outcome.finished
        yield found


def alone(run: Run, photographs: Path) -> tuple[list[Tensor], list[float]]:
    """Every held-out image, and the MSE of its reconstruction."""
    split, system = shards.open_set(photographs).split("test"), run.system()
    images, errors = [], []
    with evaluation_mode(system.networks):
        for row in range(len(split)):
            image_1CHW = torch.from_numpy(split.image(row).copy()).permute(2, 0, 1)[None]
            place = torch.tensor([row])
            made = system.reconstruct(Batch(image_1CHW, place, place, place), Draws(0, (), 1))
            assert made is not None
            images.append(image_1CHW)
            errors.append(float(of_bytes.squared_error(image_1CHW, made)))
    return images, errors


def measured(run: Run, name: str, **chosen: Any) -> tuple[Evaluation, dict[str, Any]]:
    asked: dict[str, Any] = {
        "metrics": ("mse", "ms_ssim", "rate0"),
        "split": "test",
        "images": None,
        "samples": None,
        "draws": 3,
        "features": None,
        "features_sha256": None,
        "features_input": "uint8",
        "patches": None,
        "reconstructions": "networks",
        "lpips": None,
        "lpips_sha256": None,
        "batch_size": 4,
        "block": 6,
        "seed": 7,
        "threads": 1,
        "device": "cpu",
    }
    evaluation = Evaluation.find(run, name, plan.make(run, **{**asked, **chosen})).enter()
    make_parts(partial(work.open_maker, evaluation.path), evaluation.missing(), 1)
    results.collect(evaluation, require_all=True)
    return evaluation, json.loads(evaluation.result.read_text())


def test_training_evaluates_whole_images(run: Run, photographs: Path) -> None:
    images, _ = alone(run, photographs)
    mix = run.system().networks["mix"]
    with torch.no_grad():
        signed = [pixels.to_signed(image_1CHW) for image_1CHW in images]
        errors = [float((mix(x) - x).square().mean()) for x in signed]
    found = tiny.result(run)
    assert found["images"] == len(images) == 20
    assert found["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["protocol"]["transforms"]["crop"] is None
    assert list((run.path / "samples").iterdir())


@pytest.mark.parametrize("world", [1, 3])
def test_batches_have_one_size_each_and_all_ranks_the_same_number(
    run: Run, photographs: Path, world: int
) -> None:
    recipe, split = run.recipe(), shards.open_set(photographs).split("test")
    order = data.held_out_order(recipe, split, 8, len(split))
    assert sorted(np.concatenate(order).tolist()) == list(range(len(split)))
    ranks = [list(data.held_out_batches(recipe, split, order, r, world)) for r in range(world)]
    for shares, rows in zip(zip(*ranks, strict=True), order, strict=True):
        assert len({share.images.shape[1:] for share in shares}) == 1
        assert sorted(row for share in shares for row in share.rows) == sorted(rows)


def test_images_of_one_size_keep_their_order(photos: Path) -> None:
    recipe = tiny.checked(tiny.generator(photos))
    split = data.open_held_out(recipe)
    order = data.held_out_order(recipe, split, 8, 20)
    assert [rows.tolist() for rows in order] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]


def test_every_image_is_measured_in_its_own_size(run: Run, photographs: Path) -> None:
    _, errors = alone(run, photographs)
    evaluation, content = measured(run, "metrics")
    stored = evaluation.plan
    assert stored.height is None and stored.width is None
    assert sum(images for _, _, images in stored.sizes) == 20
    assert {(height, width) for height, width, _ in stored.sizes} == set(SIZES)
    # 17 and 20 pixels have room for one scale, 32 for two.
    assert stored.rules["ms_ssim"].endswith("weights of the scales 1.000000 or 0.135593, 0.864407")
    values = np.concatenate(
        [work.parts.read_part(evaluation, b)[0]["mse"].numpy() for b in range(len(stored.blocks))]
    )
    # One after the other, as the split has them.
    assert values.tolist() == pytest.approx(errors, rel=1e-9)
    assert content["metrics"]["mse"]["value"] == pytest.approx(np.mean(errors))
    assert content["metrics"]["rate0_mse"]["images"] == 20
    # Images of different sizes have no mean image.
    assert "zero_rate_identity" not in content


def test_batches_and_blocks_do_not_matter(run: Run, tmp_path: Path) -> None:
    """This holds with more samples than images, and for their features."""
    features = scripted.features(tmp_path)
    nets = {"features": features.path, "features_sha256": features.sha256}
    asked = {"metrics": ("mse", "ms_ssim", "pv", "rate0", "fid", "kid"), "samples": 30, **nets}
    _, small = measured(run, "small", batch_size=1, block=3, **asked)
    _, large = measured(run, "large", batch_size=20, block=40, **asked)
    for name, entry in large["metrics"].items():
        assert small["metrics"][name]["value"] == pytest.approx(entry["value"], rel=1e-4), name
    assert large["metrics"]["sfd"]["samples"] == 30


def test_distances_of_patches(run: Run, photographs: Path, tmp_path: Path) -> None:
    """Those of a plain loop over the patches of every image, in any batches and blocks."""
    features = scripted.features(tmp_path)
    asked: dict[str, Any] = {"metrics": ("fid", "kid"), "patches": 16, "samples": 20}
    asked |= {"features": features.path, "features_sha256": features.sha256}
    evaluation, content = measured(run, "patches", **asked)
    _, other = measured(run, "others", batch_size=7, block=9, **asked)
    found = {name: entry["value"] for name, entry in content["metrics"].items()}
    assert set(found) == {"rfd_16", "rkd_16", "sfd_16", "skd_16"}
    # A subset of the kernel distance has 1,000 patches, so there is one.
    assert {name: e["value"] for name, e in other["metrics"].items()} == pytest.approx(found, 1e-4)

    images, _ = alone(run, photographs)
    system, net = run.system(), torch.jit.load(str(features.path))
    of_images, of_made, counts = [], [], []
    with torch.no_grad():
        for image_1CHW in images:
            made = pixels.to_bytes(system.networks["mix"](pixels.to_signed(image_1CHW)))
            height, width = image_1CHW.shape[-2:]
            corners = [
                (top, left)
                for begin in (0, 8)
                for top in range(begin, height // 16 * 16 - 15, 16)
                for left in range(begin, width // 16 * 16 - 15, 16)
            ]
            counts.append(len(corners))
            for into, whole in ((of_images, image_1CHW), (of_made, made)):
                into += [net(whole[..., y : y + 16, x : x + 16]) for y, x in corners]
    assert sorted(set(counts)) == [1, 2, 5]
    x, y = torch.cat(of_images), torch.cat(of_made)
    sums = [frechet.FeatureSums(scripted.DIMENSION) for _ in range(2)]
    for one, rows in zip(sums, (x, y), strict=True):
        one.add(rows)
    assert found["rfd_16"] == pytest.approx(
        frechet.distance(*(one.gaussian() for one in sums)), rel=1e-4
    )
    expected = kernel.subset_distance(
        x.numpy(), y.numpy(), True, patches=(np.array(counts), np.array(counts))
    )
    entry = content["metrics"]["rkd_16"]
    assert entry["value"] == pytest.approx(expected.value, rel=1e-4)
    assert entry["interval"] == pytest.approx(expected.interval, rel=1e-3)
    assert entry["images"] == 20 and entry["patches"] == sum(counts)
    assert "16x16 patches" in evaluation.plan.rules["patches"]
    # Images weight as many times as they have patches, so the interval is that of images.
    first = content["metrics"]["rfd_16"]
    assert first["interval"][0] < first["value"] < first["interval"][1]


def test_patches_that_no_image_has_are_refused(run: Run, tmp_path: Path) -> None:
    features = scripted.features(tmp_path)
    asked: dict[str, Any] = {"features": features.path, "features_sha256": features.sha256}
    with pytest.raises(InputError, match="--patches is 24, but there are images of 24x20 pixels"):
        measured(run, "large", metrics=("fid",), patches=24, **asked)
    with pytest.raises(InputError, match="--patches is for the metrics fid and kid"):
        measured(run, "none", metrics=("mse",), patches=16, **asked)
    with pytest.raises(InputError, match="--patches is 8, but it should be greater than or eq"):
        measured(run, "small", metrics=("kid",), patches=8, **asked)


def test_a_size_that_is_stated_holds_for_all(run: Run, photographs: Path) -> None:
    raw = tiny.generator(photographs, {"evaluation.transforms.resize": [12, 14]})
    recipe = tiny.checked(raw)
    split = shards.open_set(photographs).split("test")
    assert data.held_out_sizes(recipe, split, [0, 3]).tolist() == [[12, 14], [12, 14]]
    host = data.held_out_rows(recipe, split, range(len(split)))
    assert host.images.shape == (20, 12, 14, 3)
