"""`gencomp report`: a page from a generator, its curve and a sweep over its codecs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import shards
from cluster.evaluations.curve.pilot import open_tuner
from cluster.evaluations.curve.plan import Evaluation, make
from cluster.evaluations.curve.results import collect
from cluster.evaluations.curve.settings import settings
from cluster.runs import open_run
from gencomp.cli import main
from gencomp.report.markup import number
from gencomp.system import Picture
from shards.building.build import build
from sweeps import plan, sweep_file
from sweeps.results import read_results, table, write_table
from tests import tiny
from tests.curves import finish, measure
from tests.html_pages import assert_self_contained, pictures_of


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in their usual places: a tiny generator with its curve, and a sweep of two codecs."""
    root = tmp_path_factory.mktemp("report")
    build("photos", root / "photos", limit=16)
    steps = {"training.steps": 3, "evaluation.every": 2}
    run, _ = tiny.trained(root / "runs" / "generator", tiny.generator(root / "photos", steps))
    base = tiny.write(tiny.codec(root / "photos", run.path, steps), root / "codec.yaml")
    file = root / "rates.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "base": str(base),
                "space": {
                    "loss.mmd_weight": {"grid": [0]},
                    "networks.code_channels": {"grid": [2, 4]},
                },
                "group_by": "networks.code_channels",
            }
        )
    )
    loaded, directory = sweep_file.load(file, {}), root / "runs" / "rates"
    planned = plan.make(loaded, directory)
    plan.write(loaded, planned, directory)
    for one in planned:
        tiny.trained(one.path, one.recipe.model_dump(mode="json"))
    write_table(table(planned, loaded.objective), directory)
    chosen = settings(
        split="test", images=3, block=2, chains=4, temperatures=12, points=5, beta_max=0.1,
        leapfrog=2, seed=7, tuning_seed=6, pilot_images=2, pilot_temperatures=20, threads=1,
        device="cpu",
    )  # fmt: skip
    evaluation = Evaluation.find(run, "ais", make(run, chosen)).enter()
    threads = torch.get_num_threads()
    finish(open_tuner(evaluation))
    measure(evaluation, (0, 1))
    torch.set_num_threads(threads)
    collect(evaluation)
    return root


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


