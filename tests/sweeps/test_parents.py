"""Chains of sweeps: one command runs them in order, and trials start from the named trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.runs import Run
from gencomp import recipes
from gencomp.cli import main
from gencomp.cli import sweep as sweep_command
from gencomp.cli.sweep import sweep as command
from gencomp.errors import InputError
from sweeps import parents, plan, results, sweep_file
from sweeps.sweep_file import Sweep
from sweeps.trial import Trial
from tests import tiny
from tests.gencomp import vae_cases
from tests.gencomp.systems.urdp.test_training import raw
from tests.processes import Driver

POINTS = [0.0, 0.01]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Sweep files of a chain: encoders, decoders on one of them, refinements, and critics."""
    blobs = vae_cases.blobs(tmp_path, side=28)
    folder = tmp_path / "files"
    folder.mkdir()
    for stage in ("end_to_end", "universal", "refinement", "critic"):
        tiny.write(raw(stage, blobs, Path("nowhere")), folder / f"recipe_{stage}.yaml")
    write(folder, "encoders", "end_to_end")
    write(folder, "decoders", "universal", {"loss.perception_weight": 0.01})
    write(folder, "layers", "refinement", {"loss.perception_weight": 0})
    encoder = {"sweep": str(folder / "encoders.yaml"), "point": {"loss.perception_weight": 0.01}}
    critics = {
        "base": str(folder / "recipe_critic.yaml"),
        "parents": {
            "decoder": {"sweep": str(folder / "decoders.yaml"), "every": True},
            "encoder": encoder,
        },
        "objective": {"minimise": "mse_unit", "against": ["fresh_critic_distance"]},
    }
    (folder / "critics.yaml").write_text(yaml.safe_dump(critics))
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


def encoder_run(runs: Path, weight: float) -> str:
    trials = plan.make(sweep_file.load(runs / "encoders" / "sweep.yaml", {}), runs / "encoders")
    (found,) = (one for one in trials if one.point["loss.perception_weight"] == weight)
    return str(found.path)


def encoder_of(sweep: Path, weight: float) -> str:
    found = results.read_results(sweep)
    row = next(row for row in found.rows if row["loss.perception_weight"] == weight)
    return str(found.run(row).path.resolve())


def run_sweep(runs: Path, *files: Path) -> None:
    """Run sweeps in a process of its own, as Ray settles its token once for a process."""
    words = ["sweep", *map(str, files), "--runs", str(runs), "--concurrent", "1"]
    driver = Driver([*words, "--evaluation.limit", "16"], runs.parent)
    try:
        assert driver.end() == 0, driver.words()
    finally:
        driver.close()


