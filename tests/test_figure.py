"""`gencomp figure`, end to end: files that show what runs and evaluations say, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.results import classical, pictures
from cluster.runs import open_run
from gencomp.cli import main
from gencomp.coding.classical import archive
from gencomp.draws import Draws
from gencomp.figures import curves
from gencomp.losses import mmd
from gencomp.systems.dplc.base import ReconstructingSystem
from shards.building.build import build
from sweeps.operating_points import read
from tests import tiny


@pytest.fixture(scope="module")
def codecs(
    photos: Path, generator_run: Path, codec_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Three evaluated codecs on one generator: 2 and 4 channels, and 4 with another λ."""
    directory = tmp_path_factory.mktemp("codecs")
    paths = [Path(shutil.copytree(codec_run, directory / "two"))]
    for name, weight in (("four", 10), ("free", 0)):
        changes = {"networks.code_channels": 4, "loss.mmd_weight": weight}
        tiny.trained(directory / name, tiny.codec(photos, generator_run, changes))
        paths.append(directory / name)
    for path in paths:
        words = ["--metrics", "mse,psnr,pv,rate0", "--images", "20", "--draws", "3"]
        assert main(["evaluate", str(path), *words]) == 0
    assert main(["files", *map(str, paths), "--images", "20"]) == 0
    return paths


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Run a figure command that must succeed; its picture."""

    def run(*words: str | Path) -> np.ndarray:
        out = tmp_path / "figure.png"
        assert main(["figure", *map(str, words), "--out", str(out)]) == 0
        pixels = np.asarray(Image.open(out).convert("RGB"))
        out.unlink()
        return pixels

    return run


def holds(page_HWC: np.ndarray, tile_HWC: np.ndarray) -> bool:
    height, width, _ = tile_HWC.shape
    return any(
        np.array_equal(page_HWC[y : y + height, x : x + width], tile_HWC)
        for y, x in np.argwhere((page_HWC == tile_HWC[0, 0]).all(-1))
    )


class TestRates:
    def test_it_shows_the_images_and_what_evaluations_measure(
        self, codecs: list[Path], draw: Callable[..., np.ndarray]
    ) -> None:
        page = draw("rates", *codecs, "--images", "2", "--draws", "2", "--scale", "1")
        runs = [open_run(path) for path in codecs]
        images = pictures.choose_images(runs, "test", 2)
        originals = [pictures.as_tiles(b.images_BCHW) for b in images.batches(runs[0].recipe())]
        assert all(holds(page, tile) for tile in originals[0])
        for run in runs:
            for made in pictures.reconstructions(run, run.system(), images, 7, 2):
                assert all(holds(page, tile) for tile in pictures.as_tiles(made))
        for made in pictures.prior_samples(runs[0], runs[0].system(), images, 7, 2):
            assert all(holds(page, tile) for tile in pictures.as_tiles(made))

    def test_its_reconstructions_have_the_evaluated_error(self, codecs: list[Path]) -> None:
        for path in codecs:
            run = open_run(path)
            images = pictures.choose_images([run], "test", 20)
            (first,) = pictures.reconstructions(run, run.system(), images, 7, 1)
            (batch,) = images.batches(run.recipe())
            error = (first.double() - batch.images_BCHW.double()).div(127.5).square().mean()
            content = json.loads((path / "evaluations/metrics/metrics.json").read_text())
            assert float(error) == pytest.approx(content["metrics"]["mse"]["value"], rel=1e-6)

    def test_labels_tell_runs_of_one_rate_apart(self, codecs: list[Path]) -> None:
        runs = [open_run(path) for path in codecs]
        said = pictures.differing(runs, rates=False)
        assert said == ["λ 10", "λ 10", "λ 0"]
        assert pictures.differing(runs)[0] == "2 channels, λ 10"
        assert pictures.differing(runs[:1]) == ["dplc/codec"]

    def test_chosen_images_and_a_pdf(self, codecs: list[Path], tmp_path: Path) -> None:
        out = tmp_path / "rates.pdf"
        words = [*map(str, codecs[:2]), "--rows", "5", "3", "--draws", "1", "--out", str(out)]
        assert main(["figure", "rates", *words]) == 0
        assert out.read_bytes().startswith(b"%PDF")


def test_interpolation_holds_the_noise_fixed(
    codecs: list[Path], draw: Callable[..., np.ndarray]
) -> None:
    page = draw("interpolation", *codecs, "--image", "3", "--draws", "2", "--scale", "1")
    runs = [open_run(path) for path in codecs]
    images = pictures.choose_rows(pictures.choose_images(runs, "test", 1), [3])
    for run in runs:
        for made in pictures.reconstructions(run, run.system(), images, 7, 2):
            assert holds(page, pictures.as_tiles(made)[0])


class TestLatent:
    def test_the_mmd_is_that_of_the_latents(
        self,
        codecs: list[Path],
        generator_run: Path,
        draw: Callable[..., np.ndarray],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """One figure shows codecs and the generator's own encoder."""
        page = draw("latent", *codecs, generator_run, "--split", "train", "--images", "30")
        assert page.std() > 10
        out = capsys.readouterr().out
        run = open_run(codecs[0])
        system = run.system()
        assert isinstance(system, ReconstructingSystem) and system.prior is not None
        images = pictures.choose_images([run], "train", 30)
        z = pictures.latents(run, system, images, 7).z_BK.double()
        prior = system.prior.sample(Draws(7, ("prior",), 30), torch.float64)
        assert f"{float(mmd(z, prior)):.5f}" in out
        assert "dplc/codec, 2 channels, λ 10" in out and "dplc/wae" in out and "chance" in out
        assert out.index("a negative one means") < out.index("dplc/wae")

    def test_latents_of_frozen_statistics_do_not_depend_on_the_batch(
        self, codecs: list[Path]
    ) -> None:
        run = open_run(codecs[0])
        system = run.system()
        images = pictures.choose_images([run], "test", 20)
        together = pictures.latents(run, system, images, 7).z_BK
        alone = pictures.choose_rows(images, images.rows[4:5])
        (batch,) = alone.batches(run.recipe())
        assert batch.images_BCHW.shape == (1, 3, 64, 64)
        np.testing.assert_allclose(
            pictures.latents(run, system, alone, 7).z_BK[0], together[4], atol=1e-5
        )


