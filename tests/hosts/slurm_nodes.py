"""A Slurm across the hosts of a test."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hosts.hosts import Hosts
from tests.processes import Process, descendants
from tests.slurm_cluster import Cluster, configuration, processes
from tests.slurm_cluster.configuration import Place

_HEAD = "n1"
_CONTROLLER_PORT, _NODE_PORT = 6817, 6818


@dataclass(frozen=True)
class SlurmNodes(Cluster):
    """A Slurm with its controller on n1; the other hosts are its nodes, under their own names.

    Each host has a munge of its own with the common key, and its daemons' files in its own /run.
    Only the configuration and the logs are in the directory, which all hosts must share. Slurm
    knows the hosts by the numbers of their addresses, so that no host need know another's name.

    A node that has lost its power comes back by `Hosts.boot` and `faults.revive`.
    """

    hosts: Hosts
    _munge_key: bytes = field(default_factory=lambda: secrets.token_bytes(1024), repr=False)

    @property
    def own(self) -> Path:
        return Path("/run/slurm")

    @property
    def variables(self) -> dict[str, str]:
        """What a command on a host needs to meet this Slurm."""
        return {"SLURM_CONF": str(self.slurm_conf)}

    def be_patient(self) -> None:
        """From now on a node is missed as late as by default, after five minutes."""
        text = self.slurm_conf.read_text(encoding="utf-8")
        text = text.replace("SlurmdTimeout=10\n", "SlurmdTimeout=300\n")
        self.slurm_conf.write_text(text, encoding="utf-8")
        self.run("scontrol", "reconfigure")

    def start_node(self, node: str) -> None:
        self._start_munged(f"munged.{node}")
        super().start_node(node)

    def of_node(self, node: str) -> set[Process]:
        inside = set(self.hosts.processes(node))
        return {process for process in descendants(0) if process.pid in inside}

    def process(self, node: str, pid: int) -> Process | None:
        """The process that has a number on a host; None if it has ended."""
        number = f"{pid}"
        return next((p for p in self.of_node(node) if _numbers(p)[-1:] == [number]), None)

    def _lay_out(self, nodes: int) -> None:
        hosts = self.hosts
        places = {name: Place(name, hosts.address(name), _NODE_PORT) for name in hosts.names}
        controller = places.pop(_HEAD)._replace(port=_CONTROLLER_PORT)
        configuration.write_shared(self.directory, self.own, controller, places)

    def _start_munged(self, daemon: str) -> None:
        host = _host(daemon)
        own = self.hosts.path(host, self.own)
        if not own.exists():
            configuration.write_own(own, [host], self._munge_key)
        super()._start_munged(daemon)

    def _daemon(self, name: str) -> set[Process]:
        program = name.partition(".")[0]
        inside = self.of_node(_host(name))
        return {process for process in inside if processes.program(process) == program}

    def _call(
        self, command: Sequence[str], daemon: str = "slurmctld", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        options.setdefault("capture_output", False)
        return self.hosts.run(_host(daemon), *command, check=False, env=self.variables, **options)


def _numbers(process: Process) -> list[str]:
    """The numbers of a process, from this machine's to that on its own host; none if it ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return []
    return status.partition("NSpid:")[2].partition("\n")[0].split()


def _host(daemon: str) -> str:
    """The host of a daemon, such as slurmd.n2."""
    return daemon.partition(".")[2] or _HEAD
