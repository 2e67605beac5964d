"""A Ray cluster of several nodes that are all this machine, which nobody here started.

    with RayCluster() as cluster:
        node = cluster.add(cpus=1)          # the head has no CPUs: nothing trains there
        subprocess.Popen(command, env=ENVIRONMENT | cluster.environment)
        cluster.remove(node)                # kill -9 of all that runs on it
        cluster.workers()                   # the training workers that run on it now

It listens on loopback, asks for a token of its own, runs no dashboard, lives in a short temporary
directory, and dies with the process that made it, however that ends. It takes some seconds to start
and two more for each node.

This file is also the program that holds the nodes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.processes import ENVIRONMENT, Process, descendants, gone, kill
from tests.waiting import wait_for

_OBJECT_STORE_BYTES = 80 * 2**20


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        id: by which Ray knows it.
        cpus: that it offers.
        roots: its own processes; what works there runs below them.
    """

    id: str
    cpus: int
    roots: frozenset[Process]

    def processes(self) -> set[Process]:
        """All that lives there now."""
        below = {process for root in self.roots for process in descendants(root.pid)}
        return {process for process in self.roots | below if process.alive()}


class RayCluster:
    """A cluster for as long as the `with` block lasts.

    Attributes:
        environment: what a driver needs to join it: RAY_ADDRESS, RAY_AUTH_MODE and
            RAY_AUTH_TOKEN_PATH.
        directory: for its RAY_TMPDIR, where it leaves its address for whoever looks around.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        (self.directory / "ray").mkdir()
        token = self.directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self._errors = self.directory / "errors"
        with self._errors.open("w") as errors:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.ray_clusters"],
                env=ENVIRONMENT
                | self.environment
                | {
                    "RAY_TMPDIR": str(self.directory),
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback only
                    "RAY_USAGE_STATS_ENABLED": "0",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            self.environment["RAY_ADDRESS"] = self._answer()["address"]
        except BaseException:
            self.close()
            raise

    def add(self, cpus: int) -> Node:
        """Start a node, and wait until it belongs to the cluster."""
        assert self._keeper.stdin is not None
        print(cpus, file=self._keeper.stdin, flush=True)
        said = self._answer()
        roots = frozenset(p for p in descendants(self._keeper.pid) if p.pid in said["pids"])
        return Node(said["id"], cpus, roots)

    def remove(self, node: Node) -> None:
        """kill -9 of all processes of a node."""

        def killed() -> bool:
            left = node.processes()
            for process in left:
                kill(process)
            return not left

        assert wait_for(killed), [p.command() for p in node.processes()]

    def processes(self) -> set[Process]:
        """All of the cluster, and all that works on it."""
        return descendants(self._keeper.pid)

    def workers(self) -> list[Process]:
        """Training workers that live on it now."""
        return sorted(p for p in self.processes() if "RayTrainWorker" in p.command())

    def close(self) -> None:
        """kill -9 of everything."""
        left = self.processes()
        self._keeper.kill()
        self._keeper.wait()
        for process in left:
            kill(process)
        gone(left)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        assert line, self._errors.read_text()
        return dict(json.loads(line))


def _keep(answers: int) -> None:
    """Hold a cluster. Each line of the input asks for a node with so many CPUs, its end for ours.

    Args:
        answers: the file descriptor that they go to, a line each.
    """
    from ray.cluster_utils import Cluster

    def say(**values: Any) -> None:
        os.write(answers, (json.dumps(values) + "\n").encode())

    common = {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    say(address=cluster.address)
    for line in sys.stdin:
        node = cluster.add_node(num_cpus=int(line), **common)
        started = [one.process.pid for kind in node.all_processes.values() for one in kind]
        say(id=node.node_id, pids=started)
    cluster.shutdown()


if __name__ == "__main__":
    own_output = os.dup(1)
    os.dup2(2, 1)  # what Ray prints
    _keep(own_output)
