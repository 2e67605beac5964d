"""What a trial asks of Ray, and how many trials a cluster holds.

Beside Ray's public interface this file depends on the resource `node:__internal_head__`, which Ray
gives to the node of its head.
"""

from __future__ import annotations

from typing import Any

from gencomp.errors import InputError


def of_trial(workers: int, gpu: bool) -> Any:
    """The resources that Ray Tune reserves for a trial, all of them at once or none."""
    from ray import tune

    worker = _of_worker(gpu)
    if workers == 1:
        return tune.PlacementGroupFactory([worker])
    # The process that watches over a gang takes no CPU, so it has its place beside the head.
    head = {"node:__internal_head__": 0.001}
    return tune.PlacementGroupFactory([head] + [worker] * workers, strategy="PACK")


def capacity(nodes: list[dict[str, Any]], workers: int, gpu: bool) -> int:
    """The number of trials that a cluster holds at once.

    A trial is made of equal bundles that may lie on any nodes, so this many trials always fit
    together: none ever waits for a part of what another one holds.

    Args:
        nodes: the nodes as `ray.nodes()` describes them.
        workers: the number of workers of each trial.
        gpu: whether each worker has a GPU of its own.

    Raises:
        InputError: the cluster has no room for a single trial.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    units = sum(min(int(node.get(kind, 0)) for kind in _of_worker(gpu)) for node in alive)
    if units < workers:
        what = "GPUs (each with a CPU)" if gpu else "CPUs"
        mend = "fewer workers, or no gpu" if gpu else "fewer workers"
        raise InputError(
            f"each trial wants {workers} {what}, but the cluster has {units}: ask for {mend}"
        )
    return units // workers


def _of_worker(gpu: bool) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if gpu else {"CPU": 1}
