"""Chains of sweeps: one command runs them in order, and trials start from the named trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.runs import Run
from gencomp import recipes
from gencomp.cli.sweep import sweep as command
from gencomp.errors import InputError
from sweeps import parents, plan, results, sweep_file
from sweeps.sweep_file import Sweep
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw
from tests.processes import Driver

POINTS = [0.0, 0.01]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Sweep files of a chain: encoders, decoders on one of them, and refinements."""
    blobs = vae_cases.blobs(tmp_path, side=28)
    folder = tmp_path / "files"
    folder.mkdir()
    for stage in ("end_to_end", "universal", "refinement"):
        tiny.write(raw(stage, blobs, Path("nowhere")), folder / f"recipe_{stage}.yaml")
    write(folder, "encoders", "end_to_end")
    write(folder, "decoders", "universal", {"loss.perception_weight": 0.01})
    write(folder, "layers", "refinement", {"loss.perception_weight": 0})
    return folder


def write(folder: Path, name: str, stage: str, point: dict[str, Any] | None = None) -> None:
    made: dict[str, Any] = {
        "base": str(folder / f"recipe_{stage}.yaml"),
        "space": {"loss.perception_weight": {"grid": POINTS}},
        "objective": {"minimise": "mse_unit"},
    }
    if point is not None:
        made["parents"] = {"encoder": {"sweep": str(folder / "encoders.yaml"), "point": point}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))


def encoder_of(sweep: Path, weight: float) -> str:
    found = results.read_results(sweep)
    row = next(row for row in found.rows if row["loss.perception_weight"] == weight)
    return str(found.run(row).path.resolve())


def run_sweep(file: Path, runs: Path) -> None:
    """Run a sweep in a process of its own, as Ray settles its token once for a process."""
    words = ["sweep", str(file), "--runs", str(runs), "--concurrent", "1"]
    driver = Driver([*words, "--evaluation.limit", "16"], runs.parent)
    try:
        assert driver.end() == 0, driver.words()
    finally:
        driver.close()


@pytest.mark.slow
def test_one_command_runs_the_chain(files: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_sweep(files / "decoders.yaml", runs)
    assert not (runs / "layers").exists()
    for name in ("encoders", "decoders"):
        found = results.read_results(runs / name)
        assert [row["status"] for row in found.rows] == ["finished"] * 2
        for row in found.rows:
            recipe = found.run(row).recipe()
            assert recipe.evaluation.limit == 16
            if name == "decoders":
                assert recipe.parents.encoder == encoder_of(runs / "encoders", 0.01)
    before = tiny.tree(runs / "encoders" / "trials")
    run_sweep(files / "layers.yaml", runs)
    # The encoders are there already, and stay as they are.
    assert tiny.tree(runs / "encoders" / "trials") == before
    layers = results.read_results(runs / "layers")
    for row in layers.rows:
        assert layers.run(row).recipe().parents.encoder == encoder_of(runs / "encoders", 0.0)
    assert (Run(runs / "layers" / "trials" / layers.rows[0]["trial"]).result()) is not None


class TestRefusals:
    def chained(self, files: Path, **parent: Any) -> Sweep:
        made = yaml.safe_load((files / "decoders.yaml").read_text())
        made["parents"]["encoder"] |= parent
        return Sweep.model_validate(made)

    def test_a_parent_that_has_not_run(self, files: Path, tmp_path: Path) -> None:
        one = self.chained(files)
        with pytest.raises(InputError, match=r"encoders, which has not run: run `gencomp sweep"):
            parents.resolved(one, tmp_path / "runs" / "decoders")

    def test_a_trial_that_is_not_there_or_not_finished(self, files: Path, tmp_path: Path) -> None:
        where = tmp_path / "runs" / "encoders"
        base = sweep_file.load(files / "encoders.yaml", {})
        plan.write(base, plan.make(base, where), where)
        for point, count in (({"loss.perception_weight": 0.5}, 0), ({}, 2)):
            one = self.chained(files, point=point)
            with pytest.raises(InputError, match=f"there are {count} such trials; its trials are"):
                parents.resolved(one, tmp_path / "runs" / "decoders")
        with pytest.raises(InputError, match=r"with loss.perception_weight=0.01, which has not"):
            parents.resolved(self.chained(files), tmp_path / "runs" / "decoders")

    def test_a_sweep_that_starts_from_itself(self, files: Path, tmp_path: Path) -> None:
        one = self.chained(files, sweep=str(files / "decoders.yaml"))
        with pytest.raises(InputError, match=r"which parents\.encoder names, starts from itself"):
            parents.before(one, tmp_path / "runs" / "decoders", {})

    def test_a_space_that_makes_no_recipes(self, files: Path, tmp_path: Path) -> None:
        """It is found before the first sweep of the chain starts."""
        made = yaml.safe_load((files / "decoders.yaml").read_text())
        made["space"] = {"loss.perception_weight": {"grid": [0.01, -1]}}
        (files / "wrong.yaml").write_text(yaml.safe_dump(made))
        with pytest.raises(InputError, match=r"perception_weight is -1"):
            command([str(files / "wrong.yaml"), "--runs", str(tmp_path / "runs")])
        assert not (tmp_path / "runs").exists()


def test_what_holds_in_the_whole_chain_is_written_as_words() -> None:
    """A Slurm job of a chain gets these words, since its file holds those of its own trials."""
    given = {"data.shards": "a b", "training.epochs": 2.5, "optimizer.decay_epochs": [1, 2]}
    kept = parents.shared(given | {"evaluation.limit": None})
    assert kept == {"data.shards": "a b", "training.epochs": 2.5, "evaluation.limit": None}
    assert recipes.split_overrides(recipes.override_words(given)) == ([], given)
