"""A model of one's own through the command line, against its closed form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import shards
from cluster.evaluations.curve.context import read_images as images_of
from cluster.evaluations.curve.plan import Evaluation
from cluster.evaluations.decoders import OfModel, read_images
from gencomp.cli import main
from gencomp.errors import InputError
from gencomp.rate_distortion import closed_form
from slurm.kinds.curve import CurveJobs
from tests import tiny
from tests.curves import measure
from tests.slurm.conftest import options

# A certificate at the end of a schedule that is long enough for a gap below 0.1 nats.
CERTIFIED = {
    "images": 3,
    "block": 2,
    "chains": 16,
    "temperatures": 300,
    "leapfrog": 5,
    "beta_max": 20,
    "points": 6,
    "pilot_temperatures": 60,
    "pilot_images": 2,
    "bdmc_images": 4,
    "bdmc_betas": "1 20",
    "certify_betas": 20,
}


def collected(directory: str = "curve") -> dict[str, Any]:
    return json.loads((Path(directory) / "curve.json").read_text())  # type: ignore[no-any-return]


def test_from_command_to_closed_form(own: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["slurm", "ais", *own, "--certify", *options(executor="debug", **CERTIFIED)]
    assert main(words) == 0
    assert "14 of 14 blocks to measure, a pilot and 6 jobs" in capsys.readouterr().out
    curve = collected()
    assert curve["complete"]
    assert curve["protocol"]["subject"] == "my_linear:Linear"
    assert curve["protocol"]["values"] == 192

    # Estimates of log Z have a standard deviation of 0.1 nats here (measured over eight seeds), so
    # that less than one seed in a million has one of the 18 beyond 0.6.
    evaluation = Evaluation.open("curve")
    x_IN = images_of(evaluation, evaluation.plan.rows).flatten(1) / 255
    state = torch.load("linear.pt")["state_dict"]
    table = pq.read_table("curve/curve.parquet")
    beta_T = torch.tensor([point["beta"] for point in curve["points"]])
    exact = closed_form.linear_gaussian(
        state["decode.0.weight"], state["decode.0.bias"], x_IN, beta_T
    )
    found_IT = table["log_z"].to_numpy().reshape(3, 6)
    np.testing.assert_allclose(found_IT, exact.log_z_IT.numpy(), atol=0.6)
    for p, point in enumerate(curve["points"]):
        assert point["log_z"] == pytest.approx(found_IT[:, p].mean())
        # The decoder works on [0, 1], and an MSE is of pixels on [−1, 1].
        assert point["mse"] == pytest.approx(4 * point["distortion"] / 192)
        assert point["log_z_integral"] == pytest.approx(point["log_z"], abs=0.1)

    # Both bounds are tight here: their difference has a standard deviation of 0.07 nats.
    low, high = curve["bdmc"]
    assert [low["asked"], high["asked"]] == [1, 20]
    assert low["beta"] == pytest.approx(1, rel=0.1)
    assert (high["beta"], high["temperature"]) == (20, 299)
    for bracket in (low, high):
        assert bracket["images"] == 4
        assert bracket["gap"] == pytest.approx(bracket["backward"] - bracket["forward"])
        assert abs(bracket["gap"]) < 0.5
        ends = bracket["gap_interval"]
        assert ends[0] <= bracket["gap"] <= ends[1]
    # log Z falls with beta.
    assert high["forward"] < low["forward"] < 0

    # Bounds for the measured images by jobs of their own: below the exact log Z, and close to it.
    # One that is wrong at all has a probability below 0.01.
    (certificate,) = curve["certificate"]
    for image, log_z in zip(certificate["by_image"], exact.log_z_IT[:, -1].tolist(), strict=True):
        assert 0 < log_z - image["log_z_at_least"] < 1
    assert certificate["flagged"] == certificate["silent"] == []

    # Again: nothing is missing; other weights are another curve.
    assert main(words) == 0
    assert "all 14 blocks are finished" in capsys.readouterr().out
    torch.save({"state_dict": {k: v * 2 for k, v in state.items()}}, "linear.pt")
    before = tiny.tree(Path("curve"))
    assert main(words) == 2
    assert "decoder was '" in (err := capsys.readouterr().err)
    assert "choose another --output" in err
    assert tiny.tree(Path("curve")) == before


def test_a_schedule_that_is_too_short_is_seen(own: list[str]) -> None:
    """Three steps to beta 100: tens of nats between the bounds (34 to 127 over ten seeds)."""
    short = {"images": 1, "temperatures": 4, "points": 3, "beta_max": 100, "block": 4}
    certificate = {"bdmc_images": 4, "bdmc_betas": "100"}
    assert main(["slurm", "ais", *own, *options(executor="debug", **short, **certificate)]) == 0
    (bracket,) = collected()["bdmc"]
    assert bracket["gap"] > 5
    assert bracket["gap_interval"][0] > 0


def test_jobs_find_the_module_from_where_it_was_given(
    own: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["slurm", "ais", *own, *options(executor="debug", images=1)]) == 0
    evaluation = Evaluation.open("curve")
    assert CurveJobs(evaluation).label == "curve"
    assert evaluation.plan.model_dump()["subject"] == {
        "kind": "model",
        "reference": "my_linear:Linear",
        "weights": str(tmp_path / "linear.pt"),
        "directory": str(tmp_path),
    }
    part = evaluation.part(0).read_bytes()
    evaluation.part(0).unlink()
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
    monkeypatch.delitem(sys.modules, "my_linear")
    measure(evaluation, (0,))
    assert evaluation.part(0).read_bytes() == part


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name a finished RUN, or a model of your own by --model, --shards and --output"),
        (["--model", "my_linear:Linear"], "name a finished RUN, or a model of your own"),
        (["RUN", "--weights", "w.pt"], "--weights belongs to a model of your own; leave RUN"),
    ],
)
def test_half_a_subject_is_refused(
    words: list[str], sentence: str, own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slurm", "ais", *words]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1


class Features(torch.nn.Module):
    """Means of columns."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW.mean(dim=2)


