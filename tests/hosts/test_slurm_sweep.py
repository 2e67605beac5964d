"""A sweep on a Slurm across hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.runs import Run
from tests import tiny
from tests.cluster.ray_train.test_train import straight
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.slurm_runs import SUBMITS, command
from tests.slurm.test_real_training import starts

pytestmark = [pytest.mark.hosts, pytest.mark.slurm, pytest.mark.slow]


def test_trials_share_the_hosts_of_a_job(
    slurm_nodes: SlurmNodes, photos: Path, tmp_path: Path
) -> None:
    """Each of two trials has a host for itself, and the bits that it has alone."""
    changes = {"training.steps": 8, "training.sample_every": 1000, "evaluation.every": 8}
    base = tiny.write(tiny.generator(photos, changes), tmp_path / "base.yaml")
    space = {"loss.mmd_weight": {"grid": [1, 10]}}
    sweep = {"base": str(base), "space": space, "objective": {"minimise": "mse"}, "concurrent": 2}
    file = tmp_path / "weights.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    words = ["--runs", str(tmp_path / "runs"), "--nodes", "2", "--cpus-per-task", "1", "--wait"]
    submit = command("slurm", "sweep", str(file), *words)
    slurm_nodes.hosts.run(SUBMITS, *submit, env=slurm_nodes.variables)
    trials = [Run(path) for path in (tmp_path / "runs" / "weights" / "trials").glob("*")]
    assert sorted(row["host"] for trial in trials for row in starts(trial)) == ["n2", "n3"]
    for trial in trials:
        recipe = yaml.safe_load((trial.path / "recipe.yaml").read_text(encoding="utf-8"))
        alone = straight(tmp_path / trial.path.name, recipe, 1)
        tiny.assert_identical(tiny.state(trial), tiny.state(alone))
        assert tiny.rows(trial) == tiny.rows(alone)
