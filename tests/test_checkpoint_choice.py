"""`--checkpoint best|last|STEP`, through the command line, wherever a run is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.evaluations.metrics import plan as metrics
from cluster.runs import Run, open_run
from gencomp.cli import main
from gencomp.system import Picture
from tests import tiny

ON_THE_WAY = {
    "training.keep_checkpoints": 1,
    "training.keep_every": 4,
    "training.keep_best": 1,
    "training.keep_best_metric": "mse",
    "evaluation.every": 4,
}
SIZES = ["--images", "6", "--block", "3", "--batch-size", "3"]
BEST, LAST = 8, 12


@pytest.fixture(scope="module")
def kept(photos: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A codec with the checkpoints 4, 8 and 12, of which 8 is the best by its log."""
    path = tmp_path_factory.mktemp("kept") / "codec"
    run, _ = tiny.trained(path, tiny.codec(photos, generator_run, ON_THE_WAY))
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for row in rows:
        if "test/mse" in row and row["step"] == BEST:
            row["test/mse"] = 1e-6
    run.metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run


@pytest.fixture
def run(kept: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(kept.path, tmp_path / "codec")))


def measured(run: Run, name: str, *words: str) -> dict[str, Any]:
    assert main(["evaluate", str(run.path), *SIZES, "--name", name, *words]) == 0
    file = run.path / "evaluations" / name / "metrics.json"
    return json.loads(file.read_text())  # type: ignore[no-any-return]


def test_evaluations(run: Run, refused: Callable[..., str]) -> None:
    last = measured(run, "last")
    best = measured(run, "best", "--checkpoint", "best")
    eighth = measured(run, "eighth", "--checkpoint", str(BEST))
    twelfth = measured(run, "twelfth", "--checkpoint", str(LAST))
    # The protocol names the choice and the weights; the last checkpoint goes without saying.
    assert "checkpoint" not in last["protocol"]
    assert best["protocol"]["checkpoint"] == "best" and eighth["protocol"]["checkpoint"] == BEST
    hashes = {
        step: open_run(run.path, step).final_checkpoint().networks_hash() for step in (BEST, LAST)
    }
    assert last["protocol"]["weights"] == twelfth["protocol"]["weights"] == hashes[LAST]
    assert best["protocol"]["weights"] == eighth["protocol"]["weights"] == hashes[BEST]
    assert last["metrics"] == twelfth["metrics"] and best["metrics"] == eighth["metrics"]
    assert best["metrics"]["mse"] != last["metrics"]["mse"]
    assert len({one["protocol"]["hash"] for one in (last, best, eighth, twelfth)}) == 4

    # The same commands find them again; another choice under a name is another evaluation.
    assert measured(run, "best", "--checkpoint", "best") == best
    said = refused("evaluate", run.path, *SIZES, "--name", "twelfth")
    assert "holds another evaluation: checkpoint was 12, would be 'last' (choose" in said
    said = refused("evaluate", run.path, *SIZES, "--name", "last", "--checkpoint", LAST)
    assert "holds another evaluation: checkpoint was 'last', would be 12 (choose" in said


def test_plans_of_the_last_checkpoint_are_what_they_were(run: Run) -> None:
    """A plan without the field has the hash that it had, and is written as it was."""
    measured(run, "metrics")
    file = run.path / "evaluations" / "metrics" / "protocol.json"
    written = json.loads(file.read_text())
    assert "checkpoint" not in written
    plan = metrics.Evaluation.open(file.parent).plan
    assert plan.checkpoint == "last" and "checkpoint" not in plan.identity()
    other = plan.model_copy(update={"checkpoint": LAST})
    assert json.loads(other.model_dump_json()) == {**written, "checkpoint": LAST}


