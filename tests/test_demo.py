"""`gencomp demo`: which job it does, and what it says about the time that is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gencomp import recipes
from gencomp.cli.console import TrainingLines
from gencomp.cli.demo import demo, time_left
from gencomp.errors import InputError


@pytest.mark.parametrize("method", ["urdp", "irec", "gan_compression"])
def test_the_data_of_other_methods_cannot_be_chosen(method: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--data photos belongs to dplc; the images of {method}"):
        demo(method, data="photos", directory=tmp_path / "demo")  # type: ignore[arg-type]
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("spent", "said"),
    [
        ([], "about 4 min left"),
        ([20], "about 4 min left"),  # as long as expected
        ([60], "about 11 min left"),  # the others will also take three times as long
        ([2], "about 4 min left"),  # done before, which says nothing about the others
        ([20, 100], "about 2 min left"),
        ([20, 100, 100], "less than a minute left"),
    ],
)
def test_the_time_that_is_left(spent: list[float], said: str) -> None:
    assert time_left([20, 100, 100, 20], spent) == said


def test_training_says_once_where_its_first_pictures_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    row = {"step": 10, "epoch": 0.1, "samples_per_second": 100.0, "loss": 1.0}
    with TrainingLines(recipes.load("dplc_wae_glyphs"), run) as lines:
        lines.show(row)
        assert "pictures" not in capsys.readouterr().out
        for step in (20, 40):
            grid = run / "samples" / f"step-{step:09d}.png"
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(grid)
            lines.show(row | {"step": step})
    said = capsys.readouterr().out
    assert said.count("first pictures: ") == 1
    assert f"first pictures: {run / 'samples' / 'step-000000020.png'}\n" in said
