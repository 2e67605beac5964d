"""The nodes of an allocation, and what ends with their parents; no Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from cluster import processes
from slurm.sessions import ray_cluster, ray_node
from slurm.sessions.ray_cluster import Node
from tests.processes import Process, descendants, gone
from tests.waiting import PATIENCE, wait_for

_SHOWN = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=1 NodeAddr=10.0.0.1 NodeHostName=host Version=22.05.8 OS=x
NodeName=n2 Arch=x86_64 CoresPerSocket=1 NodeAddr=node2.cluster NodeHostName=host State=DOWN
"""


def test_nodes_as_slurm_knows_them() -> None:
    nodes = ray_cluster.parse_nodes(_SHOWN)
    assert nodes == [Node("n1", "10.0.0.1"), Node("n2", "node2.cluster")]
    assert ray_cluster.ordered(nodes, "n2") == nodes[::-1]


def test_a_name_is_not_looked_up_on_its_own_host() -> None:
    assert ray_node.own_address("127.0.1.2", "127.0.1.1") == "127.0.1.2"
    assert ray_node.own_address("a-name-that-nobody-knows", "127.0.0.1") == "127.0.0.1"


def test_the_token_is_in_no_word_and_no_variable() -> None:
    orders = {
        "own": "127.0.0.1",
        "peer": "127.0.0.1",
        "head": "127.0.0.1:5",
        "cpus": 2,
        "gpu": False,
        "token": "secret",
    }
    words = ray_node.command(orders)
    values = ray_node.variables(orders)
    assert "secret" not in " ".join([*words, *values.values()])
    file = values["RAY_AUTH_TOKEN_PATH"]
    assert os.stat(file).st_mode & 0o777 == 0o600


_FAMILY = """
import subprocess, sys, time
from cluster import processes
from slurm.sessions import child_processes as children
children.adopt()
# A child that leaves a grandchild behind.
code = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
with children.deaf():
    subprocess.run([sys.executable, "-c", code], check=True)
    deaf = subprocess.Popen(["sleep", "600"])
deaf.terminate()
print(deaf.pid, flush=True)
sys.stdin.readline()
print(children.has_ended(deaf.pid), flush=True)
children.kill_all()
print(children.has_ended(deaf.pid), flush=True)
"""


def test_children_are_deaf_and_none_is_left() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdout.readline()
    family: set[Process] = descendants(parent.pid)
    assert len(family) == 2
    out, _ = parent.communicate("\n", timeout=PATIENCE)
    assert out.split() == ["False", "True"]
    assert gone(family)


def test_a_node_ends_with_its_input_and_not_by_slurms_signals() -> None:
    before = set(processes.own_children())
    node = subprocess.Popen(
        [sys.executable, "-m", "slurm.sessions.ray_node"], stdin=subprocess.PIPE, text=True
    )
    status = f"/proc/{node.pid}/status"

    def blocks() -> bool:
        lines = dict(
            line.split(":", 1) for line in open(status, encoding="utf-8").read().splitlines()
        )
        return bool(int(lines["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1)

    assert wait_for(blocks)
    node.send_signal(signal.SIGTERM)
    node.send_signal(signal.SIGUSR2)
    assert not wait_for(lambda: node.poll() is not None, 0.2)
    node.communicate(timeout=PATIENCE)
    assert node.returncode == 0
    assert set(processes.own_children()) <= before
