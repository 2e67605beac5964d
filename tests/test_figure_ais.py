"""`gencomp figure ais`, `convergence` and `image-curves`: real evaluations of linear decoders, and
refusals."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.results import curves
from gencomp.cli import main
from gencomp.errors import InputError
from gencomp.figures.rate_distortion import cut
from sweeps.operating_points import read

MODELS = """
from torch import nn

class Signed(nn.Module):
    latent_dim = 2
    value_range = (-1, 1)

    def __init__(self):
        super().__init__()
        self.decode = nn.Sequential(nn.Linear(self.latent_dim, 3 * 64 * 64))

class Wide(Signed):
    latent_dim = 4

class Unit(Signed):
    value_range = (0, 1)
"""
SETTINGS = (
    "--images 3 --block 3 --points 6 --chains 4 --leapfrog 2 --beta-max 0.1 --pilot-images 2"
    " --pilot-temperatures 20 --bdmc-images 3 --bdmc-betas 0.01 0.1 --executor debug"
).split()
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def measured(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected evaluations of three decoders on the same images; no test changes them."""
    folder = tmp_path_factory.mktemp("ais")
    (folder / "figure_ais_models.py").write_text(MODELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, model, temperatures in (
            ("signed", "Signed", 16),
            ("longer", "Signed", 48),
            ("wide", "Wide", 16),
            ("unit", "Unit", 16),
        ):
            model_words = ["--model", f"figure_ais_models:{model}", "--shards", str(photos)]
            words = [*model_words, "--output", name, "--temperatures", str(temperatures)]
            assert main(["slurm", "ais", *words, *SETTINGS]) == 0
            assert main(["slurm", "collect", name]) == 0
    return folder


@pytest.fixture(scope="module")
def codec(codec_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluated on the images of the curves, and on others."""
    path = Path(shutil.copytree(codec_run, tmp_path_factory.mktemp("codec") / "codec"))
    for name, images in (("metrics", 3), ("more", 4)):
        words = ["--metrics", "mse", "--images", str(images), "--name", name]
        assert main(["evaluate", str(path), *words]) == 0
    assert main(["files", str(path), "--images", "3"]) == 0
    return path


@pytest.fixture
def changed(measured: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an evaluation with other values in one of its JSON files."""

    def make(file: str, name: str = "signed", **values: Any) -> Path:
        path = Path(shutil.copytree(measured / name, tmp_path / f"changed-{name}"))
        content = json.loads((path / file).read_text())
        settings = values.pop("settings", {})
        content |= values
        if settings:
            content["settings"] |= settings
        (path / file).write_text(json.dumps(content))
        return path

    return make


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Run a figure command that must succeed; its picture."""

    def run(*words: str | Path) -> np.ndarray:
        out = tmp_path / "figure.png"
        assert main(["figure", *map(str, words), "--out", str(out), "--overwrite"]) == 0
        return np.asarray(Image.open(out).convert("RGB"))

    return run


class TestCurves:
    def test_they_are_what_was_collected(self, measured: Path) -> None:
        (one,) = curves.read([str(measured / "signed")])
        content = json.loads((measured / "signed" / "curve.json").read_text())
        curve = one.curve()
        for name in ("rate", "distortion"):
            expected = [point[name] for point in content["points"]]
            np.testing.assert_array_equal(getattr(curve, f"{name}_T"), expected)
        # -log Z of the ends of the band at equal rate lies where its interval ends.
        for point, low, high in zip(content["points"], curve.low_T, curve.high_T, strict=True):
            totals = [point["rate"] + point["beta"] * d for d in (low, high)]
            assert totals == pytest.approx(point["lagrangian_interval"])
        assert [gap.asked for gap in curve.gaps] == [0.01, 0.1]
        assert [gap.value for gap in curve.gaps] == [one["gap"] for one in content["bdmc"]]
        assert (one.units.values, one.units.pixels) == (12288, 4096)
        assert one.units.value_range == (-1.0, 1.0)

    def test_several_decoders_stand_in_one_figure(
        self, measured: Path, draw: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = draw("ais", measured / "signed", f"k = 4={measured / 'wide'}", "--cut-rate", "0")
        assert page.std() > 10
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        content = json.loads((measured / "wide" / "curve.json").read_text())
        gap = content["bdmc"][1]
        words = ["k", "=", "4", f"{gap['beta']:.4g}", f"{gap['gap']:.4f}"]
        assert f"{gap['worst_gap']:.4f}" in [word for line in lines for word in line]
        assert any(line[:5] == words for line in lines)

    def test_a_pdf(self, measured: Path, tmp_path: Path) -> None:
        out = tmp_path / "curve.pdf"
        assert main(["figure", "ais", str(measured / "signed"), "--out", str(out)]) == 0
        assert out.read_bytes().startswith(b"%PDF")

    def test_a_partial_curve_is_drawn_and_marked(
        self, measured: Path, tmp_path: Path, draw: Callable[..., np.ndarray]
    ) -> None:
        path = Path(shutil.copytree(measured / "signed", tmp_path / "partial"))
        backward = len(curves.read([str(path)])[0].plan.blocks) - 1
        (path / "parts" / f"block-{backward:05d}.parquet").unlink()
        assert main(["slurm", "collect", str(path)]) == 0
        (one,) = curves.read([str(path)])
        assert one.remark == " (PARTIAL: a certificate is missing)"
        assert [gap.asked for gap in one.gaps] == [0.01]
        draw("ais", path)
        one.means.update(images=2)
        assert one.curve().remark == " (PARTIAL: 2 of 3 images)"

    def test_other_distortions_have_no_scale(self, changed: Callable[..., Path]) -> None:
        path = changed("plan.json", settings={"distortion": "gaussian_likelihood"})
        (one,) = curves.read([str(path)])
        assert one.units.value_range is None
        assert one.units.label == "distortion: −log p(x|z), nats per image"

    def test_points_of_trained_encoders_go_to_their_decoder(
        self, measured: Path, tmp_path: Path, draw: Callable[..., np.ndarray]
    ) -> None:
        evaluations = [str(measured / name) for name in ("signed", "wide")]
        content = json.loads((measured / "wide" / "curve.json").read_text())
        points = [
            {name: p[name] for name in ("beta", "rate", "distortion")} for p in content["points"]
        ]
        file = tmp_path / "trained.json"
        file.write_text(json.dumps({"points": points, "protocol": content["protocol"]}))
        found = curves.variational(file, curves.read(evaluations))
        assert found.of == 1
        np.testing.assert_array_equal(found.rate_P, [p["rate"] for p in points])
        draw("ais", *evaluations, "--variational", file)


class TestCodecs:
    def test_their_points_are_in_the_units_of_the_curves(
        self, measured: Path, codec: Path, draw: Callable[..., np.ndarray]
    ) -> None:
        content = json.loads((codec / "evaluations/metrics/metrics.json").read_text())["metrics"]
        rates = json.loads((codec / "evaluations/files/rates.json").read_text())["metrics"]
        for name, factor in (("signed", 1.0), ("unit", 0.25)):
            (beside,) = curves.read([str(measured / name)])
            (point,) = curves.operating_points(read([f"λ = 10={codec}"], "metrics"), beside)
            assert point.series == "λ = 10"
            assert point.rate == pytest.approx(rates["joint_bpp"]["value"] * 4096 * math.log(2))
            assert point.distortion == pytest.approx(content["mse"]["value"] * 12288 * factor)
            assert point.interval is not None
            assert point.interval[0] < point.distortion < point.interval[1]
        draw("ais", measured / "signed", "--runs", codec)

    def test_other_images_are_refused(
        self, measured: Path, codec: Path, refused_figure: Refused
    ) -> None:
        said = refused_figure("ais", measured / "signed", "--runs", codec, "--evaluation", "more")
        assert "test split, 4 of 47 images and the curves on photos, test split, 3 images" in said
        assert "`gencomp evaluate RUN --split test --images 3`" in said

    def test_other_distortions_are_refused(
        self, changed: Callable[..., Path], codec: Path, refused_figure: Refused
    ) -> None:
        path = changed("plan.json", settings={"distortion": "gaussian_likelihood"})
        assert "--runs needs curves of squared errors" in refused_figure(
            "ais", path, "--runs", codec
        )


class TestOtherFigures:
    def test_convergence(self, measured: Path, draw: Callable[..., np.ndarray]) -> None:
        assert draw("convergence", measured / "signed", measured / "longer").std() > 10
        (one,) = curves.read([str(measured / "longer")])
        found = one.convergence()
        assert (found.label, found.temperatures) == ("longer, T = 48", 48)
        points = one.means["points"]
        np.testing.assert_allclose(found.ess_3T[1], [point["ess"] / 4 for point in points])
        np.testing.assert_allclose(found.acceptance_3T[1], [p["acceptance"] for p in points])
        assert (found.ess_3T[0] <= found.ess_3T[2]).all()
        assert found.expected_gap == one.means["protocol"]["expected_single_chain_gap"]

    def test_image_curves(self, measured: Path, draw: Callable[..., np.ndarray]) -> None:
        assert draw("image-curves", measured / "signed").std() > 5
        (one,) = curves.read([str(measured / "signed")])
        images, mean = one.images(), one.curve()
        np.testing.assert_allclose(images.rate_IT.mean(0), mean.rate_T)
        np.testing.assert_allclose(images.distortion_IT.mean(0), mean.distortion_T)
        assert len(cut(mean, None, 1e9).beta_T) == 1


class TestLabels:
    def test_a_run_with_several_evaluations_names_them(
        self, measured: Path, tmp_path: Path
    ) -> None:
        """The place of an evaluation is all that its label needs."""
        for run, name in (("vae", "ais"), ("vae", "long"), ("gan", "ais")):
            path = tmp_path / "runs" / run / "evaluations" / name
            shutil.copytree(measured / "signed", path)
            plan = json.loads((path / "plan.json").read_text())
            (path / "plan.json").write_text(json.dumps({**plan, "subject": {"kind": "run"}}))
        paths = [
            str(path.parent) for path in sorted(tmp_path.glob("runs/*/evaluations/*/plan.json"))
        ]
        assert [one.label for one in curves.read(paths)] == ["gan", "vae/ais", "vae/long"]
        words = [paths[0], f"a={paths[1]}", paths[2]]
        assert [one.label for one in curves.read(words)] == ["gan", "a", "vae"]

    def test_two_of_one_name_are_refused(self, measured: Path) -> None:
        words = [f"a={measured / name}" for name in ("signed", "wide")]
        with pytest.raises(InputError, match="2 evaluations are called a; tell them apart"):
            curves.read(words)


class TestRefusals:
    def test_no_evaluation_or_none_yet(
        self, measured: Path, refused_figure: Refused, tmp_path: Path
    ) -> None:
        assert "needs one evaluation or more" in refused_figure("ais")
        assert "is not an evaluation directory" in refused_figure("ais", tmp_path)
        assert "is not an evaluation directory" in refused_figure("image-curves", tmp_path / "none")
        path = Path(shutil.copytree(measured / "signed", tmp_path / "fresh"))
        (path / "curve.json").unlink()
        assert f"has no curve yet; run `gencomp slurm collect {path}`" in refused_figure(
            "ais", path
        )

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"data": "0" * 64}, "the data are"),
            ({"settings": {"split": "train"}}, "the split is test of the first and train"),
            ({"rows": [0, 1, 2]}, "the images are (0, 15, 31) of the first and (0, 1, 2)"),
            (
                {"settings": {"distortion": "gaussian_likelihood"}},
                "the distortion is squared_error",
            ),
            ({"values": 4096}, "the number of values is 12288 of the first and 4096"),
            ({"height": 32}, "the size of the images is (64, 64) of the first and (32, 64)"),
        ],
    )
    def test_curves_of_something_else(
        self,
        measured: Path,
        changed: Callable[..., Path],
        refused_figure: Refused,
        values: dict[str, Any],
        said: str,
    ) -> None:
        other = changed("plan.json", "wide", **values)
        err = refused_figure("ais", measured / "signed", other)
        assert "cannot stand in one figure" in err and said in err

    def test_another_scale(self, measured: Path, refused_figure: Refused) -> None:
        said = refused_figure("ais", measured / "signed", measured / "unit")
        assert "scale are (-1.0, 1.0) of the first and (0.0, 1.0) of the second" in said

    def test_convergence_of_two_decoders_or_without_a_certificate(
        self, measured: Path, changed: Callable[..., Path], refused_figure: Refused
    ) -> None:
        said = refused_figure("convergence", measured / "signed", measured / "wide")
        assert "the decoder is" in said
        without = changed("curve.json", bdmc=[])
        assert "has no BDMC gap to draw; `gencomp slurm ais` measures it" in refused_figure(
            "convergence", without
        )

    def test_files_that_are_no_variational_curve(
        self, measured: Path, refused_figure: Refused, tmp_path: Path
    ) -> None:
        signed, file = measured / "signed", tmp_path / "trained.json"
        assert "trained.json cannot be read" in refused_figure("ais", signed, "--variational", file)
        file.write_text("{")
        assert "trained.json is not JSON" in refused_figure("ais", signed, "--variational", file)
        file.write_text('{"points": []}')
        assert "is no file of a variational curve" in refused_figure(
            "ais", signed, "--variational", file
        )
        stranger = measured / "wide" / "curve.json"
        said = refused_figure("ais", signed, "--variational", stranger)
        assert "none of the evaluations of this figure is" in said

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--out", "figure.gif"], "--out figure.gif must end in .png or .pdf"),
            (["--cut-rate", "-1"], "--cut-rate is -1, but it must not be negative"),
            (["--cut-distortion", "nan"], "--cut-distortion is nan"),
        ],
    )
    def test_words(
        self, measured: Path, refused_figure: Refused, words: list[str], said: str
    ) -> None:
        assert said in refused_figure("ais", measured / "signed", *words)
