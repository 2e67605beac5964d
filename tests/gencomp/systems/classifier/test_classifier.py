"""The system `classifier`: its objective, its accuracy, and the file of its feature network."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gencomp import recipes
from gencomp.cli import main
from gencomp.draws import CPU, Draws
from gencomp.errors import InputError
from gencomp.evaluation import networks
from gencomp.system import Batch, Progress, Update, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.classifier.recipe import ClassifierRecipe
from gencomp.systems.classifier.system import Classifier
from tests import scripted, tiny
from tests.conftest import ROOT
from tests.shards.handmade import make_set, sample

START = Progress(step=0, samples=0, epoch_length=64)
RAW: dict[str, Any] = {
    "system": "classifier",
    "stage": "cross_entropy",
    "data": {"shards": "nowhere", "batch_size": 16},
    "networks": {"classes": 3, "widths": [8, 16]},
    "optimizer": {"learning_rate": 0.02},
    "training": {"steps": 80, "checkpoint_every": 40, "sample_every": 80, "log_every": 20},
    "evaluation": {"every": 40, "batch_size": 16},
}


def recipe(**overrides: Any) -> ClassifierRecipe:
    found = recipes.validate(recipes.with_overrides(RAW, overrides))
    assert isinstance(found, ClassifierRecipe)
    return found


def made(**overrides: Any) -> Classifier:
    """A system with the weights of its start."""
    torch.manual_seed(0)
    return Classifier(recipe(**overrides))


def batch(n: int = 6, label: int | None = None) -> Batch:
    """Noise with the labels 0, 1, 2, 0, ..., or with one label."""
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 12, 10), dtype=np.uint8)
    index = torch.arange(n)
    labels = index % 3 if label is None else torch.full((n,), label)
    return Batch(torch.from_numpy(images), index, index, labels)


def draws(n: int = 6) -> Draws:
    return Draws(1, ("train", 0, 0), n)


def stripes(seed: int, label: int) -> np.ndarray:
    """A noisy image of 16×16 with horizontal, vertical or no stripes; uint8."""
    rng = np.random.default_rng(seed)
    wave = np.where((np.arange(16) + rng.integers(4)) % 4 < 2, 60, -60)
    both = (np.broadcast_to(wave[:, None], (16, 16)), np.broadcast_to(wave, (16, 16)))
    pattern = both[label] if label < 2 else np.zeros((16, 16))
    noisy = 128 + pattern[:, :, None] + rng.normal(0, 25, (16, 16, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tells stripes apart, trained by the command line's loop."""
    folder = tmp_path_factory.mktemp("classifier")
    splits = {
        split: [sample(f"{split}{i}", stripes(start + i, i % 3), i % 3) for i in range(count)]
        for split, start, count in (("train", 0, 120), ("test", 1000, 48))
    }
    made = make_set(folder / "stripes", splits, shard_size=60, classes=["rows", "columns", "none"])
    raw = recipes.with_overrides(RAW, {"data.shards": str(made.path)})
    return tiny.trained(folder / "run", raw)[0].path


class TestObjective:
    def test_it_is_the_cross_entropy_of_the_labels(self) -> None:
        system, images = made(), batch()
        loss, terms = system.phases["classes"](images, draws(), START)
        with torch.no_grad():
            x_BCHW = images.images_BCHW.float() / 127.5 - 1
            logits = system.networks["head"](system.networks["trunk"](x_BCHW))
            expected = -logits.log_softmax(1)[torch.arange(6), images.labels_B].mean()
        assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-6)
        right = (logits.argmax(1) == images.labels_B).float().mean()
        assert float(terms["accuracy"]) == pytest.approx(float(right))
        assert system.updates(START) == [Update("classes", fresh_batch=True)]

    def test_gradients_reach_every_parameter(self) -> None:
        system = made()
        loss, _ = system.phases["classes"](batch(), draws(), START)
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in system.networks.parameters())

    def test_an_image_is_seen_alone(self) -> None:
        """No statistic of the batch enters, also while training."""
        system, images = made(), batch()
        system.networks.train()
        x_BCHW = images.images_BCHW.double() / 127.5 - 1
        trunk = system.networks["trunk"].double()
        whole, alone = trunk(x_BCHW), torch.cat([trunk(x[None]) for x in x_BCHW])
        torch.testing.assert_close(whole, alone)

    @pytest.mark.parametrize(("label", "said"), [(-1, "no label"), (3, "the label 3")])
    def test_a_label_that_is_no_class_is_refused(self, label: int, said: str) -> None:
        system = made()
        for call in (system.phases["classes"], lambda b, d, _: system.evaluate(b, d)):
            with pytest.raises(InputError, match=f"{said}, .* of 3 classes needs labels from 0"):
                call(batch(label=label), draws(), START)

    def test_the_published_size(self) -> None:
        system = build_system(recipes.load("classifier_mnist"), {})
        assert sum(p.numel() for p in system.networks.parameters()) == 246_682

    def test_widths_that_cannot_be_normalised_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"networks.widths.1 is 12, but .* multiple of 8"):
            recipe(**{"networks.widths": [8, 12]})


