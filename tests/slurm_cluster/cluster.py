"""A cluster in its directory: start it, look at it, stop it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import Process
from tests.slurm_cluster import configuration, processes
from tests.waiting import PATIENCE, wait_for

MEND = "apt-get install --no-install-recommends slurm-wlm munge"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
# Where Debian puts daemons; not on every user's path.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Variables of Slurm's commands, of an outer job or of the user's habits.
_FOREIGN = ("SLURM", "SBATCH", "SALLOC", "SRUN", "SQUEUE", "SINFO", "SACCT", "SCANCEL", "SCONTROL")
# A socket's path has at most 107 bytes; below the directory up to 40 are ours.
_LONGEST_DIRECTORY = 67


def missing_programs() -> list[str]:
    """What would have to be installed before a cluster can start."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_path(os.environ)) is None]


def short_directory(name: str) -> Path:
    """A directory for temporary files whose sockets have short enough paths."""
    parent = Path(tempfile.gettempdir()).resolve()
    return (parent if len(f"{parent}/{name}") <= _LONGEST_DIRECTORY else Path("/tmp")) / name


@dataclass(frozen=True)
class Cluster:
    """A controller, its munge and its nodes; nothing is kept in memory, all in the directory."""

    directory: Path

    @property
    def own(self) -> Path:
        """What each host has for itself, by its path there; this machine is the only host."""
        return self.directory

    @property
    def slurm_conf(self) -> Path:
        return self.directory / "etc" / "slurm.conf"

    @property
    def nodes(self) -> list[str]:
        return configuration.node_names(self.slurm_conf)

    @property
    def exists(self) -> bool:
        """Whether the directory is laid out; its daemons may run or not."""
        return configuration.is_laid_out(self.directory)

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Variables of a process that is to meet this Slurm and no other."""
        kept = {name: value for name, value in base.items() if not name.startswith(_FOREIGN)}
        return {**kept, "SLURM_CONF": str(self.slurm_conf), "PATH": _path(base)}

    def up(self, nodes: int = 2) -> None:
        """Start what does not run; a cluster that exists keeps its number of nodes.

        Raises:
            RuntimeError: a daemon does not start, with the end of its log.
        """
        if not self.exists:
            self._lay_out(nodes)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self._wait_until_ready()

    def down(self) -> None:
        """End every process of the cluster and of its jobs, and remove the directory."""
        if not self.exists:
            return
        while left := self.processes():
            processes.stop(left)
        shutil.rmtree(self.directory)

    def settle(self) -> None:
        """No jobs, and every node and daemon at work: what a test may expect of a cluster."""
        self.up()
        if jobs := self.run("squeue", "-h", "-r", "-o", "%i").split():
            self.run("scancel", *jobs)
        for node, state in self.states().items():
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume")
        calm = wait_for(lambda: set(self.states().values()) == {"idle"}, pause=0.05)
        if not calm:
            raise RuntimeError(f"the cluster does not settle: {self.run('squeue')}")

    def processes(self) -> set[Process]:
        """Everything that runs: daemons, stepds and jobs."""
        found = self.controller() | self._daemon("munged")
        return found.union(*map(self.of_node, self.nodes))

    def controller(self) -> set[Process]:
        return self._daemon("slurmctld")

    def of_node(self, node: str) -> set[Process]:
        """The processes of one emulated node."""
        return processes.of_node(self._log(f"slurmd.{node}"), self.slurm_conf, node)

    def start_controller(self) -> None:
        self._start_munged("munged")
        self._start("slurmctld", ["slurmctld"])

    def start_node(self, node: str) -> None:
        self._start(f"slurmd.{node}", ["slurmd", "-N", node])

    def states(self) -> dict[str, str]:
        """The state of each node; empty while no controller answers. A * ends that of a node whose
        daemon does not answer.
        """
        try:
            # One partition, or nodes are listed once for each.
            lines = self.run("sinfo", "-h", "-p", "main", "-N", "-o", "%N %T", seconds=2)
        except (RuntimeError, subprocess.TimeoutExpired):
            return {}
        return dict(line.split() for line in lines.splitlines())

    def run(self, *command: str, seconds: float = PATIENCE) -> str:
        """What a client command prints.

        Raises:
            RuntimeError: it fails.
            TimeoutExpired: no controller answers.
        """
        done = self._call(command, capture_output=True, timeout=seconds)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _lay_out(self, nodes: int) -> None:
        if len(str(self.directory)) > _LONGEST_DIRECTORY:
            raise RuntimeError(f"{self.directory} is too long a path for the sockets below it")
        if self.directory.exists():
            raise RuntimeError(f"{self.directory} holds something else; remove it")
        configuration.write(self.directory, nodes)

    def _wait_until_ready(self) -> None:
        def ready() -> bool:
            states = self.states()
            unheard = [s for s in states.values() if s.endswith("*") or s == "unknown"]
            return len(states) == len(self.nodes) and not unheard

        if not wait_for(ready, pause=0.02):
            raise RuntimeError(f"the cluster does not start: {self._last_words()}")

    def _start(self, daemon: str, command: list[str]) -> None:
        if self._daemon(daemon):
            return
        # A pipe would stay open as long as the daemon lives.
        with (self.directory / "log" / f"{daemon}.start").open("w") as words:
            done = self._call(command, daemon, stdout=words, stderr=words, timeout=PATIENCE)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} does not start: {self._last_words()}")

    def _start_munged(self, daemon: str) -> None:
        munge = self.own / "munge"
        command = [
            "munged",
            f"--key-file={munge / 'key'}",
            f"--seed-file={munge / 'seed'}",
            f"--socket={self.own / 'run' / 'munge.sock'}",
            f"--pid-file={self.own / 'run' / 'munged.pid'}",
            f"--log-file={self._log(daemon)}",
        ]
        self._start(daemon, command)

    def _daemon(self, name: str) -> set[Process]:
        """The processes of a daemon: one, or none if it does not run."""
        return processes.holding(self._log(name))

    def _call(
        self, command: Sequence[str], daemon: str = "slurmctld", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end on the host of a daemon, which is this machine."""
        common: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True, "check": False}
        return subprocess.run(command, env=self.environment(), **common, **options)

    def _log(self, daemon: str) -> Path:
        return self.directory / "log" / f"{daemon}.log"

    def _last_words(self) -> str:
        logs = sorted((self.directory / "log").iterdir())
        texts = ((log.name, log.read_text(errors="replace").splitlines()[-4:]) for log in logs)
        return "\n".join(f"{name}: {line}" for name, lines in texts for line in lines)


def _path(variables: Mapping[str, str]) -> str:
    return os.pathsep.join(filter(None, [variables.get("PATH"), _SBIN]))
