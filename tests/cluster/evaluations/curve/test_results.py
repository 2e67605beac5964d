"""Collecting: what is missing, what does not belong, and the numbers."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.evaluations.curve.results import collect
from cluster.results import curves
from gencomp.errors import InputError
from tests import tiny
from tests.curves import Evaluate, measure


def test_nothing_yet_is_said(tuned: Evaluate) -> None:
    evaluation = tuned()
    with pytest.raises(InputError, match="has no finished block yet"):
        collect(evaluation)


def test_a_partial_curve_names_what_is_missing(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0, 2))
    curve = collect(evaluation)
    assert curve.missing == [1, 3]
    stored = json.loads((evaluation.path / "curve.json").read_text())
    assert stored["complete"] is False
    assert stored["missing_blocks"] == [1, 3]
    assert stored["missing_images"] == [evaluation.plan.rows[1], evaluation.plan.rows[3]]
    assert (stored["images"], stored["images_planned"]) == (2, 4)


def test_all_can_be_required(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0, 2))
    before = tiny.tree(evaluation.path)
    with pytest.raises(InputError, match=r"lacks 2 of 4 blocks \(2 images\): blocks 1, 3"):
        collect(evaluation, require_all=True)
    assert tiny.tree(evaluation.path) == before


def test_means_and_errors_are_those_of_the_images(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0, 1, 2, 3))
    curve = collect(evaluation, require_all=True)
    table = pq.read_table(evaluation.path / "curve.parquet")
    assert len(table) == 4 * 5
    assert set(table["image"].to_pylist()) == set(evaluation.plan.rows)
    for point in curve.means["points"]:
        here = table.filter(pc.field("temperature") == point["temperature"])
        rate, distortion = here["rate"].to_numpy(), here["distortion"].to_numpy()
        assert point["rate"] == pytest.approx(rate.mean())
        assert point["rate_standard_error"] == pytest.approx(rate.std(ddof=1) / 2)
        assert point["mse"] == pytest.approx(distortion.mean() / (3 * 64 * 64))
        assert point["bpp"] == pytest.approx(rate.mean() / 4096 / math.log(2))
        assert point["lagrangian"] == pytest.approx(
            point["rate"] + point["beta"] * point["distortion"]
        )
    protocol = curve.means["protocol"]
    assert protocol["plan"] == evaluation.plan.hash
    assert protocol["settings"]["seed"] == 7


def test_one_image_has_no_interval(tuned: Evaluate) -> None:
    evaluation = tuned(images=1, pilot_images=1)
    measure(evaluation, (0,))
    collect(evaluation)
    stored = json.loads((evaluation.path / "curve.json").read_text())
    for point in stored["points"]:
        assert point["lagrangian_interval"] is None and point["bpp_interval"] is None
    drawn = curves.read([str(evaluation.path)])[0].curve()
    assert np.isnan(drawn.low_T).all() and np.isnan(drawn.high_T).all()


def test_the_curve_is_a_curve(tuned: Evaluate) -> None:
    """Means along the schedule move as derivatives say: R up, D down, up to noise of 8 chains."""
    evaluation = tuned(temperatures=30, leapfrog=3, points=3, images=2)
    measure(evaluation, (0, 1))
    points = collect(evaluation).means["points"]
    assert all(np.diff([point["rate"] for point in points]) > 0)
    assert all(np.diff([point["distortion"] for point in points]) < 0)


@pytest.mark.parametrize("change", [{"seed": 9}, {"tuning_seed": 5}, {"leapfrog": 3}])
def test_parts_of_another_protocol_are_refused(tuned: Evaluate, change: dict) -> None:
    evaluation, other = tuned(), tuned("other", **change)
    measure(evaluation, (0,))
    measure(other, (1,))
    shutil.copy(other.part(1), evaluation.part(1))
    with pytest.raises(InputError, match=r"block-00001.parquet belongs to another curve: its plan"):
        collect(evaluation)
    assert not (evaluation.path / "curve.json").exists()


def test_parts_of_another_tuning_are_refused(tuned: Evaluate) -> None:
    evaluation, other = tuned(), tuned("other", tuning_seed=5)
    measure(evaluation, (0,))
    shutil.copy(other.tuning, evaluation.tuning)
    with pytest.raises(InputError, match="its tuning is"):
        collect(evaluation)


def test_a_part_under_another_name_is_refused(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0,))
    evaluation.part(0).rename(evaluation.part(1))
    with pytest.raises(InputError, match="its block is 0, not 1"):
        collect(evaluation)


def test_a_file_that_is_no_part_is_named(tuned: Evaluate) -> None:
    evaluation = tuned()
    measure(evaluation, (0,))
    evaluation.part(0).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"block-00000.parquet is not a part of a curve"):
        collect(evaluation)
