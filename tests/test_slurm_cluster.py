"""The Slurm that the tests run on: it starts, breaks, mends and ends as its package says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.processes import Process, gone
from tests.slurm_cluster import Cluster, __main__, faults, missing_programs, processes
from tests.slurm_cluster.cluster import short_directory
from tests.slurm_cluster.sessions import session_directory, sessions_left_behind
from tests.waiting import wait_for

slurm = pytest.mark.slurm
SLEEP = "sleep 1000"


@pytest.fixture
def second() -> Iterator[Cluster]:
    """A cluster beside the session's."""
    cluster = Cluster(short_directory(f"gencomp-slurm-t{os.getpid()}"))
    yield cluster
    cluster.down()


def submit(cluster: Cluster, command: str, *options: str) -> str:
    """The number of a job that runs a line of shell; its words go to the cluster's directory."""
    out = f"--output={cluster.directory}/%j.out"
    words = ["sbatch", "--parsable", out, "--open-mode=append", *options, "--wrap", command]
    return cluster.run(*words).strip()


def output(cluster: Cluster, job: str) -> str:
    path = cluster.directory / f"{job}.out"
    return path.read_text() if path.exists() else ""


def look(cluster: Cluster, job: str) -> tuple[str, str, int]:
    """State, node and restarts of a job."""
    state, node = cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T %N.").split()
    restarts = cluster.run("squeue", "-h", "-t", "all", "-j", job, "-O", "RestartCnt")
    return state, node.strip("."), int(restarts)


def runs(cluster: Cluster, job: str, restarts: int = 0) -> Callable[[], bool]:
    def condition() -> bool:
        state, _, count = look(cluster, job)
        return (state, count) == ("RUNNING", restarts) and bool(output(cluster, job))

    return condition


def soon(condition: Callable[[], bool]) -> None:
    assert wait_for(condition, pause=0.05)


def test_unmarked_tests_see_no_slurm_of_ours() -> None:
    assert "gencomp-slurm" not in os.environ.get("SLURM_CONF", "")


@slurm
def test_marked_tests_see_it_and_no_other(slurm_cluster: Cluster) -> None:
    assert os.environ["SLURM_CONF"] == str(slurm_cluster.slurm_conf)
    seen = slurm_cluster.environment({"PATH": "/bin", "SLURM_JOB_ID": "1", "SBATCH_ACCOUNT": "a"})
    assert seen.keys() == {"PATH", "SLURM_CONF"}
    ping = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=True)
    assert "UP" in ping.stdout
    assert slurm_cluster.states() == {"n1": "idle", "n2": "idle"}


def test_without_packages_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if "sbatch" not in missing_programs():
        pytest.skip("sbatch lies beside the daemons here")
    assert __main__.main(["up", "--directory", str(tmp_path / "c")]) == 2
    assert "apt-get install --no-install-recommends slurm-wlm munge" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    conf = tmp_path / "etc" / "slurm.conf"
    conf.parent.mkdir()
    conf.write_text("ClusterName=site\nStateSaveLocation=/var/spool/slurm\n")
    cluster = Cluster(tmp_path)
    cluster.down()
    assert conf.exists()
    with pytest.raises(RuntimeError, match=r"holds something else|too long a path"):
        cluster.up()
    with pytest.raises(RuntimeError, match="too long a path"):
        Cluster(Path("/tmp/" + "x" * 80)).up()


@slurm
def test_two_clusters_side_by_side(slurm_cluster: Cluster, second: Cluster) -> None:
    second.up(nodes=3)
    assert second.states() == dict.fromkeys(["n1", "n2", "n3"], "idle")
    mine, other = submit(slurm_cluster, SLEEP), submit(second, f"echo; {SLEEP}")
    soon(runs(second, other))
    assert len(second.run("squeue", "-h").splitlines()) == 1

    # What lacks is started again, and nothing else.
    before = second.processes()
    lost = processes.holding(second.directory / "log" / "slurmd.n3.log")
    assert len(lost) == 1
    processes.crash(lost)
    second.up()
    after = second.processes()
    assert len(after - before) == 1
    assert before - after == lost

    second.down()
    assert gone(after)
    assert not second.directory.exists()
    assert look(slurm_cluster, mine)[0] == "RUNNING"


