"""The number of workers that train: as many as the cluster has room for, between two limits.

Ray's own policies trust a view of the cluster that is up to 20 s old, count nodes that have died,
take places that other work holds for free ones, and wait without a word. Here a place is room for
one worker, free now on a node that answers, and the driver's log says what training waits for.

New nodes never interrupt the workers that train: the workers are asked to write a checkpoint and
leave, and are started again in a larger number, so growing costs no steps.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2.api.result import Result

from cluster import ray_runtime
from cluster.logs import json_lines, process_log
from cluster.ray_train.nodes import answers

# The number of places must have been the same for this time: nodes arrive one after the other, and
# the places of workers that have just died become free a moment later.
_SETTLED_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_PROBES = 32

Resources = Mapping[str, float]


class StoppedWaiting(Exception):
    """Raised where training was asked to stop while it waited for room."""


@dataclass(frozen=True)
class Signals:
    """Files in a run directory whose existence is a signal.

    Attributes:
        stop: the file that tells training to stop waiting for room.
        grow: the file that tells the workers to write a checkpoint and leave, because there is
            room for more of them.
        quiet_until: the time before which `grow` is not made, in seconds since 1970.
    """

    stop: Path
    grow: Path
    quiet_until: float = 0.0


class Trainer(TorchTrainer):
    """A `TorchTrainer` whose number of workers is decided by `AsManyAsFit`.

    Args:
        run: the run's directory.
        signals: the files by which training is asked to stop or to grow.
        arguments, options: the arguments of `TorchTrainer`.
    """

    def __init__(self, *arguments: Any, run: Path, signals: Signals, **options: Any) -> None:
        super().__init__(*arguments, **options)
        grows = not ray_runtime.is_complete()
        self._policy = AsManyAsFit(self.scaling_config, run, signals, grows)

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        # The cleaner of placement groups is an actor that outlives its job. It lives for ever where
        # no dashboard tells it that the controller has gone, and the end of the job frees the
        # groups anyway. Ray Data, for which we have no use, takes an actor for each start of the
        # workers, and its import in each of them.
        unused = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [x for x in super()._create_default_callbacks() if not isinstance(x, unused)]

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        return super()._initialize_and_run_controller(**parts | {"scaling_policy": self._policy})


class AsManyAsFit(ScalingPolicy):
    """Starts as many workers as fit, waits while too few fit, and restarts them when more fit.

    Args:
        config: the fewest and the most workers, and the resources that each of them needs.
        run: the run's directory; changes, and what training waits for, go to the driver's log.
        signals: the files by which training is asked to stop or to grow.
        cluster_grows: whether the cluster may be asked for more nodes.
    """

    def __init__(
        self, config: ScalingConfig, run: Path, signals: Signals, cluster_grows: bool
    ) -> None:
        super().__init__(config)
        self._run, self._signals, self._cluster_grows = run, signals, cluster_grows
        self._needs: Resources = config._resources_per_worker_not_none
        self._seen, self._since = -1, 0.0
        self._looked = 0.0
        self._told = ""
        self._silent: tuple[str, ...] = ()

    def after_controller_start(self, train_run_context: Any) -> None:
        """Open the way by which nodes are asked for, an actor of Ray's, if there can be any."""
        if self._cluster_grows:
            super().after_controller_start(train_run_context)

    def _maybe_send_resource_request(self) -> None:
        if self._cluster_grows:
            super()._maybe_send_resource_request()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Decide whether to start workers; Ray asks again and again while there are none."""
        self._maybe_send_resource_request()
        if self._signals.stop.exists():
            raise StoppedWaiting
        config = self.scaling_config
        found = room(self._needs, ours=True)
        free = min(found.free, config.max_workers)
        settled = self._settled(free)
        if free == config.max_workers or (free >= config.min_workers and settled):
            self._note_change(free)
            self._seen, self._told, self._silent = -1, "", found.silent
            return ResizeDecision(free, dict(self._needs))
        if free < config.min_workers and settled:
            self._tell_shortage(found)
        time.sleep(_LOOK_SECONDS)
        return NoopDecision()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Ask the workers to leave if more would fit; Ray asks several times a second."""
        self._maybe_send_resource_request()
        workers, most = worker_group_state.num_workers, self.scaling_config.max_workers
        now = time.monotonic()
        if workers < most and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            places = min(workers + room(self._needs).free, most)
            settled = self._settled(places)
            if settled and places > workers and time.time() >= self._signals.quiet_until:
                self._signals.grow.touch()
        return NoopDecision()

    def on_controller_start_worker_group(
        self, *, scaling_config: ScalingConfig, num_workers: int
    ) -> dict[str, str] | None:
        """The labels of the nodes on which the next workers may run: none that has just died."""
        if not self._silent:
            return None
        return {ray._raylet.RAY_NODE_ID_KEY: f"!in({','.join(self._silent)})"}

    def _get_num_workers_for_resource_request(self) -> int:
        """The number of workers for which a cluster that makes nodes on demand is asked."""
        return self.scaling_config.max_workers

    def _settled(self, places: int) -> bool:
        """Whether the number of places that was just seen has been the same for a while."""
        now = time.monotonic()
        if places != self._seen:
            self._seen, self._since = places, now
        return now - self._since >= _SETTLED_SECONDS

    def _note_change(self, workers: int) -> None:
        rows = json_lines.newest_first(process_log.of_rank(self._run, 0))
        before = next((row["world"] for row in rows if row.get("event") == "start"), workers)
        if workers != before:
            text = f"training goes on with {_count(workers)} instead of {before}"
            process_log.note(self._run, "INFO", text, event="resized", world=workers)

    def _tell_shortage(self, found: Room) -> None:
        fewest = self.scaling_config.min_workers
        each = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        wanted = f"{fewest} workers of {each} each" if fewest > 1 else f"one worker of {each}"
        short = found.total < fewest
        has = f"room for {found.total}" if short else f"only {found.free} of {found.total} free"
        text = f"waiting for {wanted}: the cluster has {has}"
        if text != self._told:
            self._told = text
            process_log.note(self._run, "WARNING", text, event="waiting")


