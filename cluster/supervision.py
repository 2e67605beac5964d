"""How the workers of a run are kept going. This needs neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cluster import ray_runtime
from cluster.logs.watchdog import STALL_SECONDS
from cluster.one_process.process import WorkerProcess


@dataclass(frozen=True)
class Supervision:
    """How the workers of a run are kept going. None of this changes what they compute.

    Attributes:
        workers: the fewest and the most processes that share each global batch; as many work as the
            cluster has room for (see `cluster.ray_train.scaling`).
        gpu: whether every worker gets a GPU of its own, rather than a CPU.
        max_failures: the number of times that the workers are started again after one has died.
        stall_seconds: the time without progress after which a worker is ended and counts as dead.
        copy_to: the place to which every whole checkpoint is copied, if there is one (see
            `cluster.checkpoints.mirror`).
        ray: whether Ray starts the worker even if there is only one.
    """

    workers: tuple[int, int] = (1, 1)
    gpu: bool = False
    max_failures: int = 3
    stall_seconds: float = STALL_SECONDS
    copy_to: str | None = None
    ray: bool = False

    def needs_ray(self) -> bool:
        """Whether Ray starts the workers: several, on a named cluster, or because it is asked."""
        return self.ray or self.workers != (1, 1) or ray_runtime.address() is not None


@contextmanager
def early_worker(supervision: Supervision) -> Iterator[WorkerProcess | None]:
    """A worker's process that imports what it needs while the driver prepares the run.

    Yields:
        The process, which ends with the body; None if Ray starts the workers.
    """
    if supervision.needs_ray():
        yield None
        return
    with WorkerProcess() as process:
        yield process
