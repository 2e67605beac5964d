"""Results that a command line names: runs, sweeps and files, under labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.runs import open_run
from gencomp import recipes
from gencomp.cli import main
from gencomp.errors import InputError
from sweeps import plan, results, sweep_file
from sweeps.operating_points import read
from tests import tiny


def test_a_sweep_stands_for_its_finished_trials(
    photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    base = tiny.codec(photos, generator_run, {"training.steps": 1})
    grids = {"loss.mmd_weight": {"grid": [10, 0]}, "networks.code_channels": {"grid": [4, 2]}}
    recipe = tiny.write(base, tmp_path / "base.yaml")
    sweep = sweep_file.Sweep.model_validate({"base": str(recipe), "space": grids})
    planned = plan.make(sweep, tmp_path / "sweep")
    plan.write(sweep, planned, tmp_path / "sweep")
    for trial in planned[:3]:
        tiny.trained(trial.path, recipes.with_overrides(base, trial.point))
    results.write_table(results.table(planned, sweep.objective), tmp_path / "sweep")
    found = read([str(tmp_path / "sweep")], "metrics")
    # In the order of the values; λ 0 with 2 channels is still to be run.
    points = [(one.series, one.run and one.run.recipe().networks.code_channels) for one in found]
    assert points == [("λ 0", 4), ("λ 10", 2), ("λ 10", 4)]
    with pytest.raises(InputError, match="has no measured rates: `gencomp files"):
        found[0].point("mse")
    assert main(["files", str(tmp_path / "sweep"), "--images", "2"]) == 0
    found = read([str(tmp_path / "sweep")], "metrics")
    assert all(0 < one.bpp <= 4 * 16 / 64**2 for one in found)


def test_labels_and_commas(codec_run: Path, tmp_path: Path) -> None:
    """Labels join what they name; what has none goes by its recipe, behind those that have one."""
    run = str(codec_run)
    found = read([run, f"mine={run},{run}"], "metrics")
    assert [one.series for one in found] == ["mine", "mine", "dplc/codec"]
    assert all(one.run == open_run(codec_run) for one in found)


def test_a_file_brings_its_run_where_it_lies_in_one(codec_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(codec_run, tmp_path / "codec"))
    own = {"weights": "w", "data": "d", "transforms": {}, "settings": {"split": "test"}}
    content = {
        "complete": True,
        "metrics": {"mse": {"value": 0.1}},
        "protocol": {**own, "system": "dplc/codec"},
    }
    rates = {
        "complete": True,
        "images": 2,
        "metrics": {"joint_bpp": {"value": 0.5}, "joint_file_bpp": {"value": 0.75}},
        "protocol": {**own, "split_images": 2},
    }
    inside = run / "evaluations" / "mine" / "metrics.json"
    inside.parent.mkdir(parents=True)
    outside = tmp_path / "metrics.json"
    for file in (inside, outside):
        file.write_text(json.dumps(content))
    of_run = run / "evaluations" / "files" / "rates.json"
    of_run.parent.mkdir()
    for file in (of_run, tmp_path / "rates.json"):
        file.write_text(json.dumps(rates))
    one, two = read([str(inside), str(outside)], "metrics")
    assert one.run is not None and one.run.path == run and two.run is None
    assert one.bpp == two.bpp == 0.5
    # The run itself speaks by the evaluation of the name that is asked for.
    (three,) = read([str(run)], "mine")
    assert three.evaluation == content


def test_nothing_and_what_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="curves need one result or more"):
        read([], "metrics")
    with pytest.raises(InputError, match="is not a run"):
        read([str(tmp_path)], "metrics")