def test_features_are_known_by_their_file(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.jit.script(Features()).save(str(tmp_path / "features.pt"))
    words = ["--distortion", "features", "--features", "features.pt"]
    words = ["slurm", "ais", *own, *options(executor="debug", images=1), *words]
    assert main(words) == 0
    point = collected()["points"][-1]
    assert "mse" not in point
    assert point["distortion"] > 0
    assert main(["slurm", "collect", "curve"]) == 0
    assert "distortion" in capsys.readouterr().out

    # Another network is another curve; a network that changed behind the plan is refused by jobs.
    torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "features.pt"))
    assert main(words) == 2
    assert "features was '" in capsys.readouterr().err
    evaluation = Evaluation.open("curve")
    evaluation.part(0).unlink()
    with pytest.raises(InputError, match=r"--features .*features\.pt has the SHA-256"):
        measure(evaluation, (0,))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--distortion", "features"], "--distortion features and --features FILE need each other"),
        (["--features", "none.pt"], "--features none.pt cannot be read"),
        (
            ["--distortion", "gaussian_likelihood"],
            "--distortion gaussian_likelihood needs a decoder that states the variance",
        ),
    ],
)
def test_distortions_that_cannot_be(
    words: list[str], sentence: str, own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slurm", "ais", *own, *options(), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("curve").exists()


def test_images_are_those_of_the_set(own: list[str], small_photos: Path) -> None:
    split = shards.open_set(small_photos).split("test")
    model = OfModel(reference="my_linear:Linear", weights=None, directory=".")
    images_BCHW = read_images(model, split, [1, 0])
    assert images_BCHW.dtype == torch.uint8
    assert images_BCHW.shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(images_BCHW[1].permute(1, 2, 0).numpy(), split.read(0).image)
