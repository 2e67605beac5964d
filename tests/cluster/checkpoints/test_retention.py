"""The checkpoints that are kept: the last, the best, every n-th; nothing could go stale."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.checkpoints import store
from cluster.checkpoints.retention import Retention, chosen
from cluster.logs import json_lines
from cluster.runs import Run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import RECORD_FIELDS, TrainingSection
from tests import tiny

STEPS = st.sets(st.integers(0, 60), min_size=1)
SCORES = st.dictionaries(st.integers(0, 60), st.floats(-2, 2), max_size=20)
COUNTS = st.integers(0, 5)


class TestChosen:
    @given(STEPS, st.integers(1, 5), COUNTS, st.none() | st.integers(1, 20), SCORES)
    def test_each_rule_keeps_what_it_promises(
        self, steps: set[int], last: int, best: int, every: int | None, scores: dict[int, float]
    ) -> None:
        kept = chosen(steps, last, best, every, scores)
        assert kept <= steps and max(steps) in kept
        newest = sorted(steps)[-last:]
        ranked = sorted(steps & scores.keys(), key=lambda step: (scores[step], step))[:best]
        for step in steps:
            promised = step in newest or step in ranked or bool(every and step % every == 0)
            assert (step in kept) == promised

    @given(STEPS, st.integers(1, 5), COUNTS, st.none() | st.integers(1, 20), SCORES)
    def test_what_is_removed_is_never_wanted_again(
        self, steps: set[int], last: int, best: int, every: int | None, scores: dict[int, float]
    ) -> None:
        """Removing at every save gives what removing once at the end would give."""
        there: set[int] = set()
        for step in sorted(steps):
            there = chosen({*there, step}, last, best, every, scores)
        assert there == chosen(steps, last, best, every, scores)

    def test_of_equals_the_older_is_better(self) -> None:
        """A checkpoint between two evaluations has the score of the one before it."""
        assert chosen([10, 15, 20, 30], 1, 1, scores={10: 0.5, 15: 0.5, 20: 0.7, 30: 0.9}) == {
            10,
            30,
        }


def run_with_log(path: Path, rows: list[dict[str, Any]], **fields: Any) -> tuple[Run, Retention]:
    """A rule and a run of nothing but a log."""
    path.mkdir(exist_ok=True)
    run = Run(path)
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"training.keep_best": 1, "training.keep_best_metric": "mse", **fields}
    return run, Retention(run.metrics, tiny.checked(tiny.generator(path, training)))


class TestScores:
    def test_the_evaluation_at_or_before_the_step_counts(self, tmp_path: Path) -> None:
        rows = [{"step": step, "test/mse": step / 10, "test/x": 0} for step in (5, 10, 20)]
        _, rule = run_with_log(tmp_path, [{"step": 1, "generator/loss": 9.0}, *rows])
        assert rule.scores([4, 5, 8, 10, 19, 20, 99]) == {
            5: 0.5,
            8: 0.5,
            10: 1.0,
            19: 1.0,
            20: 2.0,
            99: 2.0,
        }

    @pytest.mark.parametrize("value", [None, math.nan])
    def test_what_is_not_finite_is_never_best(self, value: float | None, tmp_path: Path) -> None:
        """The evaluation before it does not stand in its place either."""
        run, rule = run_with_log(tmp_path, [])
        for step, mse in ((5, 0.3), (10, value), (15, 0.4)):
            json_lines.append(run.metrics, {"step": step, "test/mse": mse})
        assert rule.scores([5, 10, 12, 15]) == {5: 0.3, 15: 0.4}
        assert rule.kept([5, 10, 12, 15]) == {5, 12, 15}

    def test_the_log_is_read_as_it_grows(self, tmp_path: Path) -> None:
        run, rule = run_with_log(tmp_path, [])
        for step in range(1, 30):
            with run.metrics.open("a") as log:
                log.write(json.dumps({"step": step, "test/mse": -step}) + "\n")
            assert rule.scores([step]) == {step: -step}

    def test_a_metric_that_there_is_not_is_named_with_those_there_are(self, tmp_path: Path) -> None:
        fields = {"training.keep_best_metric": "fid"}
        _, rule = run_with_log(tmp_path, [{"step": 5, "test/mse": 1.0, "test/psnr": 2.0}], **fields)
        with pytest.raises(InputError, match=r"keep_best_metric is 'fid', .* give mse, psnr$"):
            rule.kept([5])

    def test_the_log_is_left_alone_where_no_best_ones_are_kept(self, tmp_path: Path) -> None:
        none = {"training.keep_best": 0, "training.keep_best_metric": None}
        run, rule = run_with_log(tmp_path, [], **none)
        run.metrics.write_bytes(b"\xff\xfe not JSON")
        assert rule.kept([1, 2, 3]) == {2, 3}


class TestRecipe:
    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"keep_best": 2}, "keep_best needs keep_best_metric"),
            ({"keep_best_metric": "mse"}, "keep_best_metric needs keep_best"),
            ({"keep_best": -1}, "keep_best is -1, but it should be greater than or equal to 0"),
            ({"keep_every": 10}, "keep_every is 10, but it must be a multiple of checkpoint_every"),
            ({"keep_every": 0}, "keep_every is 0, but it should be greater than"),
            ({"keep_checkpoints": 0}, "keep_checkpoints is 0, but it should be greater than"),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, fields: dict[str, Any], sentence: str, tmp_path: Path
    ) -> None:
        raw = tiny.generator(tmp_path, {f"training.{k}": v for k, v in fields.items()})
        with pytest.raises(InputError, match=sentence):
            tiny.checked(raw)

    def test_saving_keeping_and_logging_do_not_make_another_run(self, tmp_path: Path) -> None:
        assert set(TrainingSection.model_fields) >= RECORD_FIELDS
        others = {
            "training.log_every": 7,
            "training.checkpoint_every": 5,
            "training.checkpoint_async": False,
            "training.keep_checkpoints": 9,
            "training.keep_best": 3,
            "training.keep_best_metric": "mse",
            "training.keep_every": 20,
            "training.sample_every": 11,
        }
        assert {key.removeprefix("training.") for key in others} == RECORD_FIELDS
        one, other = (
            recipes.identity(tiny.checked(tiny.generator(tmp_path, overrides)), {"data": "h"}, {})
            for overrides in ({}, others)
        )
        assert one == other
        changed = tiny.checked(tiny.generator(tmp_path, {"training.seed": 5}))
        assert one != recipes.identity(changed, {"data": "h"}, {})

    def test_a_run_whose_identity_still_names_them_can_be_entered(
        self, photos: Path, tmp_path: Path
    ) -> None:
        run = tiny.started(tmp_path / "run", tiny.generator(photos))
        older = {**run.identity(), "training.keep_checkpoints": 5, "training.log_every": 3}
        (run.path / "identity.json").write_text(json.dumps(older))
        tiny.started(run.path, tiny.generator(photos))
        with pytest.raises(InputError, match=r"training.seed was 1 and would be 2"):
            tiny.started(run.path, tiny.generator(photos, {"training.seed": 2}))


BEST = {
    "training.steps": 20,
    "training.checkpoint_every": 2,
    "training.keep_checkpoints": 1,
    "training.keep_best": 2,
    "training.keep_best_metric": "mse",
    "training.keep_every": 6,
    "evaluation.every": 3,
}


def expected(run: Run, upto: int = 20) -> set[int]:
    """The steps that are to be kept, by the log alone."""
    evaluations = {row["step"]: row["test/mse"] for row in tiny.rows(run) if "test/mse" in row}
    scores = {}
    for step in range(2, upto + 1, 2):
        before = [s for s in evaluations if s <= step]
        if before:
            scores[step] = evaluations[max(before)]
    best = sorted(scores, key=lambda step: (scores[step], step))[:2]
    return {upto, *best, *range(6, upto + 1, 6)}


@pytest.fixture(scope="module")
def straight(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("best") / "run"
    return tiny.trained(path, tiny.generator(photos, BEST))[0]


class TestInTraining:
    def test_the_last_the_best_and_every_sixth(self, straight: Run) -> None:
        found = {store.step_of(p) for p in store.directories(straight.checkpoints)}
        assert found == expected(straight)
        best = Run(straight.path, "best").final_checkpoint()
        scores = Retention(straight.metrics, straight.recipe()).scores(found)
        assert scores[best.step] == min(scores.values())
        assert straight.final_checkpoint().step == 20

    def test_the_same_ones_after_crashes(self, straight: Run, photos: Path, tmp_path: Path) -> None:
        raw = tiny.generator(photos, BEST)
        for steps in (7, 9):
            with pytest.raises(tiny.Crash):
                tiny.trained(tmp_path / "run", raw, tiny.crash_after(steps))
        run, _ = tiny.trained(tmp_path / "run", raw)
        assert tiny.rows(run) == tiny.rows(straight)
        assert [p.name for p in store.directories(run.checkpoints)] == [
            p.name for p in store.directories(straight.checkpoints)
        ]

    def test_the_best_one_is_whole_or_the_next_best(self, straight: Run, tmp_path: Path) -> None:
        run = Run(shutil.copytree(straight.path, tmp_path / "run"), "best")
        first = run.final_checkpoint()
        tiny.flip(first.path / store.NETWORKS)
        assert run.final_checkpoint().step != first.step
        assert store.newest(run.checkpoints) == Run(run.path).final_checkpoint()

    def test_a_run_that_keeps_none(self, generator_run: Path) -> None:
        with pytest.raises(InputError, match=r"keeps no best checkpoints: set training\.keep_best"):
            Run(generator_run, "best").final_checkpoint()

    def test_an_unknown_metric_stops_the_run_with_a_sentence(
        self, photos: Path, tmp_path: Path
    ) -> None:
        raw = tiny.generator(photos, {**BEST, "training.keep_best_metric": "fid"})
        with pytest.raises(InputError, match=r"keep_best_metric is 'fid', but the evaluations"):
            tiny.trained(tmp_path / "run", raw)
