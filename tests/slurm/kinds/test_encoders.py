"""`gencomp slurm variational`: the same curve whatever stops it, on the axes of curve.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.evaluations.encoders import plan
from cluster.runs import Run
from gencomp.cli import main
from slurm.kinds.encoders import EncoderJobs, TrainEncoders
from tests.slurm.conftest import started
from tests.waiting import wait_for

SMALL = ["--images", "3", "--epochs", "1", "--batch-size", "8", "--samples", "2"]


def words(run: Run, *more: str) -> list[str]:
    return ["slurm", "variational", str(run.path), *SMALL, "--executor", "debug", *more]


def test_from_submission_to_result(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    betas = ["--betas", "0.001", "0.1"]
    assert main(words(run, *betas)) == 0
    directory = run.path / "evaluations" / "variational"
    assert "1 of 1 blocks to measure, 1 jobs inside this process" in capsys.readouterr().out
    content = json.loads((directory / "variational.json").read_text())
    assert [point["beta"] for point in content["points"]] == [0.001, 0.1]
    assert content["protocol"]["settings"]["split"] == "test"
    table = pq.read_table(directory / "variational.parquet")
    rate_IP, distortion_IP = (
        table[name].to_numpy().reshape(3, 2) for name in ("rate", "distortion")
    )
    for p, point in enumerate(content["points"]):
        assert point["rate"] == pytest.approx(rate_IP[:, p].mean())
        assert point["mse"] == pytest.approx(distortion_IP[:, p].mean() / (3 * 64 * 64))
        total_I = rate_IP[:, p] + point["beta"] * distortion_IP[:, p]
        assert point["lagrangian"] == pytest.approx(total_I.mean())
        low, high = point["lagrangian_interval"]
        assert low <= point["lagrangian"] <= high
    assert (rate_IP >= 0).all()

    assert main(["slurm", "status", str(directory)]) == 0
    assert "baseline-0" in (out := capsys.readouterr().out)
    assert "2/2" in out
    assert main(["slurm", "collect", str(directory)]) == 0
    assert "3 images, complete" in capsys.readouterr().out
    assert main(words(run, *betas)) == 0
    assert "all 1 blocks are finished" in capsys.readouterr().out
    assert main(words(run, "--betas", "0.1")) == 2
    assert "betas was [0.001, 0.1], would be [0.1]" in capsys.readouterr().err


def test_a_killed_job_goes_on_to_the_same_bits(run: Run) -> None:
    many = ["--betas", *map(str, np.geomspace(1e-3, 0.1, 6))]
    assert main(words(run, *many, "--name", "whole")) == 0
    assert main(words(run, *many, "--name", "killed", "--dry-run")) == 0
    whole = plan.Evaluation.open(run.path / "evaluations" / "whole")
    killed = EncoderJobs(plan.Evaluation.find(run, "killed", whole.plan)).enter().evaluation
    job = TrainEncoders("baseline-0", str(killed.path))
    process = started(job)
    assert wait_for(killed.chains.exists), "the job does not start"
    process.kill()
    process.wait()
    assert killed.missing() == [0], "the job was over before it was killed"
    job()
    for name in ("variational.json", "variational.parquet"):
        assert (whole.path / name).read_bytes() == (killed.path / name).read_bytes()
    assert not list(killed.chains.parent.iterdir())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--betas", "-1"], "--betas is -1.0, but it should be greater than 0"),
        (["--training-images", "100"], "split 'train' has"),
        (["--distortion", "gaussian_likelihood"], "needs a decoder that states the variance"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run, *more)) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert not (Path(run.path) / "evaluations").exists()