class TestCommand:
    def test_the_usual_places(self, at_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", "--images", "2"]) == 0
        assert "wrote runs/report.html" in capsys.readouterr().out
        html = (at_work / "runs" / "report.html").read_text()
        page = assert_self_contained(html)
        assert "dplc on photos" in page.text
        assert "left out" not in page.text
        result = read_results(at_work / "runs" / "rates")
        split = shards.open_set(at_work / "photos").split("test")
        originals = [Picture(split.image(0)), Picture(split.image(len(split) // 2))]
        for row in result.best():
            run = result.run(row)
            codec = run.system().codec()
            assert codec is not None
            # The rates beside pictures are those of files of just these pictures.
            bits = sum(codec.code_bits(codec.compress(one)) for one in originals)
            joint = 8 * len(codec.compress_jointly(originals))
            words = f"{bits / 2 / 64**2:.3g} bpp of code, {joint / 2 / 64**2:.3g} bpp as one joint"
            assert words in page.text
            # The operating points are those of a measurement that stays with the trial.
            rates = json.loads((run.path / "evaluations/report/rates.json").read_text())
            assert rates["images"] == len(split)
            for name in ("joint_bpp", "joint_file_bpp", "nominal_bpp"):
                assert number(rates["metrics"][name]["value"], 3) in page.text
        assert f"files of {len(split)} held-out images" in page.text
        for row in result.rows:
            assert row["trial"] in page.text
            assert f"{row['psnr']:.2f}" in page.text
        generator = open_run(at_work / "runs" / "generator")
        assert generator.final_checkpoint().networks_hash() in page.text
        assert shards.open_set(at_work / "photos").index_hash in page.text

    def test_pictures_are_what_files_decode_to(self, at_work: Path) -> None:
        assert main(["report", "--images", "2", "--out", "pictures.html"]) == 0
        shown = pictures_of((at_work / "pictures.html").read_text())
        split = shards.open_set(at_work / "photos").split("test")
        originals = [split.image(0), split.image(len(split) // 2)]
        assert all(np.array_equal(a, b) for a, b in zip(shown[:2], originals, strict=True))
        result = read_results(at_work / "runs" / "rates")
        for place, row in enumerate(result.best()):
            codec = result.run(row).system().codec()
            assert codec is not None
            for i, original in enumerate(originals):
                again = codec.decompress(codec.compress(Picture(original)))
                assert np.array_equal(shown[4 + 2 * place + i], again)
        assert len(shown) == 2 * (1 + 1 + 2 + 1)

    def test_codecs_of_another_checkpoint_have_rates_of_their_own(
        self, at_work: Path, tmp_path: Path
    ) -> None:
        words = ["--sweep", "runs/rates", "--checkpoint", "3", "--images", "1"]
        assert main(["report", *words, "--out", str(tmp_path / "page.html")]) == 0
        result = read_results(at_work / "runs" / "rates")
        for row in result.best():
            rates = result.run(row).path / "evaluations/report-3/rates.json"
            assert json.loads(rates.read_text())["protocol"]["checkpoint"] == 3

    def test_what_is_not_there_is_left_out(self, at_work: Path, tmp_path: Path) -> None:
        lonely = tmp_path / "elsewhere"
        lonely.mkdir()
        out = lonely / "page.html"
        for option, path, left_out in (
            ("--generator", "runs/generator", "codecs and trials are left out"),
            ("--sweep", "runs/rates", "its losses, reconstructions and samples are left out"),
            ("--curve", "runs/generator/evaluations/ais", "codecs and trials are left out"),
        ):
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(lonely)
                words = ["report", option, str(at_work / path), "--out", str(out), "--images", "1"]
                assert main(words) == 0
            assert left_out in assert_self_contained(out.read_text()).text

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--generator", "nowhere"], "nowhere is not a run directory"),
            (["--sweep", "runs/generator"], "has no results of a sweep"),
            (["--curve", "runs"], "is not an evaluation directory"),
            (["--images", "0"], "at least one image"),
            (["--images", "1000"], "fewer than the 1000 asked for"),
            (["--out", "runs"], "cannot be written"),
            (["--checkpoint", "7"], "keeps no checkpoint of step 7"),
        ],
    )
    def test_refusals(
        self, at_work: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = sorted(at_work.rglob("*"))
        assert main(["report", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert sorted(at_work.rglob("*")) == before

    def test_parts_of_other_generators_are_refused(
        self, at_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = tiny.generator(at_work / "photos", {"training.steps": 1, "training.seed": 5})
        run, _ = tiny.trained(tmp_path / "other", raw)
        words = [
            "report",
            "--generator",
            str(run.path),
            "--images",
            "1",
            "--out",
            str(tmp_path / "a"),
        ]
        assert main([*words, "--sweep", "runs/rates"]) == 2
        assert "about one generator" in capsys.readouterr().err
        # What merely lies in the usual place is left out.
        assert main(words) == 0
        assert "codecs and trials are left out" in (tmp_path / "a").read_text()

    def test_a_curve_without_all_blocks_says_so(self, at_work: Path, tmp_path: Path) -> None:
        path = at_work / "runs" / "generator" / "evaluations" / "ais" / "curve.json"
        before = path.read_text()
        partly = json.loads(before) | {
            "complete": False,
            "missing_blocks": [2],
            "images_planned": 5,
        }
        try:
            path.write_text(json.dumps(partly))
            assert main(["report", "--images", "1", "--out", str(tmp_path / "a.html")]) == 0
        finally:
            path.write_text(before)
        assert "3 of 5 images are measured" in (tmp_path / "a.html").read_text()