@dataclass(frozen=True)
class Room:
    """The room that a cluster has for workers.

    Attributes:
        free: the number of workers for which there is room now.
        total: the number of workers for which there would be room if nothing else ran.
        silent: the nodes that Ray takes for alive, but that do not answer.
    """

    free: int
    total: int
    silent: tuple[str, ...]


def room(needs: Resources, ours: bool = False) -> Room:
    """The room on the nodes of this process's cluster that answer.

    Args:
        needs: the resources that one worker takes, by Ray's names.
        ours: whether the places of this job's own workers count as free: these workers are dead,
            but Ray frees their places only when it starts others.
    """
    nodes = [
        node for node in ray.nodes() if node["Alive"] and _places(node["Resources"], needs) > 0
    ]
    with ThreadPoolExecutor(_PROBES) as pool:
        living = [node for node, yes in zip(nodes, pool.map(answers, nodes), strict=True) if yes]
    available = ray._private.state.available_resources_per_node()
    held = _held() if ours else Counter()
    return Room(
        free=sum(
            _places(available.get(node["NodeID"], {}), needs) + held[node["NodeID"]]
            for node in living
        ),
        total=sum(_places(node["Resources"], needs) for node in living),
        silent=tuple(node["NodeID"] for node in nodes if node not in living),
    )


def _held() -> Counter[str]:
    """The number of places that workers of this job hold, by node."""
    job = ray.get_runtime_context().get_job_id()
    return Counter(
        node
        for group, entry in ray.util.placement_group_table().items()
        # The identity of a group ends with the identity of its job.
        if group.endswith(job) and entry["state"] != "REMOVED"
        for node in entry["bundles_to_node_id"].values()
    )


def _places(resources: Resources, needs: Resources) -> int:
    """The number of workers whose needs fit into some resources."""
    # Ray counts resources in ten-thousandths.
    return min(int(resources.get(name, 0) / amount + 1e-4) for name, amount in needs.items())


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"
