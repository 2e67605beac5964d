"""The system `pixel_classifier`: its objective, its mean intersection over union, and its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gencomp import recipes
from gencomp.cli import main
from gencomp.draws import CPU, Draws
from gencomp.errors import InputError
from gencomp.evaluation import networks, segmentation
from gencomp.system import Batch, Progress, Update, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.pixel_classifier.recipe import PixelClassifierRecipe
from gencomp.systems.pixel_classifier.system import PixelClassifier
from tests import tiny
from tests.shards.handmade import make_set, sample

START = Progress(step=0, samples=0, epoch_length=64)
VOID = 255
RAW: dict[str, Any] = {
    "system": "pixel_classifier",
    "stage": "cross_entropy",
    "data": {"shards": "nowhere", "batch_size": 8, "maps": ["label"]},
    "networks": {"classes": 3, "widths": [8, 16]},
    "optimizer": {"learning_rate": 0.02},
    "training": {"steps": 60, "checkpoint_every": 30, "sample_every": 60, "log_every": 20},
    "evaluation": {"every": 60, "batch_size": 8},
}


def made(**overrides: Any) -> PixelClassifier:
    """A system with the weights of its start."""
    found = recipes.validate(recipes.with_overrides(RAW, overrides))
    assert isinstance(found, PixelClassifierRecipe)
    torch.manual_seed(0)
    return PixelClassifier(found)


def batch(n: int = 4, height: int = 12, width: int = 10) -> Batch:
    """Noise with labels 0 to 2 and void; the last image has nothing but void."""
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    labels = numbers.choice([0, 1, 2, VOID], (n, height, width)).astype(np.uint8)
    labels[-1:] = VOID
    index = torch.arange(n)
    maps = {"label": torch.from_numpy(labels)}
    return Batch(torch.from_numpy(images), index, index, torch.full((n,), -1), maps)


def draws(n: int = 4) -> Draws:
    return Draws(1, ("train", 0, 0), n)


def part(whole: Batch, rows: slice) -> Batch:
    maps = {name: found[rows] for name, found in whole.maps.items()}
    return Batch(*(x[rows] for x in whole[:4]), maps)


def logits_of(system: PixelClassifier, images: Batch) -> torch.Tensor:
    return system.networks["pixels"](images.images_BCHW.float() / 127.5 - 1)


class TestObjective:
    def test_it_is_the_cross_entropy_of_the_labels_that_count(self) -> None:
        system, images = made(), batch()
        loss, terms = system.phases["classes"](images, draws(), START)
        with torch.no_grad():
            log_p_BLHW = logits_of(system, images).log_softmax(1)
        nats, right = [], []
        for log_p_LHW, labels_HW in zip(log_p_BLHW, images.maps["label"], strict=True):
            there = [
                (int(k), *place) for place in np.ndindex(12, 10) if (k := labels_HW[place]) < 3
            ]
            nats.append(-sum(float(log_p_LHW[place]) for place in there) / max(len(there), 1))
            seen = [int(log_p_LHW[:, h, w].argmax()) == k for k, h, w in there]
            right.append(sum(seen) / max(len(seen), 1))
        assert nats[-1] == 0
        assert float(loss.detach()) == pytest.approx(np.mean(nats), rel=1e-5)
        assert float(terms["accuracy"]) == pytest.approx(np.mean(right))
        assert system.updates(START) == [Update("classes", fresh_batch=True)]

    def test_gradients_reach_every_parameter(self) -> None:
        system = made()
        loss, _ = system.phases["classes"](batch(), draws(), START)
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in system.networks.parameters())

    @pytest.mark.parametrize(("height", "width"), [(12, 10), (17, 23), (1, 5)])
    def test_an_image_of_any_size_is_seen_alone(self, height: int, width: int) -> None:
        system, images = made(), batch(3, height, width)
        system.networks["pixels"].double()
        x_BCHW = images.images_BCHW.double() / 127.5 - 1
        network = system.networks["pixels"]
        whole, alone = network(x_BCHW), torch.cat([network(x[None]) for x in x_BCHW])
        assert whole.shape == (3, 3, height, width)
        torch.testing.assert_close(whole, alone)

    def test_the_size_of_the_shipped_recipe(self) -> None:
        system = build_system(recipes.load("pixel_classifier_narrow"), {})
        assert sum(p.numel() for p in system.networks.parameters()) == 266_971

    @pytest.mark.parametrize("maps", [[], ["label", "instance"]])
    def test_another_number_of_maps_is_refused(self, maps: list[str]) -> None:
        with pytest.raises(InputError, match=f"data.maps names {len(maps)} maps, but"):
            made(**{"data.maps": maps})


class TestEvaluation:
    def test_the_measures_of_merged_shares(self) -> None:
        system, images = made(), batch(5)
        with evaluation_mode(system.networks):
            sums = system.evaluate(images, draws(5))
            merged = system.evaluate(part(images, slice(2)), draws(2))
            merged.merge(system.evaluate(part(images, slice(2, 5)), draws(3)))
            merged.merge(system.evaluate(part(images, slice(0)), Draws(1, ("e",), 1, 1, 2)))
            seen_BHW = logits_of(system, images).argmax(1)
        found = system.summary(sums)
        assert found == pytest.approx(system.summary(merged))
        counts = segmentation.counts(seen_BHW, images.maps["label"], 3)
        expected = segmentation.mean_iou(counts.numpy())
        assert expected is not None and found["miou"] == pytest.approx(expected.value)
        assert found["images"] == 5

    def test_pictures_show_labels_and_what_is_seen(self) -> None:
        system, images = made(), batch(5)
        with evaluation_mode(system.networks):
            shown = system.pictures(images, draws(5))
            seen_BHW = logits_of(system, images).argmax(1)
        assert torch.equal(shown["seen"][:, 0], (seen_BHW * 255 // 2).to(torch.uint8))
        assert torch.equal(shown["labels"].unique(), torch.tensor([0, 127, 255], dtype=torch.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tells noisy colours apart, trained by the command line's loop."""
    folder = tmp_path_factory.mktemp("pixels")

    def coloured(seed: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.random.default_rng(seed)
        labels = np.repeat(np.repeat(numbers.integers(0, 3, (2, 2)), 8, 0), 8, 1).astype(np.uint8)
        pixels = 60 + 70 * labels[..., None] + numbers.normal(0, 15, (16, 16, 3))
        return pixels.clip(0, 255).astype(np.uint8), labels

    splits = {
        split: [
            sample(f"{split}{n}", pixels, maps={"label": labels})
            for n in range(count)
            for pixels, labels in [coloured(start + n)]
        ]
        for split, start, count in (("train", 0, 64), ("test", 1000, 16))
    }
    there = make_set(folder / "colours", splits, shard_size=40)
    raw = recipes.with_overrides(RAW, {"data.shards": str(there.path)})
    return tiny.trained(folder / "run", raw)[0].path


class TestRun:
    def test_it_learns_what_the_labels_say(self, run: Path) -> None:
        """Three colours give 0.2 by chance; borders between them stay uncertain."""
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        assert result["miou"] > 0.5 and result["images"] == 16

    def test_the_file_gives_the_classes_of_the_run(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "segmenter.pt"
        assert main(["features", str(run), str(file)]) == 0
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert capsys.readouterr().out == f"{file}: SHA-256 {digest}\n"
        network = networks.SegmentationNetwork(networks.load(file, CPU), file.name)
        system = tiny.Run(run).system()
        assert isinstance(system, PixelClassifier)
        for images in (batch(), batch(2, 17, 23)):
            with evaluation_mode(system.networks):
                expected_BHW = logits_of(system, images).argmax(1)
            seen_BHW, classes = network(images.images_BCHW)
            assert classes == 3 and torch.equal(seen_BHW, expected_BHW)
