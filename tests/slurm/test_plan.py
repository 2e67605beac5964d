"""Plans: identity, refusal, images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.runs import Run
from gencomp.errors import InputError
from slurm import plan
from tests import tiny
from tests.slurm.conftest import SMALL, Evaluate


def test_the_same_plan_is_found_again(evaluate: Evaluate) -> None:
    first = evaluate()
    text = (first.path / "plan.json").read_bytes()
    again = evaluate()
    assert again == first
    assert again.plan.hash == first.plan.hash
    assert (first.path / "plan.json").read_bytes() == text


def test_another_plan_is_refused_with_its_differences(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    before = tiny.tree(evaluation.path)
    with pytest.raises(InputError, match=r"chains was 4, would be 8; seed was 7, would be 9 \("):
        evaluate(chains=8, seed=9)
    assert tiny.tree(evaluation.path) == before
    assert evaluate("other", chains=8).path != evaluation.path


def test_where_the_shards_lie_is_not_identity(evaluate: Evaluate) -> None:
    there = evaluate().plan
    moved = there.model_copy(update={"shards": "/elsewhere"})
    assert moved.hash == there.hash
    assert there.differences(moved) == []


def test_rows_are_spread_and_blocks_cover_them(evaluate: Evaluate) -> None:
    made = evaluate(images=5, block=2).plan
    assert made.rows[0] == 0
    assert set(np.diff(made.rows)) <= {2, 3}
    assert made.blocks == (made.rows[:2], made.rows[2:4], made.rows[4:])
    assert made.pilot_rows == (made.rows[0], made.rows[2])
    assert evaluate("one", images=1).plan.pilot_rows == (0,)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"images": 17}, r"split 'test' has \d+ images, fewer than the 17"),
        ({"seed": 6}, "seed and tuning_seed must differ"),
        ({"chains": 2}, "--chains is 2, but input should be greater than or equal to 4"),
        ({"beta_max": 0.0}, "--beta-max is 0.0, but input should be greater than 0"),
    ],
)
def test_bad_settings_are_refused(evaluate: Evaluate, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate(**settings)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_name_is_one_directory(evaluate: Evaluate, name: str) -> None:
    with pytest.raises(InputError, match="must be one plain directory name"):
        evaluate(name)


def test_a_foreign_directory_is_left_alone(evaluate: Evaluate, run: Run) -> None:
    foreign = run.path / "evaluations" / "ais"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no evaluation"):
        evaluate()
    assert [p.name for p in foreign.iterdir()] == ["notes.txt"]


def test_an_unfinished_run_is_refused(run: Run) -> None:
    (run.path / "result.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        plan.make(run, plan.settings(**SMALL))


def test_a_directory_without_a_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an evaluation directory"):
        plan.open_evaluation(tmp_path)
    (tmp_path / "plan.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"plan.json cannot be read: format"):
        plan.open_evaluation(tmp_path)