class TestCurves:
    def test_runs_join_by_what_their_recipes_say(self, codecs: list[Path]) -> None:
        found = read([str(path) for path in codecs], "metrics")
        assert [one.series for one in found] == ["λ 10", "λ 10", "λ 0"]
        points = [one.point("mse") for one in found]
        for path, point in zip(codecs, points, strict=True):
            rates = json.loads((path / "evaluations/files/rates.json").read_text())["metrics"]
            assert point is not None
            assert point.bpp == rates["joint_bpp"]["value"]
            assert point.bpp <= rates["nominal_bpp"]["value"] + 8 / 64**2  # and the salt
            assert point.file_bpp == rates["joint_file_bpp"]["value"] > point.bpp
        content = json.loads((codecs[0] / "evaluations/metrics/metrics.json").read_text())
        first = points[0]
        assert first is not None and first.value == content["metrics"]["mse"]["value"]
        assert first.interval == tuple(content["metrics"]["mse"]["interval"])

    def test_labels_and_files(
        self, codecs: list[Path], tmp_path: Path, draw: Callable[..., np.ndarray]
    ) -> None:
        two, four, free = codecs
        file = tmp_path / "elsewhere.json"
        shutil.copy(free / "evaluations/metrics/metrics.json", file)
        shutil.copy(free / "evaluations/files/rates.json", tmp_path / "rates.json")
        words = [f"λ = 10={two},{four}", str(file)]
        found = read(words, "metrics")
        assert [one.series for one in found] == ["λ = 10", "λ = 10", "dplc/codec"]
        assert found[2].run is None and found[2].point("mmd") is None
        assert draw("curves", *words, "--metrics", "mse,psnr,pv,mmd").std() > 10

    def test_rates_are_of_the_weights_and_pictures_of_the_metrics(
        self, codecs: list[Path], tmp_path: Path, refused_figure: Callable[..., str]
    ) -> None:
        """Rates that were not measured are never stood in for by nominal ones."""
        two, four = (Path(shutil.copytree(path, tmp_path / path.name)) for path in codecs[:2])
        rates = two / "evaluations/files/rates.json"
        content = json.loads(rates.read_text())
        for key, what in (("weights", "weights"), ("data", "data")):
            changed = {**content, "protocol": {**content["protocol"], key: "0" * 32}}
            rates.write_text(json.dumps(changed))
            said = refused_figure("curves", two)
            assert f"do not belong to what was measured: their {what} is 0000" in said
        del content["metrics"]["joint_bpp"]
        rates.write_text(json.dumps(content))
        assert "has no joint containers" in refused_figure("curves", two)
        rates.unlink()
        said = refused_figure("curves", two, "--metrics", "mse")
        assert f"run {two} has no measured rates: `gencomp files {two}` writes" in said
        shutil.rmtree(four / "evaluations/files")
        said = refused_figure("curves", two, four, "--files", "mine")
        assert "2 runs have no measured rates" in said
        assert f"`gencomp files {two} {four} --name mine` writes their files" in said
        file = shutil.copy(two / "evaluations/metrics/metrics.json", tmp_path / "m.json")
        assert "lies outside its run, and no rates.json" in refused_figure("curves", file)

    def test_a_run_without_an_evaluation_speaks_by_its_last_one(
        self, codecs: list[Path], tmp_path: Path
    ) -> None:
        codec_run = Path(shutil.copytree(codecs[0], tmp_path / "codec"))
        shutil.rmtree(codec_run / "evaluations" / "metrics")
        (one,) = read([str(codec_run)], "metrics")
        result = open_run(codec_run).result()
        mse, psnr = one.point("mse"), one.point("psnr")
        assert result is not None and mse is not None and psnr is not None
        assert (mse.value, psnr.value) == (result["mse"], result["psnr"])
        for point in (mse, psnr):
            assert point.interval is not None
            assert point.interval[0] < point.value < point.interval[1]
        assert one.point("pv") is None

    def test_classical_codecs_are_measured_on_the_same_images(
        self, codecs: list[Path], draw: Callable[..., np.ndarray]
    ) -> None:
        words = ["--metrics", "mse,pv", "--classical", "jpeg,JPEG 2000"]
        assert draw("curves", codecs[0], *words).std() > 10
        (one,) = read([str(codecs[0])], "metrics")
        run = open_run(codecs[0])
        images = torch.cat([batch.images_BCHW for batch in one.images().batches(run.recipe())])
        assert len(images) == 20
        (codec,) = classical.parse("JPEG")
        beside = one.point("mse")
        assert beside is not None
        rungs = classical.measure([codec], images, 100.0, ["mse", "ms_ssim"])
        assert len(rungs) == len(codec.ladder)
        files = [codec.encode(image, codec.ladder[3]) for image in pictures.as_tiles(images)]
        point = rungs[3].point("mse", beside)
        # They are counted as joint containers are: in one archive of all images.
        assert 64**2 * 20 * point.bpp / 8 <= len(archive(files)) < sum(map(len, files))
        assert rungs[3].file_bpp == 8 * sum(map(len, files)) / 64**2 / 20
        assert rungs[-1].point("psnr", beside).value > point.value
        assert 0 < rungs[3].point("ms_ssim", beside).value < 1
        curves.require_one_protocol(curves.Panel("mse", [beside, point]))
        # Not further than a little beyond the rates of the others.
        assert len(classical.measure([codec], images, 0.005, ["mse"])) == 1

    def test_the_mmd_is_measured_on_the_evaluated_images(self, codecs: list[Path]) -> None:
        (one,) = read([str(codecs[0])], "metrics")
        point = one.point("mmd")
        assert point is not None
        assert point.protocol["images"] == "20 of 47 images, evenly spaced"


