"""What goes wrong on clusters, done on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.slurm_cluster import processes
from tests.slurm_cluster.cluster import Cluster
from tests.waiting import PATIENCE, wait_for

_WORKING = {"idle", "mixed", "allocated"}


def set_down(cluster: Cluster, node: str) -> None:
    """Set a node down as an administrator does it: its jobs are killed unwarned, and requeued."""
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def resume(cluster: Cluster, node: str) -> None:
    """The node takes jobs again."""
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    _wait_for_work(cluster, node)


def crash_node(cluster: Cluster, node: str) -> None:
    """Its daemon and all that runs on it die at once. The controller misses it after half a minute,
    and requeues its jobs then; of one that was back before it learns nothing.
    """
    processes.crash(cluster.of_node(node))


def revive(cluster: Cluster, node: str) -> None:
    """A crashed node after its reboot."""
    cluster.start_node(node)
    _wait_for_work(cluster, node)


@contextmanager
def controller_outage(cluster: Cluster) -> Iterator[None]:
    """The controller ends, and is started again from the state that it has saved."""
    processes.stop(cluster.controller(), PATIENCE)  # it saves its state first
    try:
        yield
    finally:
        cluster.up()


def _wait_for_work(cluster: Cluster, node: str) -> None:
    if not wait_for(lambda: cluster.states().get(node) in _WORKING, pause=0.05):
        raise RuntimeError(f"{node} does not come back: {cluster.states()}")