def test_jobs_open_the_checkpoint_of_their_plan(run: Run) -> None:
    here = measured(run, "here", "--checkpoint", "best")
    words = [*SIZES, "--executor", "debug", "--name", "jobs", "--checkpoint", "best"]
    assert main(["slurm", "evaluate", str(run.path), *words]) == 0
    assert main(["slurm", "collect", str(run.path / "evaluations" / "jobs")]) == 0
    content = json.loads((run.path / "evaluations" / "jobs" / "metrics.json").read_text())
    assert content == here


def test_measured_files_are_those_of_the_checkpoint(run: Run) -> None:
    for name, choice in (("last", "last"), ("best", "best"), ("twelfth", str(LAST))):
        words = ["--images", "2", "--name", name, "--checkpoint", choice]
        assert main(["files", str(run.path), *words]) == 0
    last, best, twelfth = (
        json.loads((run.path / "evaluations" / name / "rates.json").read_text())
        for name in ("last", "best", "twelfth")
    )
    assert "checkpoint" not in last["protocol"] and best["protocol"]["checkpoint"] == "best"
    assert last["metrics"]["mse"] == twelfth["metrics"]["mse"] != best["metrics"]["mse"]
    # The tables of the entropy coder are counted after the last step; 8 bits are salt.
    nominal = best["metrics"]["nominal_bpp"]["value"]
    assert best["metrics"]["bpp"]["value"] == nominal + 8 / 64**2


