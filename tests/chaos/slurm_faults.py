"""What Slurm does to a run in an allocation. A step is a moment, so rank 0 is stopped meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TypeVar

from tests.chaos.faults import Fault
from tests.chaos.scene import Scene
from tests.slurm.test_real_training import job_of, log_of
from tests.slurm_cluster import Cluster, faults
from tests.waiting import PATIENCE, wait_for

SlurmFault = Callable[[Scene, Cluster], None]
Kind = TypeVar("Kind", bound=Cluster)
_WARNED = "Caught signal SIGUSR2"


def on(cluster: Kind, fault: Callable[[Scene, Kind], None]) -> Fault:
    """A fault on a cluster, under its own name."""

    @wraps(fault)
    def there(scene: Scene) -> None:
        fault(scene, cluster)

    return there


def requeue(scene: Scene, cluster: Cluster) -> None:
    """`scontrol requeue`: the job is killed without a warning and waits in the queue again."""
    with frozen(scene):
        cluster.run("scontrol", "requeue", job_of(scene.run.path))
        until(lambda: state(scene, cluster) != "RUNNING", cluster)


def preempt(scene: Scene, cluster: Cluster) -> None:
    """A more important job takes the node for a moment: the job is warned, saves and waits."""
    before = log_of(scene.run.path).count(_WARNED)
    with frozen(scene):
        node = _node(scene, cluster)
        high = ["sbatch", "-p", "high", "-w", node, "--exclusive", "--wrap", "true"]
        cluster.run(*high, "--output=/dev/null")
        until(lambda: log_of(scene.run.path).count(_WARNED) > before, cluster)


def set_node_down(scene: Scene, cluster: Cluster) -> None:
    """As an administrator does it; the job goes on elsewhere or later."""
    node = _node(scene, cluster)
    with frozen(scene):
        faults.set_down(cluster, node)
        until(lambda: state(scene, cluster) != "RUNNING", cluster)
    faults.resume(cluster, node)


def cancel(scene: Scene, cluster: Cluster) -> None:
    """`scancel`, and the same command again."""
    with frozen(scene):
        cluster.run("scancel", job_of(scene.run.path))
    scene.driver.process.wait(PATIENCE)
    scene.start()


@contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    """No step is taken before the body ends, and none after it where the job has been killed."""
    process = scene.training()[0]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if process.alive():
            os.kill(process.pid, signal.SIGCONT)


def state(scene: Scene, cluster: Cluster) -> str:
    return cluster.run("squeue", "-h", "-o", "%T", "-j", job_of(scene.run.path)).strip()


def _node(scene: Scene, cluster: Cluster) -> str:
    return cluster.run("squeue", "-h", "-o", "%N", "-j", job_of(scene.run.path)).strip()


def until(condition: Callable[[], bool], cluster: Cluster) -> None:
    assert wait_for(condition, pause=0.1), cluster.run("squeue", "--states=all")