@pytest.mark.slow
def test_one_command_runs_the_chain(files: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_sweep(runs, files / "decoders.yaml")
    assert not (runs / "layers").exists()
    for name in ("encoders", "decoders"):
        found = results.read_results(runs / name)
        assert [row["status"] for row in found.rows] == ["finished"] * 2
        for row in found.rows:
            recipe = found.run(row).recipe()
            assert recipe.evaluation.limit == 16
            if name == "decoders":
                assert recipe.parents.encoder == encoder_of(runs / "encoders", 0.01)
    before = {name: tiny.tree(runs / name / "trials") for name in ("encoders", "decoders")}
    run_sweep(runs, *(files / f"{name}.yaml" for name in ("decoders", "layers", "critics")))
    # What the two start from, and the first of them, are done already, and stay as they are.
    assert before == {name: tiny.tree(runs / name / "trials") for name in before}
    layers = results.read_results(runs / "layers")
    for row in layers.rows:
        assert layers.run(row).recipe().parents.encoder == encoder_of(runs / "encoders", 0.0)
    assert (Run(runs / "layers" / "trials" / layers.rows[0]["trial"]).result()) is not None
    critics = results.read_results(runs / "critics")
    assert {row["status"] for row in critics.rows} == {"finished"}
    judged = {critics.run(row).recipe().parents.decoder for row in critics.rows}
    decoders = results.read_results(runs / "decoders")
    assert judged == {str(decoders.run(row).path.resolve()) for row in decoders.rows}


class TestEvery:
    """A parent that is each finished trial of another sweep."""

    @pytest.fixture
    def runs(self, files: Path, tmp_path: Path) -> Path:
        """Two encoders and two decoders, of which one decoder has not finished."""
        found = tmp_path / "runs"
        for name in ("encoders", "decoders"):
            for trial in self.planned(files, found / name)[: 2 if name == "encoders" else 1]:
                tiny.trained(trial.path, trial.recipe.model_dump(mode="json"))
        return found

    def planned(self, files: Path, directory: Path) -> list[Trial]:
        loaded = sweep_file.load(files / f"{directory.name}.yaml", {})
        sweep = parents.resolved(loaded, directory)
        trials = plan.make(sweep, directory)
        plan.write(sweep, trials, directory)
        return trials

    def test_there_is_a_trial_for_each(self, files: Path, runs: Path) -> None:
        decoders = self.planned(files, runs / "decoders")
        (first,) = self.planned(files, runs / "critics")
        assert first.point == {"parents.decoder": str(decoders[0].path)}
        assert first.recipe.parents.encoder == encoder_run(runs, 0.01)
        run, _ = tiny.trained(first.path, first.recipe.model_dump(mode="json"))
        result = run.result()
        assert result is not None and "fresh_critic_distance" in result
        # Another decoder has finished: the first critic is there already.
        tiny.trained(decoders[1].path, decoders[1].recipe.model_dump(mode="json"))
        both = self.planned(files, runs / "critics")
        assert both[0].id == first.id and len(both) == 2
        assert [trial.status() for trial in both] == ["finished", "pending"]
        written = sweep_file.load(runs / "critics" / "sweep.yaml", {})
        assert [one.id for one in plan.make(written, runs / "critics")] == [one.id for one in both]

    def test_a_point_chooses_among_them(self, files: Path, runs: Path) -> None:
        made = yaml.safe_load((files / "critics.yaml").read_text())
        made["parents"]["decoder"]["point"] = {"loss.perception_weight": 0.01}
        with pytest.raises(InputError, match=r"each finished trial of .* with .*=0.01, but there"):
            parents.resolved(Sweep.model_validate(made), runs / "critics")
        made["space"] = {"critic.penalty_weight": {"grid": [1, 10]}}
        made["parents"]["decoder"]["point"] = {"loss.perception_weight": 0}
        found = parents.resolved(Sweep.model_validate(made), runs / "critics")
        weights = [point["critic.penalty_weight"] for point in sweep_file.points(found)]
        assert weights == [1, 10]

    def test_populations_cannot_vary_it(self, files: Path) -> None:
        made = yaml.safe_load((files / "critics.yaml").read_text())
        made["population"] = {"every": 5}
        del made["objective"]
        with pytest.raises(ValueError, match=r"population cannot change parents\.decoder in a run"):
            Sweep.model_validate(made)


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
            parents.chain({tmp_path / "runs" / "decoders": one}, {})

    def test_a_space_that_makes_no_recipes(self, files: Path, tmp_path: Path) -> None:
        """It is found before the first sweep of the chain starts."""
        made = yaml.safe_load((files / "decoders.yaml").read_text())
        made["space"] = {"loss.perception_weight": {"grid": [0.01, -1]}}
        (files / "wrong.yaml").write_text(yaml.safe_dump(made))
        with pytest.raises(InputError, match=r"perception_weight is -1"):
            command([str(files / "wrong.yaml"), "--runs", str(tmp_path / "runs")])
        assert not (tmp_path / "runs").exists()


class TestSeveral:
    """Without Ray: which sweeps run, in which order, and what is refused."""

    @pytest.fixture
    def ran(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
        """The directories of the sweeps that were run, and the images of their evaluations."""
        found: list[tuple[str, int | None]] = []

        def note(sweep: Sweep, directory: Path, tracker: Any) -> tuple[int, dict[str, Any]]:
            found.append((directory.name, sweep.overrides.get("evaluation.limit")))
            return 0, {}

        monkeypatch.setattr(sweep_command, "_run", note)
        monkeypatch.setattr(parents, "resolved", lambda sweep, directory: sweep)
        return found

    def test_each_runs_once_after_what_it_starts_from(
        self, files: Path, tmp_path: Path, ran: list[tuple[str, int | None]]
    ) -> None:
        words = [str(files / "decoders.yaml"), str(files / "layers.yaml")]
        last = ["--runs", str(tmp_path / "runs"), "--evaluation.limit", "16"]
        assert main(["sweep", *words, *last]) == 0
        assert ran == [("encoders", 16), ("decoders", 16), ("layers", 16)]
        ran.clear()
        assert main(["sweep", *words, str(files / "encoders.yaml"), *last]) == 0
        assert [name for name, _ in ran] == ["encoders", "decoders", "layers"]

    def test_a_sweep_that_is_named_is_the_one_that_the_others_start_from(
        self, files: Path, tmp_path: Path, ran: list[tuple[str, int | None]]
    ) -> None:
        own = tmp_path / "own"
        own.mkdir()
        made = yaml.safe_load((files / "encoders.yaml").read_text())
        made["overrides"] = {"evaluation.limit": 8}
        (own / "encoders.yaml").write_text(yaml.safe_dump(made))
        words = [str(files / "decoders.yaml"), str(own / "encoders.yaml")]
        assert main(["sweep", *words, "--runs", str(tmp_path / "runs")]) == 0
        assert ran == [("encoders", 8), ("decoders", None)]

    def test_what_can_hold_for_one_alone_is_refused(
        self, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        two = [str(files / "decoders.yaml"), str(files / "layers.yaml")]
        for words, why in (
            ([*two, "--name", "x"], "--name names one sweep, but 2 files are given"),
            ([*two, "--loss.perception_weight", "1"], "--loss.perception_weight is a value of one"),
            ([two[0], two[0]], "two of the files would be the sweep"),
            ([], "missing FILE"),
        ):
            for first in (["sweep"], ["slurm", "sweep"]):
                assert main([*first, *words, "--runs", str(tmp_path / "runs")]) == 2, words
                said = capsys.readouterr().err
                assert why in said and said.count("\n") == 1, words
        assert not (tmp_path / "runs").exists()


def test_what_holds_in_the_whole_chain_is_written_as_words() -> None:
    """A Slurm job of a chain gets these words, since its file holds those of its own trials."""
    given = {"data.shards": "a b", "training.epochs": 2.5, "optimizer.decay_epochs": [1, 2]}
    kept = parents.shared(given | {"evaluation.limit": None})
    assert kept == {"data.shards": "a b", "training.epochs": 2.5, "evaluation.limit": None}
    assert recipes.split_overrides(recipes.override_words(given)) == ([], given)