class TestRefusals:
    def test_different_protocols(
        self, codecs: list[Path], refused_figure: Callable[..., str], tmp_path: Path
    ) -> None:
        other = shutil.copytree(codecs[1], tmp_path / "other")
        shutil.rmtree(other / "evaluations/metrics")
        words = ["--metrics", "mse,pv", "--images", "20", "--draws", "2"]
        assert main(["evaluate", str(other), *words]) == 0
        said = refused_figure("curves", codecs[0], other, "--metrics", "pv")
        assert "draws of each image is 3 of the first and 2 of the second" in said
        # The last evaluation of the training took other images.
        shutil.rmtree(other / "evaluations/metrics")
        said = refused_figure("curves", codecs[0], other, "--metrics", "mse")
        assert "images is 20 of 47 images, evenly spaced of the first and 12 of 47" in said

    def test_an_evaluation_that_is_not_complete(
        self, codecs: list[Path], refused_figure: Callable[..., str], tmp_path: Path
    ) -> None:
        content = json.loads((codecs[0] / "evaluations/metrics/metrics.json").read_text())
        file = tmp_path / "metrics.json"
        file.write_text(json.dumps({**content, "complete": False, "missing_blocks": [1, 2]}))
        assert "is not complete: 2 blocks are missing" in refused_figure("curves", file)
        for text in ("", "[]", "{}", '{"complete": true, "metrics": {}, "protocol": {}}'):
            file.write_text(text)
            assert "is not a metrics.json of" in refused_figure("curves", file)

    def test_runs_of_different_generators(
        self,
        photos: Path,
        codecs: list[Path],
        generator_run: Path,
        refused_figure: Callable[..., str],
        tmp_path: Path,
    ) -> None:
        short: dict[str, Any] = {"training.steps": 1, "training.seed": 2}
        tiny.trained(tmp_path / "generator", tiny.generator(photos, short))
        tiny.trained(tmp_path / "codec", tiny.codec(photos, tmp_path / "generator", short))
        said = refused_figure("rates", codecs[0], tmp_path / "codec")
        assert "decode by different generators" in said
        said = refused_figure("rates", generator_run)
        assert "(dplc/wae) has no frozen generator to share" in said
        said = refused_figure("curves", generator_run, "--metrics", "mse")
        assert "(dplc/wae) has no codec, so it has no rate" in said

    def test_an_unfinished_run(
        self, photos: Path, generator_run: Path, refused_figure: Callable[..., str], tmp_path: Path
    ) -> None:
        path = tmp_path / "unfinished"
        tiny.trained(path, tiny.codec(photos, generator_run), tiny.stop_after(4))
        for kind in ("rates", "interpolation", "latent", "curves"):
            assert f"run {path} is not finished" in refused_figure(kind, path)

    def test_other_data(
        self,
        codecs: list[Path],
        generator_run: Path,
        refused_figure: Callable[..., str],
        tmp_path: Path,
    ) -> None:
        build("photos", tmp_path / "fewer", options={"size": "64"}, limit=24)
        path = tmp_path / "codec"
        changes = {"training.steps": 1}
        tiny.trained(path, tiny.codec(tmp_path / "fewer", generator_run, changes))
        assert "are of different data" in refused_figure("rates", codecs[0], path)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--images", "48"], "split 'test' has 47 images, fewer than the 48 asked for"),
            (["--images", "0"], "--images is 0, but at least one image must be shown"),
            (["--rows", "47"], "image 47 is not in split 'test', which has images 0 to 46"),
            (["--draws", "0"], "--draws is 0, but it must be at least 1"),
            (["--scale", "0"], "--scale is 0, but it must be at least 1"),
            (["--split", "validation"], "validation"),
            (["--out", "figure.gif"], "--out figure.gif must end in .png or .pdf"),
            (["--out", "missing/figure.png"], "the directory missing does not exist"),
        ],
    )
    def test_rates(
        self, codecs: list[Path], refused_figure: Callable[..., str], words: list[str], said: str
    ) -> None:
        assert said in refused_figure("rates", codecs[0], *words)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--metrics", "speed"], "--metrics 'speed' is not one of mse, psnr"),
            (["--metrics", ","], "--metrics is empty"),
            (["--classical", "bpg"], "--classical 'bpg' is not one of jpeg, webp, jpeg2000"),
            (
                ["--metrics", "pv", "--classical", "jpeg"],
                "--classical needs one of mse, psnr",
            ),
            (["--metrics", "rfid"], "no result has the metric rfid; measure it with"),
        ],
    )
    def test_curves(
        self, codecs: list[Path], refused_figure: Callable[..., str], words: list[str], said: str
    ) -> None:
        assert said in refused_figure("curves", codecs[0], *words)

    def test_no_run_and_a_file_in_the_way(
        self, codecs: list[Path], refused_figure: Callable[..., str], tmp_path: Path
    ) -> None:
        for kind in ("rates", "latent", "curves"):
            assert (
                "needs one run or more" in (said := refused_figure(kind))
                or "need one result" in said
            )
        assert "is not a run directory" in refused_figure("rates", tmp_path)
        there = tmp_path / "there.png"
        there.write_text("mine")
        said = refused_figure("rates", codecs[0], "--out", there)
        assert "exists; add --overwrite" in said
        assert there.read_text() == "mine"
        assert "MMD takes 2 to 2048 images" in refused_figure("latent", codecs[0], "--images", "1")
