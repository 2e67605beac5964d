"""The workers' process group under Ray Train, which listens on one address only.

Ray's own backend lets torch's rendezvous store listen on every interface, and lets gloo choose its
interface by the host's name, which fails between nodes where that name means 127.0.0.1. Here both
use the address by which Ray knows the node, which is loopback for a cluster of our own. Before the
workers meet they try these addresses, since ranks would wait for each other without a word.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import RayTaskError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

from cluster.ray_train.nodes import Place, listens

# The time for all ranks to meet, in seconds. All have imported torch before it begins.
_MEETING_SECONDS = 60
_REACH_SECONDS = 5.0
_PROBES = 32
_BACKLOG = 4096  # every host may knock before anybody opens

_listener: list[socket.socket] = []  # this process's, between `listen` and `join`


class UnreachableWorkers(Exception):
    """Raised where living workers cannot reach each other by the addresses that Ray knows."""


@dataclass
class OneAddressConfig(TorchConfig):
    """A `TorchConfig` whose process group listens on the node's own address."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _OneAddressBackend


class _OneAddressBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        backend = backend_config.backend or ("nccl" if gpus else "gloo")
        try:
            places = ray.get(worker_group.execute_async(listen))
            _require_reach(worker_group, places)
            joined = [
                worker_group.execute_single_async(
                    rank,
                    join,
                    world_rank=rank,
                    world=len(worker_group),
                    first=places[0],
                    backend=backend,
                    timeout=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
            ray.get(joined)
        except RayTaskError as error:  # another worker died meanwhile; Ray Train tries again
            words = str(error).strip().splitlines()[-1]
            raise WorkerGroupStartupFailedError(f"workers could not connect: {words}") from error

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # A worker that died cannot leave the group, and the others must not wait for it.
        ray.wait(worker_group.execute_async(leave), num_returns=len(worker_group), timeout=2)


def _require_reach(worker_group: Any, places: Sequence[Place]) -> None:
    """Require that one worker of each host reaches one of each other host.

    Raises:
        UnreachableWorkers: it does not, and the other one lives.
        RayError: a worker died.
    """
    ranks = list({place.address: rank for rank, place in enumerate(places)}.values())
    if len(ranks) == 1:
        return
    others = [places[rank] for rank in ranks]
    calls = [worker_group.execute_single_async(rank, unreached, others) for rank in ranks]
    missed = {
        (places[rank].host, to)
        for rank, found in zip(ranks, ray.get(calls), strict=True)
        for to in found
    }
    if not missed:
        return
    # A host that has just been lost cannot be reached either; asking its worker shows that.
    ray.get(worker_group.execute_async(_lives))
    here, there = min(missed)
    raise UnreachableWorkers(
        f"{here} does not reach {there.host} at {there.address}, the address by which Ray knows it:"
        f" start Ray on {there.host} with --node-ip-address=ADDRESS, one that all nodes reach"
    )


def listen() -> Place:
    """Open the port at which others reach this process, until it joins a group."""
    address = ray.util.get_node_ip_address()
    _close_listener()
    _listener.append(socket.create_server((address, 0), backlog=_BACKLOG))
    return Place(platform.node(), address, _listener[0].getsockname()[1])


def unreached(places: Sequence[Place]) -> list[Place]:
    """The places of others that this process cannot reach."""

    def is_reached(place: Place) -> bool:
        return listens(place.address, place.port, _REACH_SECONDS)

    with ThreadPoolExecutor(_PROBES) as pool:
        reached = list(pool.map(is_reached, places))
    return [place for place, yes in zip(places, reached, strict=True) if not yes]


def join(world_rank: int, world: int, first: Place, backend: str, timeout: float) -> None:
    """Become a rank of the group that meets at the place of rank 0.

    Args:
        timeout: the longest time of a collective call, in seconds.

    Raises:
        ConnectionError: the ranks have not met within a minute.
    """
    interface = _interface(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    descriptor = _without_callers(_listener.pop()).detach() if world_rank == 0 else None
    _close_listener()
    limit = timedelta(seconds=timeout)
    try:
        store = dist.TCPStore(
            first.address,
            first.port,
            world,
            is_master=world_rank == 0,
            timeout=timedelta(seconds=_MEETING_SECONDS),
            master_listen_fd=descriptor,
        )
        dist.init_process_group(
            backend, store=store, rank=world_rank, world_size=world, timeout=limit
        )
    except dist.DistError as error:
        raise ConnectionError(
            f"rank {world_rank} on {platform.node()} did not meet all {world} ranks"
            f" at {first.address}:{first.port} on {first.host} within {_MEETING_SECONDS} s"
        ) from error
    store.set_timeout(limit)


def leave() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _without_callers(listener: socket.socket) -> socket.socket:
    """A listener after those who only knocked have been turned away."""
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
    return listener


def _close_listener() -> None:
    while _listener:
        _listener.pop().close()


def _lives() -> None:
    """Nothing: a call that returns shows that its worker lives."""


def _interface(address: str) -> str | None:
    """The name of the network interface that has an address."""
    import psutil  # this is Ray's own copy, which only `import ray` makes visible

    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return str(name)
    return None
