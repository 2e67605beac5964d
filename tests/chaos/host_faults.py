"""What happens to the hosts of a Slurm on which a run trains. Rank 0 is stopped meanwhile."""

from __future__ import annotations

from tests.chaos.scene import Scene
from tests.chaos.slurm_faults import frozen, state, until
from tests.hosts.slurm_nodes import SlurmNodes
from tests.slurm_cluster import faults


def cut_power(scene: Scene, cluster: SlurmNodes) -> None:
    """A host loses its power, and has it again when Slurm has missed it."""
    lost = scene.chance.choice(cluster.nodes)
    with frozen(scene):
        cluster.hosts.cut_power(lost)
        until(lambda: state(scene, cluster) != "RUNNING", cluster)
        cluster.hosts.boot(lost)
        faults.revive(cluster, lost)


def pull_cable(scene: Scene, cluster: SlurmNodes) -> None:
    """A host is cut off until Slurm has missed it; what runs there goes on, with the storage."""
    lost = scene.chance.choice(cluster.nodes)
    with frozen(scene):
        cluster.hosts.unplug(lost)
        until(lambda: state(scene, cluster) != "RUNNING", cluster)
        cluster.hosts.plug(lost)
