"""A Slurm across hosts that do not know each other's names, and Ray on its nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cluster.without_token import CALLS
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.strangers import open_doors, refused_calls, told, writable_by_others
from tests.waiting import wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.slurm, pytest.mark.long]

DAEMONS = {"munged", "slurmd"}
# Ray on all nodes of a job, as a run or a sweep has it, until the job is asked to end.
RAY = """
import signal, sys
from pathlib import Path
from slurm.sessions.ray_cluster import ray_cluster
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with ray_cluster(cpus=1, gpu=False, end_seconds=60) as cluster:
    Path(sys.argv[1]).write_text(cluster.variables["RAY_ADDRESS"])
    signal.sigwait([signal.SIGTERM])
"""


def test_a_job_spans_hosts(slurm_nodes: SlurmNodes) -> None:
    assert slurm_nodes.states() == {"n2": "idle", "n3": "idle"}
    said = slurm_nodes.run("srun", "--nodes=2", "--label", "hostname")
    assert sorted(said.splitlines()) == ["0: n2", "1: n3"]


def test_ray_spans_the_nodes_of_a_job_and_tells_strangers_nothing(
    slurm_nodes: SlurmNodes, tmp_path: Path
) -> None:
    """Nor can other users of the hosts write into anything of the job, even where its umask lets
    them; nothing is left of it.
    """
    hosts, script, up = slurm_nodes.hosts, tmp_path / "ray.sh", tmp_path / "up"
    (tmp_path / "ray.py").write_text(RAY)
    script.write_text(f"#!/bin/sh\numask 000\nexec {sys.executable} {tmp_path}/ray.py {up}\n")
    words = ["--parsable", "--nodes=2", f"--output={tmp_path}/said", str(script)]
    job = slurm_nodes.run("sbatch", *words).strip()
    assert wait_for(lambda: is_written(up) or not slurm_nodes.run("squeue", "-h"), pause=0.1)
    assert up.read_text().startswith(hosts.address("n2")), (tmp_path / "said").read_text()
    for name in ("n2", "n3"):
        found = told(hosts, name, stranger="n1")
        assert not open_doors(found)
        assert refused_calls(found) >= set(CALLS[4:6]), found
        own = hosts.path(name, Path("/tmp"))
        assert list(own.glob("gencomp-*/token"))
        assert not list(writable_by_others(own))
        assert not list(writable_by_others(own.with_name("dev") / "shm"))
    slurm_nodes.run("scancel", "--batch", "--signal=TERM", job)
    assert wait_for(lambda: not slurm_nodes.run("squeue", "-h"), pause=0.1)
    for name in ("n2", "n3"):
        assert not list(hosts.path(name, Path("/tmp")).glob("gencomp-*"))
        assert {process.command().split()[0] for process in slurm_nodes.of_node(name)} <= DAEMONS


def is_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
