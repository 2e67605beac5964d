"""Plans: identity, refusal, images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.evaluations.curve import plan
from cluster.evaluations.curve.settings import settings
from cluster.evaluations.decoders import OfModel
from cluster.runs import Run
from gencomp.errors import InputError
from slurm.kinds.curve import CurveJobs
from tests import tiny
from tests.curves import SMALL, Evaluate


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
    with pytest.raises(InputError, match=r"seed was 7, would be 9; chains was 4, would be 8 \("):
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
    cut = (made.rows[:2], made.rows[2:4], made.rows[4:])
    assert tuple((block.kind, block.items) for block in made.blocks) == tuple(
        ("measure", items) for items in cut
    )
    assert made.pilot_rows == (made.rows[0], made.rows[2])
    assert evaluate("one", images=1).plan.pilot_rows == (0,)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"images": 17}, r"split 'test' has \d+ images, fewer than the 17"),
        ({"seed": 6}, "seed and tuning_seed must differ"),
        ({"chains": 2}, "--chains is 2, but it should be greater than or equal to 4"),
        ({"beta_max": 0.0}, "--beta-max is 0.0, but it should be greater than 0"),
        ({"schedule": "linear"}, "--schedule is 'linear', but it should be 'geodesic' or"),
        ({"forces": "bfloat16"}, "--forces bfloat16 does not fit --forces-until 0"),
        ({"forces_until": 3.0}, "--forces float32 does not fit --forces-until 3"),
        ({"bdmc_images": 2}, "--bdmc-images and --bdmc-betas need each other"),
        ({"bdmc_images": 1, "bdmc_betas": (0.1,)}, "would leave the gap without an error"),
        ({"bdmc_images": 2, "bdmc_betas": (0.2,)}, "--bdmc-betas goes to 0.2, beyond --beta-max"),
        ({"features": "0" * 64}, "--distortion features and --features FILE need each other"),
        (
            {"distortion": "features", "features": "0", "bdmc_images": 2, "bdmc_betas": (0.1,)},
            "--bdmc-images must be 0 with --distortion features: no image can be drawn exactly",
        ),
    ],
)
def test_bad_settings_are_refused(evaluate: Evaluate, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluate(**settings)


def test_simulated_blocks_come_behind_the_measured_ones(evaluate: Evaluate) -> None:
    chosen = {"images": 2, "block": 2, "bdmc_images": 3, "bdmc_betas": (0.01, 0.1)}
    evaluation = evaluate(**chosen)
    blocks = evaluation.plan.blocks
    assert [block.kind for block in blocks] == ["measure", *["forward", "backward"] * 4]
    assert [block.items for block in blocks[1:]] == [(0, 1), (0, 1), (2,), (2,)] * 2
    assert [block.beta for block in blocks[1:]] == [0.01] * 4 + [0.1] * 4
    assert [CurveJobs(evaluation).stage(block) for block in range(9)] == ["measure"] + ["bdmc"] * 8
    assert evaluation.missing() == list(range(9))
    with pytest.raises(InputError, match=r"bdmc_betas was \[0.01, 0.1\], would be \[0.1\]"):
        evaluate(**{**chosen, "bdmc_betas": (0.1,)})


def test_where_a_model_lies_is_not_identity(evaluate: Evaluate) -> None:
    first = OfModel(reference="m:A", weights="/a.pt", directory="/")
    there = evaluate().plan.model_copy(update={"subject": first})
    moved = first.model_copy(update={"weights": "/b.pt", "directory": "/elsewhere"})
    assert there.model_copy(update={"subject": moved}).hash == there.hash
    other = there.model_copy(update={"subject": first.model_copy(update={"reference": "m:B"})})
    assert there.differences(other) == ["subject was 'm:A', would be 'm:B'"]
    assert evaluate().plan.differences(there) == ["subject was 'a run', would be 'm:A'"]


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=20).map(np.cumsum), st.floats(1e-4, 100))
def test_the_nearest_temperature_is_none_of_the_prior(steps: np.ndarray, beta: float) -> None:
    betas = np.concatenate([[0.0], steps])
    found = plan.nearest(betas, beta)
    assert 1 <= found < len(betas)
    distance = np.abs(np.log(betas[1:]) - np.log(beta))
    assert distance[found - 1] == pytest.approx(distance.min())


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
        plan.make(run, settings(**SMALL))


def test_a_directory_without_a_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an evaluation directory"):
        plan.Evaluation.open(tmp_path)
    (tmp_path / "plan.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match=r"plan.json cannot be read: format"):
        plan.Evaluation.open(tmp_path)
