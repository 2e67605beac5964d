"""The workers' process group under Ray Train, which listens on one address only.

Ray's own backend lets torch's rendezvous store listen on every interface, and lets gloo choose its
interface by the host's name, which fails between nodes where that name means 127.0.0.1. Here both
use the address by which Ray knows the node, which is loopback for a cluster of our own.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import RayTaskError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError

_listener: list[socket.socket] = []  # the listener of rank 0, between `listen` and `join`


@dataclass
class OneAddressConfig(TorchConfig):
    """`TorchConfig` whose process group listens on the node's own address."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _OneAddressBackend


class _OneAddressBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        backend = backend_config.backend or ("nccl" if gpus else "gloo")
        address, port = worker_group.execute_single(0, listen)
        joined = [
            worker_group.execute_single_async(
                rank,
                join,
                world_rank=rank,
                world=len(worker_group),
                address=address,
                port=port,
                backend=backend,
                timeout=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        try:
            ray.get(joined)
        except RayTaskError as error:  # another worker died meanwhile; Ray Train tries again
            words = str(error).strip().splitlines()[-1]
            raise WorkerGroupStartupFailedError(f"workers could not connect: {words}") from error

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # A worker that died cannot leave the group, and the others must not wait for it.
        ray.wait(worker_group.execute_async(leave), num_returns=len(worker_group), timeout=2)


def listen() -> tuple[str, int]:
    """Open the port at which a group meets, in the process that will be rank 0 of the group."""
    address = ray.util.get_node_ip_address()
    listener = socket.create_server((address, 0))
    _listener.append(listener)
    return address, listener.getsockname()[1]


def join(world_rank: int, world: int, address: str, port: int, backend: str, timeout: int) -> None:
    """Become a rank of the group that meets at a port. The timeout is in seconds."""
    interface = _interface(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    store = dist.TCPStore(
        address,
        port,
        world,
        is_master=world_rank == 0,
        timeout=timedelta(seconds=timeout),
        master_listen_fd=_listener.pop().detach() if world_rank == 0 else None,
    )
    dist.init_process_group(
        backend, store=store, rank=world_rank, world_size=world, timeout=timedelta(seconds=timeout)
    )


def leave() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _interface(address: str) -> str | None:
    """The name of the network interface that has an address."""
    import psutil  # this is Ray's own copy, which only `import ray` makes visible

    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == address for found in addresses):
            return str(name)
    return None