class TestEvaluation:
    def test_accuracy_and_cross_entropy_of_merged_shares(self) -> None:
        system, images = made(), batch(9)
        with evaluation_mode(system.networks):
            sums = system.evaluate(images, draws(9))
            merged = system.evaluate(Batch(*(x[:4] for x in images[:4])), draws(4))
            merged.merge(system.evaluate(Batch(*(x[4:] for x in images[:4])), draws(5)))
            x_BCHW = images.images_BCHW.float() / 127.5 - 1
            logits = system.networks["head"](system.networks["trunk"](x_BCHW))
        found = system.summary(sums)
        assert found == pytest.approx(system.summary(merged))
        right = (logits.argmax(1) == images.labels_B).double()
        assert found["accuracy"] == pytest.approx(float(right.mean()))
        error = float(right.std() / math.sqrt(9))
        assert found["accuracy_standard_error"] == pytest.approx(error)
        expected = F.cross_entropy(logits, images.labels_B)
        assert found["cross_entropy"] == pytest.approx(float(expected), rel=1e-6)
        assert found["images"] == 9

    def test_an_empty_share(self) -> None:
        system = made()
        with evaluation_mode(system.networks):
            sums = system.evaluate(batch(0), Draws(1, ("e",), 1, rank=1, world=2))
        assert sums.count("accuracy") == sums.count("cross_entropy") == 0

    def test_pictures_are_ordered_by_class(self) -> None:
        system, images = made(), batch(9)
        with evaluation_mode(system.networks):
            (shown,) = system.pictures(images, draws(9)).values()
            again = system.pictures(images._replace(images_BCHW=shown), draws(9))["by class"]
        assert torch.equal(shown, again)
        assert sorted(shown.flatten(1).tolist()) == sorted(images.images_BCHW.flatten(1).tolist())


class TestRun:
    def test_it_learns_what_the_labels_say(self, run: Path) -> None:
        """Stripes are told apart far above the third that chance gives."""
        result = json.loads((run / "result.json").read_text())
        assert result["accuracy"] > 0.9 and result["images"] == 48

    def test_the_file_gives_the_features_of_the_run(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "features.pt"
        assert main(["features", str(run), str(file)]) == 0
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert capsys.readouterr().out == f"{file}: SHA-256 {digest}\n"
        assert str(ROOT).encode() not in file.read_bytes()
        # The same network is the same file under any name, and an existing file is kept.
        other, before = tmp_path / "other.pt", file.stat().st_mtime_ns
        assert main(["features", str(run), str(other)]) == 0
        assert other.read_bytes() == file.read_bytes()
        assert main(["features", str(run), str(file)]) == 0
        assert file.stat().st_mtime_ns == before

        system = tiny.Run(run).system()
        network = networks.FeatureNetwork(networks.load(file, CPU), "uint8", file.name)
        images = batch()
        with evaluation_mode(system.networks):
            x_BCHW = images.images_BCHW.float() / 127.5 - 1
            expected_BD = system.networks["trunk"](x_BCHW)
        assert expected_BD.shape == (6, 16)
        torch.testing.assert_close(network(images.images_BCHW), expected_BD)

    def test_an_evaluation_takes_the_file(
        self, run: Path, generator_run: Path, tmp_path: Path
    ) -> None:
        import shutil

        generator = shutil.copytree(generator_run, tmp_path / "generator")
        file = tmp_path / "features.pt"
        assert main(["features", str(run), str(file)]) == 0
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        words = ["--metrics", "fid", "--features", str(file), "--features-sha256", digest]
        assert main(["evaluate", str(generator), *words, "--images", "20"]) == 0
        result = json.loads((generator / "evaluations/metrics/metrics.json").read_text())
        assert set(result["metrics"]) == {"rfd", "sfd"}

    def test_what_cannot_be_written_is_refused(
        self, run: Path, generator_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        taken = scripted.features(tmp_path).path
        before = taken.read_bytes()
        for words, said in (
            ([run, taken], "exists already and holds something else: choose another name"),
            ([run, tmp_path / "no" / "file.pt"], "there is no folder"),
            ([generator_run, tmp_path / "new.pt"], "(dplc/wae) has no network that judges images"),
            ([tmp_path, tmp_path / "new.pt"], "is not a run directory"),
        ):
            assert main(["features", *map(str, words)]) == 2
            err = capsys.readouterr().err
            assert said in err and len(err.splitlines()) == 1
        assert taken.read_bytes() == before and not (tmp_path / "new.pt").exists()