def test_curves(run: Run, photos: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    """Pilot, measurement and encoders of a generator work on the checkpoint of the plan."""
    generator, _ = tiny.trained(tmp_path / "generator", tiny.generator(photos, ON_THE_WAY))
    path, ais = generator.path, ["slurm", "ais", str(generator.path), "--executor", "debug"]
    small = ["--images", "1", "--chains", "4", "--temperatures", "8", "--points", "3"]
    small += ["--pilot-images", "1", "--pilot-temperatures", "10", "--bdmc-images", "0"]
    small += ["--leapfrog", "2", "--beta-max", "0.1"]
    assert main([*ais, *small, "--checkpoint", "8", "--name", "eighth"]) == 0
    curve = json.loads((path / "evaluations" / "eighth" / "curve.json").read_text())
    weights = open_run(path, 8).final_checkpoint().networks_hash()
    assert (curve["protocol"]["checkpoint"], curve["protocol"]["decoder"]) == (8, weights)
    said = refused(*ais, *small, "--name", "eighth")
    assert "decoder was" in said and "checkpoint was 8, would be 'last'" in said

    encoders = ["slurm", "variational", str(path), "--executor", "debug", "--images", "2"]
    encoders += ["--epochs", "1", "--samples", "2", "--betas", "0.1", "--checkpoint", "8"]
    assert main(encoders) == 0
    result = json.loads((path / "evaluations" / "variational" / "variational.json").read_text())
    assert (result["protocol"]["checkpoint"], result["protocol"]["decoder"]) == (8, weights)

    model = ["--model", "m:f", "--shards", photos, "--output", tmp_path / "own"]
    said = refused("slurm", "ais", *model, "--checkpoint", "best")
    assert "--checkpoint belongs to a RUN" in said


@pytest.mark.parametrize("ema_decay", [None, 0.7])
def test_files(
    ema_decay: float | None,
    run: Run,
    photos: Path,
    generator_run: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    if ema_decay is not None:
        overrides = {**ON_THE_WAY, "training.ema_decay": ema_decay}
        run, _ = tiny.trained(tmp_path / "ema", tiny.codec(photos, generator_run, overrides))
    rng = np.random.default_rng(0)
    image = tmp_path / "image.png"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
    step = str(BEST)
    for name, words in (("last", []), ("chosen", ["--checkpoint", step])):
        stream, out = tmp_path / f"{name}.gcp", tmp_path / f"{name}.png"
        assert main(["compress", str(run.path), str(image), str(stream), *words]) == 0
        assert main(["decompress", str(run.path), str(stream), str(out), *words]) == 0
        codec = open_run(run.path, BEST if words else "last").system().codec()
        assert codec is not None
        expected = codec.decompress(stream.read_bytes())
        assert np.array_equal(np.asarray(Image.open(out)), expected)
    said = refused("decompress", run.path, tmp_path / "chosen.gcp", tmp_path / "wrong.png")
    assert "chosen.gcp" in said and not (tmp_path / "wrong.png").exists()
    said = refused("compress", run.path, image, tmp_path / "x.gcp", "--checkpoint", "7")
    assert "keeps no checkpoint of step 7; kept are 4, 8, 12" in said
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(image, folder)
    words = ["--checkpoint", step, "--processes", "1"]
    assert main(["compress", str(run.path), str(folder), str(tmp_path / "many"), *words]) == 0
    chosen = (tmp_path / "many" / "image.png.gcp").read_bytes()
    assert chosen == (tmp_path / "chosen.gcp").read_bytes()


def test_figures(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(command: str, *words: str) -> bytes:
        out = tmp_path / "figure.png"
        assert main(["figure", command, *words, "--out", str(out), "--overwrite"]) == 0
        return out.read_bytes()

    for command in ("rates", "interpolation", "latent"):
        last, best, eighth = (
            drawn(command, str(run.path), *choice)
            for choice in ([], ["--checkpoint", "best"], ["--checkpoint", str(BEST)])
        )
        assert last == drawn(command, str(run.path), "--checkpoint", "last")
        assert last != best, command
        if command == "latent":  # a figure says how its checkpoint was chosen
            assert best != eighth

    # A point is drawn from the evaluation, and what is measured beside it is of its checkpoint.
    capsys.readouterr()
    files = ["files", str(run.path), "--images", "2"]
    measured(run, "metrics", "--checkpoint", "best")
    assert main([*files, "--checkpoint", "best"]) == 0
    curves = drawn("curves", str(run.path), "--metrics", "mse,mmd")
    shutil.rmtree(run.path / "evaluations" / "files")
    assert main(files) == 0
    words = [
        "figure",
        "curves",
        str(run.path),
        "--metrics",
        "mse",
        "--out",
        str(tmp_path / "f.png"),
    ]
    assert main(words) == 2
    assert "do not belong to what was measured: their weights" in capsys.readouterr().err
    shutil.rmtree(run.path / "evaluations" / "metrics")
    measured(run, "metrics")
    assert curves != drawn("curves", str(run.path), "--metrics", "mse,mmd")


@pytest.mark.parametrize(
    "command",
    [
        ["compress", "RUN", "image.png", "out.gcp"],
        ["decompress", "RUN", "in.gcp", "out.png"],
        ["evaluate", "RUN"],
        ["files", "RUN"],
        ["slurm", "evaluate", "RUN", "--dry-run"],
        ["slurm", "files", "RUN", "--dry-run"],
        ["slurm", "ais", "RUN", "--dry-run"],
        ["slurm", "variational", "RUN", "--dry-run"],
        ["figure", "rates", "RUN", "--out", "out.png"],
        ["figure", "interpolation", "RUN", "--out", "out.png"],
        ["figure", "latent", "RUN", "--out", "out.png"],
    ],
)
def test_what_is_not_kept_is_refused(
    command: list[str],
    run: Run,
    generator_run: Path,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("image.png")
    codec = run.system().codec()
    assert codec is not None
    Path("in.gcp").write_bytes(codec.compress(Picture(np.zeros((64, 64, 3), np.uint8))))
    before = tiny.tree(run.path)

    def said(path: Path, choice: str) -> str:
        words = [str(path) if word == "RUN" else word for word in command]
        return refused(*words, "--checkpoint", choice)

    assert "keeps no checkpoint of step 6; kept are 4, 8, 12" in said(run.path, "6")
    assert "--checkpoint 'newest' must be last, best or the step" in said(run.path, "newest")
    assert "keeps no best checkpoints: set training.keep_best" in said(generator_run, "best")
    assert tiny.tree(run.path) == before
