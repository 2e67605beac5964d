"""Striped shapes: what is drawn, and that labels and instances belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import shards
from shards.building.build import build
from shards.building.sources import shapes
from shards.building.sources.shapes import CLASSES, SCENES, Drawing
from shards.errors import ShardError


@pytest.mark.parametrize("side", [64, 128])
def test_what_is_drawn(side: int) -> None:
    seen: set[int] = set()
    for number in range(12):
        scene = shapes.draw(Drawing(f"test-{number:03d}", side))
        assert scene.image_HWC.shape == (side, side, 3) and scene.image_HWC.dtype == np.uint8
        seen |= set(np.unique(scene.label_HW).tolist())
        # An instance has one class, and the ground is instance 0 of class 0.
        for instance in np.unique(scene.instance_HW):
            assert len(np.unique(scene.label_HW[scene.instance_HW == instance])) == 1
        assert np.array_equal(scene.label_HW == 0, scene.instance_HW == 0)
        assert 0.3 < (scene.label_HW == 0).mean() < 0.99
    assert seen == set(range(len(CLASSES)))


def test_labels_do_not_say_how_shapes_look() -> None:
    """Shapes of one class differ in their mean colours by more than their noise."""
    means = []
    for number in range(20):
        scene = shapes.draw(Drawing(f"train-{number:03d}", 64))
        for instance in np.unique(scene.instance_HW[scene.label_HW == 1]):
            means.append(scene.image_HWC[scene.instance_HW == instance].mean(0))
    assert np.std(means, axis=0).min() > 10


def test_the_built_set(tmp_path: Path) -> None:
    build("shapes", tmp_path / "set", limit=10, options={"size": "64"}, processes=1)
    made = shards.open_set(tmp_path / "set")
    assert made.info.classes == list(CLASSES)
    split = made.split("test")
    sample, scene = split.read(7), shapes.draw(Drawing("test-007", 64))
    assert len(split) == 10 < SCENES["test"] and sample.key == "test-007"
    assert np.array_equal(sample.image, scene.image_HWC)
    assert np.array_equal(sample.maps["label"], scene.label_HW)
    assert np.array_equal(sample.maps["instance"], scene.instance_HW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": Path("x")}, "takes no path"),
        ({"size": "32"}, "64 to 512 pixels, not 32"),
        ({"size": "64x128"}, "64 to 512 pixels, not 64x128"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        shapes.shapes(**arguments)
