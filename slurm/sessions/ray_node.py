"""Ray on one node of an allocation: the program of a step, `python -m slurm.sessions.ray_node`.

The program's first line of input says what to start, as JSON:

    own    the address of this node, a number or a name
    peer   the address of another node
    head   the address at which the cluster's head listens, ADDRESS:PORT; null on the head's node
    cpus   the number of CPUs that Ray may use
    gpu    whether Ray may use the step's GPUs
    token  the cluster's token

When Ray runs and is known to the head, the program prints the head's address as its one line of
output. When the input ends, every process that was started here is killed, and their directory is
removed.
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

from cluster import ray_runtime, workplace
from gencomp.errors import InputError
from slurm.sessions import child_processes

_POLL_SECONDS = 0.1
# How long Ray's head waits for an answer of a node before it asks again; a node that misses five is
# dead. Ray's own 10 s make it a minute from a power cut on, as nobody refuses the connection.
_HEALTH_TIMEOUT_MS = 3000
_TAIL_CHARACTERS = 4000


def main() -> int:
    """Run Ray until the input ends (exit code 0) or until Ray ends (1); 2: it has no place."""
    # Only the job's first process decides when Ray ends.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
    child_processes.adopt()
    orders = json.loads(sys.stdin.readline() or "null")
    if orders is None:
        return 0
    try:
        workplace.remove_leftovers()
        workplace.directory()
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    said = workplace.directory() / "said"
    address_file = workplace.ray_directory() / "ray_current_cluster"
    with said.open("w", encoding="utf-8") as out:
        ray = subprocess.Popen(
            command(orders),
            env=variables(orders),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        told = False
        while not _input_ends():
            if ray.poll() is not None:
                words = said.read_text(errors="replace")[-_TAIL_CHARACTERS:]
                print(f"Ray has ended on {socket.gethostname()}: {words}", file=sys.stderr)
                return 1
            if not told and (address := _head_address(address_file)) is not None:
                print(address, flush=True)
                told = True
        return 0
    finally:
        child_processes.kill_all()


def command(orders: dict[str, Any]) -> list[str]:
    """The command `ray start`, with ports that the system chooses, as jobs may share a host."""
    words = ["--block", "--disable-usage-stats", f"--temp-dir={workplace.ray_directory()}"]
    # Neither the monitor nor the log monitor is of use here, and each is a process on every node.
    words += ["--no-monitor", "--include-log-monitor=false"]
    words += [f"--node-ip-address={own_address(orders['own'], orders['peer'])}"]
    words += [f"--num-cpus={orders['cpus']}", *([] if orders["gpu"] else ["--num-gpus=0"])]
    words += [f"--object-store-memory={ray_runtime.OBJECT_STORE_BYTES}"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    if orders["head"] is None:
        words += ["--head", "--port=0", "--include-dashboard=false"]
    else:
        words += [f"--address={orders['head']}"]
    return [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", *words]


def variables(orders: dict[str, Any]) -> dict[str, str]:
    """The environment variables of Ray's processes, including the workers."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(workplace.private_file("token", orders["token"])),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_START_HOOK": f"{__package__}.ray_node.{without_client_server.__name__}",
    }
    if orders["head"] is not None:
        own["RAY_ADDRESS"] = orders["head"]
    health = {"RAY_health_check_timeout_ms": str(_HEALTH_TIMEOUT_MS)}
    return {**ray_runtime.SAFE_DEFAULTS, **health, **inherited, **own}


def without_client_server(parameters: Any, head: bool) -> None:
    """Switch off a server whose port two jobs on a host cannot share. `ray start` calls this."""
    parameters.ray_client_server_port = None


def own_address(own: str, peer: str) -> str:
    """The numerical address by which other nodes reach this one.

    A number that Slurm knows belongs to the cluster's network. A name is not looked up here,
    because hosts often take their own name for 127.0.1.1. Instead the address is that from which
    this node reaches another one.
    """
    with suppress(ValueError):
        return str(ipaddress.ip_address(own))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))  # nothing is sent
        return str(probe.getsockname()[0])


def _input_ends() -> bool:
    """Wait a moment for the end of the input, and say whether it has come."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], _POLL_SECONDS)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def _head_address(path: Path) -> str | None:
    """The head's address, from the file that `ray start` writes when its node is registered."""
    try:
        address = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return address if address.rpartition(":")[2].isdecimal() else None


if __name__ == "__main__":
    sys.exit(main())