@slurm
def test_gpus_are_counted_and_shown_to_their_job(slurm_cluster: Cluster) -> None:
    devices = "echo $CUDA_VISIBLE_DEVICES"
    assert slurm_cluster.run("srun", "--gres=gpu:2", "sh", "-c", devices) == "0,1\n"
    assert slurm_cluster.run("srun", "sh", "-c", devices) == "\n"
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        slurm_cluster.run("srun", "--gres=gpu:3", "true")


@slurm
def test_the_high_partition_preempts_the_low_one_after_a_warning(slurm_cluster: Cluster) -> None:
    warned = f"trap 'echo warned; exit' USR2; echo began; {SLEEP} & wait $!"
    low = submit(slurm_cluster, warned, "-p", "low", "-w", "n1", "--signal=B:USR2@60", "--requeue")
    soon(runs(slurm_cluster, low))
    high = submit(slurm_cluster, "echo", "-p", "high", "-w", "n1", "--exclusive")
    soon(lambda: look(slurm_cluster, high)[0] == "COMPLETED")
    assert output(slurm_cluster, low).startswith("began\nwarned\n")


@slurm
def test_a_node_is_set_down_and_the_controller_starts_again(slurm_cluster: Cluster) -> None:
    job = submit(slurm_cluster, f"echo began; {SLEEP}", "--requeue")
    soon(runs(slurm_cluster, job))
    node = look(slurm_cluster, job)[1]
    faults.set_down(slurm_cluster, node)
    soon(lambda: sorted(slurm_cluster.states().values()) == ["down", "idle"])
    soon(lambda: "DUE TO NODE FAILURE" in output(slurm_cluster, job))
    with faults.controller_outage(slurm_cluster):
        assert not slurm_cluster.controller()
    assert slurm_cluster.states()[node] == "down"
    assert look(slurm_cluster, job) == ("PENDING", "", 1)
    faults.resume(slurm_cluster, node)
    assert slurm_cluster.states()[node] == "idle"


@slurm
def test_a_node_that_crashes_leaves_nothing_behind(slurm_cluster: Cluster) -> None:
    crashed, other = (submit(slurm_cluster, f"echo; {SLEEP}", "--exclusive") for _ in range(2))
    soon(lambda: runs(slurm_cluster, crashed)() and runs(slurm_cluster, other)())
    node = look(slurm_cluster, crashed)[1]
    at_work = slurm_cluster.of_node(node)
    assert len(at_work) >= 4  # a daemon, a stepd, a shell and what it runs
    faults.crash_node(slurm_cluster, node)
    assert gone(at_work, 0)
    assert slurm_cluster.of_node(node) == set()
    assert slurm_cluster.of_node(look(slurm_cluster, other)[1])
    faults.revive(slurm_cluster, node)
    assert len(slurm_cluster.of_node(node)) == 1


@slurm
def test_what_leaves_its_job_still_ends_with_the_cluster(second: Cluster) -> None:
    second.up(nodes=1)
    job = submit(second, "setsid sleep 1000 & echo $!")
    soon(lambda: look(second, job)[0] == "COMPLETED")
    pid = int(output(second, job))
    assert Path(f"/proc/{pid}").exists()
    second.down()
    assert wait_for(lambda: not _alive(pid))


@slurm
def test_a_session_that_was_killed_is_cleared_by_the_next() -> None:
    code = (
        "import os, time\n"
        "from tests.slurm_cluster import Cluster\n"
        "from tests.slurm_cluster.sessions import session_directory\n"
        "Cluster(session_directory(os.getpid())).up(nodes=1)\n"
        "print('up', flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"up\n"
        left = Cluster(session_directory(killed.pid))
        assert left not in sessions_left_behind()
        killed.send_signal(signal.SIGKILL)
    assert left in sessions_left_behind()
    found = left.processes()
    left.down()
    assert gone(found)


@slurm
def test_the_command(second: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(second.directory)]
    assert __main__.main(["status", *where]) == 1
    assert __main__.main(["up", "--nodes", "1", *where]) == 0
    assert f"export SLURM_CONF={second.slurm_conf}\n" in capsys.readouterr().out
    assert __main__.main(["status", *where]) == 0
    assert "idle n1" in capsys.readouterr().out
    assert __main__.main(["down", *where]) == 0
    assert __main__.main(["down", *where]) == 0
    assert not second.directory.exists()


def _alive(pid: int) -> bool:
    return Process(pid, 0).command() != ""
