"""A Ray cluster over the nodes of this job's allocation.

Each node runs one step, `python -m slurm.sessions.ray_node`, which ends when its input ends. So no
part of the cluster outlives this process, and a step can end no other Ray than its own. The head
runs on this node, beside the driver. A token that is new for each attempt is sent to the nodes
through the steps' input: it is on no command line, in no variable and in no file that others can
read.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from cluster import ray_runtime, workplace
from slurm.sessions import child_processes
from slurm.sessions.error_stream import ErrorStream

# The time for a step and its Ray to start, since Python starts slowly from a busy file system.
_START_SECONDS = 300.0
_LONGEST_WORDS = 300
# What comes before the reason in a line, and the lines with which srun and Ray follow it.
_SPEAKER = re.compile(r"((slurmstepd|srun)[^:]*: )?(error: )?")
_FOLLOWS = re.compile(
    r"srun: (error: .*: (tasks? .*: )?(Exited|Killed|Terminated)|Terminating|Force)"
    r"|Remaining processes will be killed"
)


class Node(NamedTuple):
    """A node of the allocation.

    Attributes:
        address: the node's address, a number or a name, as Slurm knows it.
    """

    name: str
    address: str


class Step:
    """The step that keeps Ray on one node.

    Args:
        node: the node.
        cpus: the number of CPUs that the allocation has on the node.
    """

    def __init__(self, node: Node, cpus: int) -> None:
        self.node = node
        command = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node.name}"]
        # A site may forbid steps to inherit the variables of a job, or srun to inherit its CPUs.
        command += [f"--cpus-per-task={cpus}", "--export=ALL", "--mpi=none"]
        with child_processes.deaf():
            self._process = subprocess.Popen(
                [*command, sys.executable, "-P", "-u", "-m", "slurm.sessions.ray_node"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        assert self._process.stderr is not None
        self._errors = ErrorStream(self._process.stderr)

    def order(self, **orders: object) -> None:
        """Tell the step, once, what to start; see `slurm.sessions.ray_node`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `address` will report the fault
            self._process.stdin.write(json.dumps(orders) + "\n")
            self._process.stdin.flush()

    def address(self, deadline: float) -> str:
        """The address of the head, as soon as the step's Ray has joined it.

        Args:
            deadline: the deadline by the monotonic clock.

        Raises:
            RuntimeError: Ray does not start on the node.
        """
        assert self._process.stdout is not None
        left = max(deadline - time.monotonic(), 0)
        if select.select([self._process.stdout], [], [], left)[0]:
            if line := self._process.stdout.readline().strip():
                return line
            raise RuntimeError(f"Ray does not start on {self.node.name}{self.last_words()}")
        raise RuntimeError(f"Ray does not start on {self.node.name} in {_START_SECONDS:.0f} s")

    def lives(self) -> bool:
        return not child_processes.has_ended(self._process.pid)

    def last_words(self) -> str:
        """The last line of a step that has ended, after a colon; empty if it has said nothing."""
        said = last_words(self._errors.lines())
        return f": {said}" if said else ""

    def ask_to_end(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self, deadline: float) -> None:
        """End the step, and kill it if it has not ended in time.

        Args:
            deadline: the deadline by the monotonic clock.
        """
        self.ask_to_end()
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:  # Slurm ends all other processes with the job
            self._process.kill()
            self._process.wait()


class RayCluster(NamedTuple):
    """Ray on all nodes of the allocation.

    Attributes:
        steps: the steps of the nodes, that of the head first.
        variables: the environment variables for a driver that is to join the cluster.
    """

    steps: list[Step]
    variables: dict[str, str]

    def lost(self) -> str:
        """A sentence with the nodes on which Ray has ended, and why; empty if there is none."""
        ended = [step for step in self.steps if not step.lives()]
        nodes = [f"{step.node.name}{step.last_words()}" for step in ended]
        return f"Ray has ended on {', on '.join(nodes)}" if nodes else ""


@contextmanager
def ray_cluster(cpus: int, gpu: bool, end_seconds: float) -> Iterator[RayCluster]:
    """Ray on all nodes of the allocation while the body runs.

    Args:
        cpus: the number of CPUs of each node.
        gpu: whether Ray may use the GPUs that Slurm has given the job.
        end_seconds: the time in which the whole cluster must end, in seconds.

    Raises:
        RuntimeError: Ray does not start on a node.
    """
    nodes = allocated()
    deadline = time.monotonic() + _START_SECONDS
    token = secrets.token_hex(32)
    steps: list[Step] = []
    try:
        steps += [Step(node, cpus) for node in nodes]
        head, *others = steps
        shared = {"cpus": cpus, "gpu": gpu, "token": token}
        head.order(own=head.node.address, peer=nodes[-1].address, head=None, **shared)
        address = head.address(deadline)
        peer = address.rpartition(":")[0]
        for step in others:
            step.order(own=step.node.address, peer=peer, head=address, **shared)
        for step in others:
            step.address(deadline)
        yield RayCluster(steps, _variables(address, token))
    finally:
        # The head ends last, because the other nodes take their leave of it.
        until = time.monotonic() + end_seconds
        for step in steps[1:]:
            step.ask_to_end()
        for step in reversed(steps):
            step.end(until)


def allocated() -> list[Node]:
    """The nodes of this job, this one first.

    Raises:
        RuntimeError: the controller does not answer.
    """
    try:
        text = subprocess.run(
            ["scontrol", "show", "node", os.environ["SLURM_JOB_NODELIST"], "--oneliner"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError) as error:
        raise RuntimeError(f"scontrol does not tell the nodes' addresses: {error}") from None
    return ordered(parse_nodes(text), os.environ["SLURMD_NODENAME"])


def last_words(lines: Sequence[str]) -> str:
    """The reason why a step has ended, in one line, from the end of its error stream."""
    said = [line.strip() for line in lines if line.strip()]
    own = [line for line in said if not _FOLLOWS.match(line)]
    return _SPEAKER.sub("", (own or said or [""])[-1])[:_LONGEST_WORDS]


def parse_nodes(text: str) -> list[Node]:
    """The nodes in the output of `scontrol show node --oneliner`."""
    found = []
    for line in text.splitlines():
        values: dict[str, str] = dict(re.findall(r"\b(NodeName|NodeAddr)=(\S+)", line))
        if "NodeName" in values:
            found.append(Node(values["NodeName"], values.get("NodeAddr", values["NodeName"])))
    return found


def ordered(nodes: Sequence[Node], first: str) -> list[Node]:
    return sorted(nodes, key=lambda node: node.name != first)


def _variables(address: str, token: str) -> dict[str, str]:
    return {
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(workplace.private_file("cluster-token", token)),
        ray_runtime.COMPLETE: "1",
        # A driver that listens on loopback only finds no other node.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    }
