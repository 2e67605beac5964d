"""Bad input through the command line: one sentence on stderr, exit 2, nothing written over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from gencomp.cli import main
from gencomp.system import Picture
from tests import tiny


@pytest.fixture
def recipe(photos: Path, tmp_path: Path) -> Path:
    return tiny.write(tiny.generator(photos), tmp_path / "tiny.yaml")


class TestTrain:
    @pytest.fixture
    def train(
        self, refused: Callable[..., str], recipe: Path, tmp_path: Path
    ) -> Callable[..., str]:
        return lambda *words: refused("train", recipe, "--runs", tmp_path / "runs", *words)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ["--loss.lambda", "3"],
                "unknown key loss.lambda; allowed here are mmd_weight, prior_v",
            ),
            (
                ["--networks.width", "wide"],
                "networks.width is 'wide', but it should be a valid integer",
            ),
            (
                ["--networks.width", "0"],
                "networks.width is 0, but it should be greater than or equal to 1",
            ),
            (["--training.epochs", "1"], "exactly one of epochs and steps must be given"),
            (["--data.shards", "/nowhere/photos"], "there is no shard set /nowhere/photos"),
            (["--data.split", "trian"], "no split 'trian': it has"),
            (["--evaluation.split", "val"], "no split 'val': it has"),
            (["--loss.mmd_weight"], "--loss.mmd_weight needs a value"),
            (["--wrokers", "2"], "not understood: --wrokers 2"),
            (["--workers", "two"], "--workers INT"),
            (["--stage", "codec"], "not understood"),
        ],
    )
    def test_words(self, words: list[str], said: str, train: Callable[..., str]) -> None:
        assert said in train(*words)

    @pytest.mark.parametrize("workers", ["0", "-1", "9"])
    def test_numbers_of_workers(
        self, workers: str, train: Callable[..., str], photos: Path, tmp_path: Path
    ) -> None:
        tiny.started(tmp_path / "runs" / "tiny", tiny.generator(photos))
        said = train("--workers", workers)
        assert f"data.batch_size is 8, but there are {workers} workers" in said

    def test_a_missing_recipe_names_what_ships(self, refused: Callable[..., str]) -> None:
        assert "shipped recipes are classifier_mnist" in refused("train", "missing.yaml")
        assert "nor one of" in refused("train", "nothing") or "neither" in refused(
            "train", "nothing"
        )
        assert "missing RECIPE" in refused("train")

    def test_a_file_that_is_no_recipe(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "list.yaml").write_text("- 1\n")
        assert "must be a mapping" in refused("train", tmp_path / "list.yaml")
        (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00 \x80")
        assert "binary.yaml" in refused("train", tmp_path / "binary.yaml")
        (tmp_path / "odd.yaml").write_text("system: [dplc]\nstage: {a: 1}\n")
        assert "system/stage is" in refused("train", tmp_path / "odd.yaml")

    def test_a_run_whose_recipe_changed(
        self, train: Callable[..., str], photos: Path, tmp_path: Path
    ) -> None:
        tiny.trained(tmp_path / "runs" / "tiny", tiny.generator(photos), tiny.stop_after(1))
        said = train("--loss.mmd_weight", "11")
        assert (
            "loss.mmd_weight was 10.0 and would be 11.0" in said and "choose another --name" in said
        )

    def test_a_run_whose_data_changed(
        self, train: Callable[..., str], photos: Path, tmp_path: Path
    ) -> None:
        from shards.building.build import build

        tiny.started(tmp_path / "runs" / "tiny", tiny.generator(photos))
        build("photos", tmp_path / "fewer", options={"size": "64"}, limit=20)
        assert "data was '" in train("--data.shards", str(tmp_path / "fewer"))

    def test_a_directory_of_somebody_else(self, train: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "runs" / "tiny").mkdir(parents=True)
        (tmp_path / "runs" / "tiny" / "thesis.tex").write_text("mine")
        assert "is not a run" in train()
        (tmp_path / "runs" / "file").write_text("mine")
        assert "is not a run" in train("--name", "file")

    def test_only_damaged_checkpoints(
        self, train: Callable[..., str], photos: Path, tmp_path: Path
    ) -> None:
        run, _ = tiny.trained(
            tmp_path / "runs" / "tiny", tiny.generator(photos), tiny.stop_after(5)
        )
        for checkpoint in run.checkpoints.iterdir():
            tiny.flip(checkpoint / "networks.safetensors")
        said = train()
        assert (
            "no whole checkpoint" in said and "step-000000004" in said and "step-000000005" in said
        )

    def test_parents(
        self, refused: Callable[..., str], photos: Path, codec_run: Path, tmp_path: Path
    ) -> None:
        tiny.started(tmp_path / "open", tiny.generator(photos))

        def said(parent: Path) -> str:
            path = tiny.write(tiny.codec(photos, parent), tmp_path / "codec.yaml")
            return refused("train", path, "--runs", tmp_path / "runs")

        assert "open is not finished" in said(tmp_path / "open")
        assert "missing is not a run directory" in said(tmp_path / "missing")
        assert "is a run of dplc/codec; a dplc/codec needs one of dplc/wae" in said(codec_run)


class TestSweep:
    @pytest.fixture
    def sweep(
        self, refused: Callable[..., str], photos: Path, generator_run: Path, tmp_path: Path
    ) -> Callable[..., str]:
        base = tiny.write(tiny.codec(photos, generator_run), tmp_path / "codec.yaml")

        def run(parts: dict[str, Any], *words: str) -> str:
            content = {"base": str(base), "space": {"loss.mmd_weight": {"grid": [1]}}} | parts
            (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
            return refused("sweep", tmp_path / "sweep.yaml", "--runs", tmp_path / "runs", *words)

        return run

    @pytest.mark.parametrize(
        ("parts", "said"),
        [
            ({"rounds": 3}, "unknown key rounds; allowed here are base"),
            ({"space": {"loss.mmd_weight": {"choice": [1]}}}, "it needs one of grid"),
            ({"space": {"loss.lambda": {"grid": [1]}}}, "unknown key loss.lambda"),
            (
                {"space": {"networks.width": {"grid": [4, -4]}}},
                "trial networks.width=-4: networks.width is -4",
            ),
            (
                {"space": {"networks.code_channels": {"grid": [2, 9]}}},
                "code_channels is 9, allowed are 1 to",
            ),
            ({"overrides": {"data.shards": "/nowhere"}}, "there is no shard set /nowhere"),
            ({"overrides": {"parents.generator": "/nowhere"}}, "/nowhere is not a run directory"),
            ({"base": "nothing"}, "recipe 'nothing' is neither"),
        ],
    )
    def test_files(self, parts: dict[str, Any], said: str, sweep: Callable[..., str]) -> None:
        assert said in sweep(parts)

    def test_words(self, sweep: Callable[..., str], refused: Callable[..., str]) -> None:
        assert "unknown key loss.lambda" in sweep({}, "--loss.lambda", "3")
        assert "did you mean loss.mmd_weight?" in sweep({}, "--training.mmd_weight", "3")
        assert "shipped sweeps are" in refused("sweep", "nothing")

    def test_a_mended_sweep_may_start(self, sweep: Callable[..., str], tmp_path: Path) -> None:
        """A refusal leaves no directory behind that the same command would then refuse."""
        sweep({"overrides": {"data.shards": "/nowhere"}})
        assert not (tmp_path / "runs").exists()

    def test_a_directory_of_somebody_else(self, sweep: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "runs" / "sweep").mkdir(parents=True)
        (tmp_path / "runs" / "sweep" / "thesis.tex").write_text("mine")
        assert "exists and is not a sweep" in sweep({})


class TestCodec:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        return tmp_path / "image.png"

    @pytest.fixture
    def stream(
        self, codec_run: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> Path:
        assert main(["compress", str(codec_run), str(image), str(tmp_path / "image.gcp")]) == 0
        capsys.readouterr()
        return tmp_path / "image.gcp"

    def test_there_and_back(
        self,
        codec_run: Path,
        stream: Path,
        tmp_path: Path,
        image: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The counterpart of all refusals: what is right goes through, exactly."""
        from cluster.runs import open_run

        assert main(["decompress", str(codec_run), str(stream), str(tmp_path / "back.png")]) == 0
        capsys.readouterr()
        codec = open_run(codec_run).system().codec()
        assert codec is not None
        expected = codec.reconstruct(Picture(np.asarray(Image.open(image))))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "back.png")), expected)

    def test_truncated_streams(
        self, codec_run: Path, stream: Path, tmp_path: Path, refused: Callable[..., str]
    ) -> None:
        whole = stream.read_bytes()
        for length in (0, 1, 10, len(whole) - 1):
            (tmp_path / "cut.gcp").write_bytes(whole[:length])
            said = refused("decompress", codec_run, tmp_path / "cut.gcp", tmp_path / "back.png")
            assert "cut.gcp cannot be decoded" in said

    def test_a_changed_stream(
        self, codec_run: Path, stream: Path, tmp_path: Path, refused: Callable[..., str]
    ) -> None:
        tiny.flip(stream, stream.stat().st_size - 6)
        assert "damaged" in refused("decompress", codec_run, stream, tmp_path / "back.png")

    def test_a_stream_of_another_model(
        self,
        photos: Path,
        generator_run: Path,
        stream: Path,
        tmp_path: Path,
        refused: Callable[..., str],
    ) -> None:
        other, _ = tiny.trained(
            tmp_path / "other",
            tiny.codec(photos, generator_run, {"training.seed": 2}),
            tiny.stop_after(1),
        )
        said = refused("decompress", other.path, stream, tmp_path / "back.png")
        assert "was written by the encoder" in said and "give the run that wrote it" in said

    def test_runs_without_a_codec(
        self, generator_run: Path, image: Path, tmp_path: Path, refused: Callable[..., str]
    ) -> None:
        out = tmp_path / "out.gcp"
        assert "has no codec" in refused("compress", generator_run, image, out)
        assert "is not a run directory" in refused("compress", tmp_path, image, out)

    def test_images(
        self, codec_run: Path, image: Path, tmp_path: Path, refused: Callable[..., str]
    ) -> None:
        out = tmp_path / "out.gcp"
        assert "does not exist" in refused("compress", codec_run, tmp_path / "none.png", out)
        (tmp_path / "text.png").write_text("no image")
        assert "is not a readable image" in refused(
            "compress", codec_run, tmp_path / "text.png", out
        )
        Image.new("F", (32, 64)).save(tmp_path / "deep.tif")
        assert "has 32 bits a channel" in refused("compress", codec_run, tmp_path / "deep.tif", out)
        shutil.copy(image, tmp_path / "cut.png")
        (tmp_path / "cut.png").write_bytes(image.read_bytes()[:500])
        assert "is not a readable image" in refused(
            "compress", codec_run, tmp_path / "cut.png", out
        )

    def test_places_to_write(
        self,
        codec_run: Path,
        image: Path,
        stream: Path,
        tmp_path: Path,
        refused: Callable[..., str],
    ) -> None:
        assert "exists" in refused("compress", codec_run, image, stream)
        assert "exists" in refused("decompress", codec_run, stream, image)
        assert "does not exist" in refused(
            "compress", codec_run, image, tmp_path / "none" / "out.gcp"
        )
        assert "must end in .png" in refused("decompress", codec_run, stream, tmp_path / "out.jpg")
        assert "does not exist" in refused(
            "decompress", codec_run, tmp_path / "none", tmp_path / "o.png"
        )
