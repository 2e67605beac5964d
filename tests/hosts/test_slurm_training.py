"""Runs on a Slurm across hosts: the bits of one host, whatever happens to cables and power."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

import pytest

from tests import tiny
from tests.cluster.without_token import CALLS
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.slurm_runs import SlurmRun
from tests.hosts.strangers import open_doors, refused_calls, told, writable_by_others
from tests.slurm.test_real_training import attempts, log_of, starts
from tests.slurm_cluster import faults

pytestmark = [pytest.mark.hosts, pytest.mark.slurm, pytest.mark.slow]
TWO_NODES = ("--nodes", "2", "--workers", "2", "--cpus-per-task", "1")


@pytest.fixture
def run(slurm_nodes: SlurmNodes, photos: Path, tmp_path: Path) -> SlurmRun:
    changes = {"training.steps": 24, "training.sample_every": 1000}
    return SlurmRun(slurm_nodes, tmp_path, tiny.generator(photos, changes))


def test_two_nodes_train_as_one_host_does(run: SlurmRun) -> None:
    """No port of theirs tells a stranger anything, nor is a file of the run others' to write; the
    log of the living job can be followed.
    """
    hosts = run.cluster.hosts
    run.submit(*TWO_NODES)
    with run.frozen(1, 1):
        follower = run.start("slurm", "logs", str(run.run.path), "--follow", stdout=subprocess.PIPE)
        assert follower.stdout is not None
        assert "rank 0: attempt starts" in said_until(follower.stdout, "step 1 (")
        found = {name: told(hosts, name, stranger="n1") for name in ("n2", "n3")}
        assert not [door for one in found.values() for door in open_doors(one)]
        assert not list(writable_by_others(run.run.path))
        refused = set().union(*map(refused_calls, found.values()))
        assert refused >= set(CALLS[:7]), found
    assert "step 24 (100%)" in follower.communicate()[0]
    assert follower.returncode == 0
    run.until_over()
    assert not list(writable_by_others(run.run.path))
    run.assert_same_as_on_one_host(2)


@pytest.mark.parametrize("lost", ["n2", "n3"])
def test_a_host_that_loses_power_and_comes_back(run: SlurmRun, lost: str) -> None:
    """The first node has the head and the driver. Slurm misses a node after half a minute."""
    run.submit(*TWO_NODES)
    with run.frozen(1, 9):
        run.cluster.hosts.cut_power(lost)
        run.until(lambda: run.jobs() == ["PENDING"])
        run.cluster.hosts.boot(lost)
        faults.revive(run.cluster, lost)
    run.until_over()
    assert attempts(run.run.path) == 2
    assert [row["step"] for row in starts(run.run)] == [0, 8], run.words()
    run.assert_same_as_on_one_host(2)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_job_meets_its_predecessor_on_a_host_that_slurm_has_lost(
    run: SlurmRun, comes_back: bool
) -> None:
    """The host without its cable still has the storage, and goes on. Back again, it is told."""
    run.submit("--cpus-per-task", "1")
    with run.frozen(1, 9) as lost:
        run.cluster.hosts.unplug(lost)
        run.until(lambda: "waiting for an earlier attempt to end: process" in log_of(run.run.path))
        assert f" on {lost}, seen " in log_of(run.run.path)
        if comes_back:
            run.cluster.hosts.plug(lost)
            run.until(lambda: not run.drivers(lost))
    run.until_over()
    assert attempts(run.run.path) == 2
    assert [row["step"] for row in starts(run.run)] == ([0, 8] if comes_back else [0])
    run.assert_same_as_on_one_host(1)


def test_a_more_important_job_takes_both_hosts(run: SlurmRun) -> None:
    run.submit(*TWO_NODES, "--partition", "low", "--time", "60")
    with run.frozen(1, 5):
        high = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
        run.cluster.run(*high, "--wrap", "true")
        run.until(lambda: "Caught signal SIGUSR2" in log_of(run.run.path))
    run.until_over()
    assert attempts(run.run.path) == 2
    first, second = [row["step"] for row in starts(run.run)]
    assert first == 0 and second >= 5
    run.assert_same_as_on_one_host(2)


def said_until(stream: IO[str], word: str) -> str:
    """The lines of a stream up to the one that holds a word."""
    lines = [stream.readline()]
    while word not in lines[-1]:
        assert lines[-1], lines
        lines.append(stream.readline())
    return "".join(lines)
