"""Ray on one node of an allocation: the program of a step, `python -m slurm.sessions.ray_node`.

Its first line of input says what to start, as JSON:

    own    address of this node, a number or a name
    peer   address of another node
    head   where the cluster's head listens, ADDRESS:PORT; null on the head's node
    cpus   that Ray may use
    gpu    whether Ray may use the step's GPUs
    token  of the cluster

When Ray runs and is known to the head, the head's address is the one line of output. When the input
ends, every process that was started here is killed and their directory removed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import ray_runtime
from slurm.sessions import child_processes

_POLL_SECONDS = 0.1
_LAST_WORDS = 4000  # characters


def main() -> int:
    """The exit code: 0 when the input has ended, 1 when Ray has."""
    # The job's first process alone decides when Ray ends.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
    child_processes.adopt()
    orders = json.loads(sys.stdin.readline() or "null")
    if orders is None:
        return 0
    ray_runtime.remove_leftovers()
    home = ray_runtime.workplace()
    said = home / "said"
    with said.open("w") as out:
        ray = subprocess.Popen(
            command(orders, home),
            env=variables(orders, home),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        told = False
        while not _input_ends():
            if ray.poll() is not None:
                words = said.read_text(errors="replace")[-_LAST_WORDS:]
                print(f"Ray has ended on {socket.gethostname()}: {words}", file=sys.stderr)
                return 1
            if not told and (address := _met(home / "ray_current_cluster")) is not None:
                print(address, flush=True)
                told = True
        return 0
    finally:
        child_processes.kill_all()


def command(orders: dict[str, Any], home: Path) -> list[str]:
    """`ray start` with ports that the system chooses: jobs, and emulated nodes, share hosts."""
    words = ["--block", "--disable-usage-stats", f"--temp-dir={home}"]
    # Neither is of use here, and each is a process on every node.
    words += ["--no-monitor", "--include-log-monitor=false"]
    words += [f"--node-ip-address={own_address(orders['own'], orders['peer'])}"]
    words += [f"--num-cpus={orders['cpus']}", *([] if orders["gpu"] else ["--num-gpus=0"])]
    words += [f"--object-store-memory={ray_runtime.OBJECT_STORE_BYTES}"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    if orders["head"] is None:
        words += ["--head", "--port=0", "--include-dashboard=false"]
    else:
        words += [f"--address={orders['head']}"]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", *words]


def variables(orders: dict[str, Any], home: Path) -> dict[str, str]:
    """Those of Ray's processes, the workers' too."""
    token = home / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(orders["token"])
    inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_START_HOOK": f"{__package__}.ray_node.{without_client_server.__name__}",
    }
    if orders["head"] is not None:
        own["RAY_ADDRESS"] = orders["head"]
    return {**ray_runtime.SAFE_DEFAULTS, **inherited, **own}


def without_client_server(parameters: Any, head: bool) -> None:
    """Called by `ray start`: a port that nobody uses, and that two jobs on a host cannot share."""
    parameters.ray_client_server_port = None


def own_address(own: str, peer: str) -> str:
    """The number by which other nodes reach this one.

    A number that Slurm knows is that of the cluster's network. A name is not looked up here: hosts
    often take their own for 127.0.1.1. So the address is that of the route to another node.
    """
    with suppress(ValueError):
        return str(ipaddress.ip_address(own))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))  # nothing is sent
        return str(probe.getsockname()[0])


def _input_ends() -> bool:
    """Wait a little; whether there is no more input."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], _POLL_SECONDS)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def _met(path: Path) -> str | None:
    """The head's address, in the file that `ray start` writes when its node is registered."""
    try:
        address = path.read_text().strip()
    except OSError:
        return None
    return address if address.rpartition(":")[2].isdecimal() else None


if __name__ == "__main__":
    sys.exit(main())
