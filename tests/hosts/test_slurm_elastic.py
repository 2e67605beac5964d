"""A run with `--workers MIN..MAX` on a Slurm across hosts, one of which is lost and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.cluster.ray_train.test_scaling import assert_every_sample_once, worlds
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.slurm_runs import SlurmRun
from tests.slurm.test_real_training import attempts, log_of, starts
from tests.slurm_cluster import faults

pytestmark = [pytest.mark.hosts, pytest.mark.slurm, pytest.mark.slow]


def test_a_job_goes_on_with_the_hosts_that_are_left(
    slurm_nodes: SlurmNodes, photos: Path, tmp_path: Path
) -> None:
    """Ray misses a host long before Slurm does. When it is back, it takes part again.

    No step is lost then, and no sample ever.
    """
    changes: dict[str, float] = {"training.steps": 24, "training.sample_every": 1000}
    # Another number of workers sums in another order, which training would amplify.
    changes |= {"optimizer.learning_rate": 1e-12}
    run = SlurmRun(slurm_nodes, tmp_path, tiny.generator(photos, changes))
    slurm_nodes.be_patient()
    run.submit("--nodes", "2", "--workers", "1..2", "--cpus-per-task", "1")
    with run.frozen(1, 9):
        slurm_nodes.hosts.cut_power("n3")
    with run.frozen(2, 12):
        assert run.jobs() == ["RUNNING"]
        slurm_nodes.hosts.boot("n3")
        faults.revive(slurm_nodes, "n3")
        run.until(lambda: "Ray has ended on n3: " in log_of(run.run.path))
        run.until(run.run.stop_request.exists)
    run.until(lambda: worlds(run.run) == [2, 1, 2])
    run.until_over()
    first, second, third = [row["step"] for row in starts(run.run)]
    assert (first, second) == (0, 8) and third >= 12
    assert attempts(run.run.path) == 1
    assert_every_sample_once(run.run, run.recipe, tmp_path)
