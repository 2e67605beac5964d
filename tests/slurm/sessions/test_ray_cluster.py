"""The nodes of an allocation, and what ends with their parents; no Slurm."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import processes
from slurm.jobs.progress_file import progress_path
from slurm.sessions import ray_cluster, ray_node, session
from slurm.sessions.drive import Drive
from slurm.sessions.ray_cluster import Node
from slurm.sessions.session import Order
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


ORDERS = {
    "own": "127.0.0.1",
    "peer": "127.0.0.1",
    "head": "127.0.0.1:5",
    "cpus": 2,
    "gpu": False,
    "token": "secret",
}


def test_a_lost_host_is_missed_sooner_than_by_rays_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user or the site has set is left alone."""
    name = "RAY_health_check_timeout_ms"
    monkeypatch.delenv(name, raising=False)
    assert ray_node.variables(ORDERS)[name] == "3000"
    monkeypatch.setenv(name, "20000")
    assert ray_node.variables(ORDERS)[name] == "20000"


def test_the_token_is_in_no_word_and_no_variable() -> None:
    words = ray_node.command(ORDERS)
    values = ray_node.variables(ORDERS)
    assert "secret" not in " ".join([*words, *values.values()])
    file = values["RAY_AUTH_TOKEN_PATH"]
    assert os.stat(file).st_mode & 0o777 == 0o600


NO_PYTHON = """\
slurmstepd: error: execve(): /env/bin/python: No such file or directory
srun: error: n2: task 0: Exited with exit code 2
"""


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (NO_PYTHON, "execve(): /env/bin/python: No such file or directory"),
        (
            "Traceback (most recent call last):\nModuleNotFoundError: No module named 'ray'\n"
            "srun: error: n2: task 0: Exited with exit code 1\n",
            "ModuleNotFoundError: No module named 'ray'",
        ),
        (
            "Some Ray subprocesses exited unexpectedly:\n  raylet [exit code=-9]\n\n"
            "Remaining processes will be killed.\n\n"
            "srun: error: n2: task 0: Exited with exit code 1\n",
            "raylet [exit code=-9]",
        ),
        (
            "srun: error: Node failure on n2\nsrun: error: n2: task 0: Killed\n",
            "Node failure on n2",
        ),
        ("srun: error: n2: task 0: Killed\n", "n2: task 0: Killed"),
        ("x" * 5000, "x" * 300),
        ("", ""),
    ],
)
def test_the_reason_is_found_among_the_words_of_a_step(lines: str, reason: str) -> None:
    assert ray_cluster.last_words(lines.splitlines()) == reason


@pytest.mark.parametrize("missing", ["n1", "n2"])
def test_a_node_without_the_environment_is_named_with_the_reason(
    missing: str,
    tmp_path: Path,
    fake_command: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sentence with which the job ends names it, which is also that of its progress file."""
    fake_command("scontrol", f"cat <<'END'\n{_SHOWN}\nEND")
    fails = f"cat >&2 <<'END'\n{NO_PYTHON}\nEND\nexit 2"
    fake_command("srun", f"case $* in *{missing}*) {fails}\n;; esac\necho 10.0.0.1:5; cat")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    order = Order(kind="train", words=("train",), nodes=2, cpus=1, gpu=False, warning=60)
    found = session.session(tmp_path / "run", order)
    session.enter(found)
    progress = progress_path(found.path, "train-0")
    reason = f"Ray does not start on {missing}: execve(): /env/bin/python: No such file or "
    reason += "directory"
    with pytest.raises(RuntimeError, match=f"has died 4 times; the last time: {re.escape(reason)}"):
        Drive("train-0", str(found.path))()
    assert reason in progress.read_text()
    log = capsys.readouterr().err
    assert log.count(f"{reason}\n") == 4 and log.count("all is started anew") == 3
    assert log.count("srun: error") == 4


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
