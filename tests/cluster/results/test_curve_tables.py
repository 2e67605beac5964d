"""What was collected of a curve, read back."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import shards
from cluster.evaluations.curve.plan import Evaluation
from cluster.evaluations.curve.results import collect
from cluster.results import curve_tables
from gencomp.errors import InputError
from tests.curves import Evaluate, measure


@pytest.fixture
def collected(tuned: Evaluate) -> Evaluation:
    """Three of four images: one block is missing."""
    evaluation = tuned()
    measure(evaluation, (0, 1, 3))
    collect(evaluation)
    return evaluation


def test_every_image_has_its_curve(collected: Evaluation) -> None:
    curve = curve_tables.read(collected)
    content = json.loads((collected.path / "curve.json").read_text())
    assert content == curve_tables.means(collected)
    points = content["points"]
    assert curve.rate_IT.shape == (3, len(points)) == (3, 5)
    np.testing.assert_allclose(curve.rate_IT.mean(0), [point["rate"] for point in points])
    np.testing.assert_allclose(curve.ess_IT.mean(0), [point["ess"] for point in points])
    assert curve.beta_T.tolist() == [point["beta"] for point in points]
    assert (curve.chains, curve.temperatures) == (4, 12)
    assert (curve.height, curve.width) == (64, 64)
    assert curve.missing == "3 of 4 images are measured, 1 blocks are missing"


def test_the_images_are_those_that_were_measured(collected: Evaluation) -> None:
    images = curve_tables.images(collected)
    rows = collected.plan.rows
    split = shards.open_set(collected.plan.shards).split("test")
    assert len(images) == 3
    for image, row in zip(images, (rows[0], rows[1], rows[3]), strict=True):
        np.testing.assert_array_equal(image, split.image(row))


def test_a_table_of_other_images_than_the_means_is_refused(collected: Evaluation) -> None:
    path = collected.path / "curve.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows - 1), path)
    with pytest.raises(InputError, match="was collected only in part"):
        curve_tables.read(collected)


def test_another_shard_set_in_the_same_place_is_refused(collected: Evaluation) -> None:
    plan = collected.plan.model_copy(update={"data": "0" * 64})
    with pytest.raises(InputError, match="another one than the curve was measured on"):
        curve_tables.images(Evaluation(collected.path, plan))
