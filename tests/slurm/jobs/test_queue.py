"""What Slurm says, read from fake commands."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gencomp.cli.slurm.logs import _life_of
from gencomp.errors import InputError
from slurm.jobs import ledger, queue, submit
from slurm.jobs.ledger import Job
from slurm.jobs.queue import Look, QueueWatcher
from slurm.sessions import session
from slurm.sessions.session import Order
from slurm.sessions.session_jobs import SessionJobs
from tests.conftest import ROOT
from tests.waiting import PATIENCE, wait_for

Fake = Callable[[str, str], None]


def test_the_queue_is_read_with_reasons_and_array_elements() -> None:
    output = (
        "9_0|RUNNING|None|n1\n"
        "9_1|PENDING|JobArrayTaskLimit|\n"
        "7|PENDING|(launch failed requeued held)|\n"
    )
    assert queue.parse_squeue(output) == {
        "9_0": Look("RUNNING", "", "n1"),
        "9_1": Look("PENDING", "JobArrayTaskLimit", ""),
        "7": Look("PENDING", "launch failed requeued held", ""),
    }


def test_accounting_shows_the_newest_attempt_of_a_requeued_job() -> None:
    output = "8|NODE_FAIL|n1\n8|COMPLETED|n2\n9_0|CANCELLED by 0|None assigned\n"
    assert queue.parse_sacct(output) == {
        "8": Look("COMPLETED", "", "n2"),
        "9_0": Look("CANCELLED", "", ""),
    }


def test_accounting_fills_in_what_left_the_queue(fake_command: Fake) -> None:
    fake_command("squeue", "echo '5|RUNNING|None|n1'")
    fake_command("sacct", "echo '4|FAILED|n1'")
    assert queue.look_up(["4", "5", "6"]) == {
        "4": Look("FAILED", "", "n1"),
        "5": Look("RUNNING", "", "n1"),
        "6": Look(queue.GONE),
    }


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0:59", 59),
        ("12:03", 12 * 60 + 3),
        ("3:00:01", 3 * 3600 + 1),
        ("1-02:00:00", 26 * 3600),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_that_a_job_has_left(said: str, seconds: float | None, fake_command: Fake) -> None:
    fake_command("squeue", f"echo '{said}'")
    assert queue.seconds_left("5") == seconds
    fake_command("squeue", "echo 'Invalid job id specified' >&2; exit 1")
    assert queue.seconds_left("5") is None


def test_without_accounting_an_unknown_job_is_gone(fake_command: Fake) -> None:
    fake_command("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    fake_command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    looks = queue.look_up(["4"])
    assert looks == {"4": Look(queue.GONE)}
    assert queue.active(looks) == set()


def test_a_silent_controller_is_an_error_and_not_an_end(fake_command: Fake) -> None:
    fake_command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(RuntimeError, match="Unable to contact"):
        queue.look_up(["4"])


@pytest.mark.parametrize(
    ("look", "words", "active"),
    [
        (Look("PENDING", "Priority"), "waiting (Priority)", True),
        (Look("PENDING", "BeginTime"), "waiting (waits after a requeue)", True),
        (Look("PENDING", "JobHeldUser"), "held (JobHeldUser): scontrol release mends it", True),
        (Look("CONFIGURING"), "waiting", True),
        (Look("SUSPENDED"), "waiting", True),
        (Look("COMPLETING", "", "n1"), "running", True),
        (Look("COMPLETED"), "ended without result", False),
        (Look("CANCELLED"), "cancelled", False),
        (Look("TIMEOUT"), "failed (TIMEOUT)", False),
        (Look("OUT_OF_MEMORY"), "failed (OUT_OF_MEMORY)", False),
        (Look("NODE_FAIL"), "failed (NODE_FAIL)", False),
        (Look(queue.GONE), "unknown: gone from the controller", False),
    ],
)
def test_states_in_words(look: Look, words: str, active: bool) -> None:
    assert queue.words(look) == words
    assert queue.active({"1": look}) == ({"1"} if active else set())


def test_a_node_failure_ends_a_job_only_when_no_requeue_follows() -> None:
    watcher = QueueWatcher(grace=0.05)
    assert watcher.active({"1": Look("NODE_FAIL")}) == {"1"}
    assert watcher.active({"1": Look("PENDING", "BeginTime")}) == {"1"}
    assert watcher.active({"1": Look("NODE_FAIL")}) == {"1"}
    assert wait_for(lambda: watcher.active({"1": Look("NODE_FAIL")}) == set())


def test_a_job_that_is_requeued_in_a_moment_is_waited_for(
    fake_command: Fake, tmp_path: Path
) -> None:
    fake_command("sacct", "exit 1")
    once = f"test -e {tmp_path}/asked && echo '5|PENDING|BeginTime|' || echo '5|PREEMPTED|None|n1'"
    fake_command("squeue", f"{once}; : > {tmp_path}/asked")
    assert queue.settled(["5"]) == {"5": Look("PENDING", "BeginTime")}
    fake_command("squeue", "echo '5|NODE_FAIL|None|n1'")
    assert queue.settled(["5", "6"], grace=0.5)["5"].state == "NODE_FAIL"
    fake_command("squeue", "")
    assert queue.settled(["5"], grace=math.inf) == {"5": Look(queue.GONE)}  # not waited for


def test_jobs_in_other_states_than_waiting_and_running_are_cancelled_plainly(
    fake_command: Fake, tmp_path: Path
) -> None:
    lines = ("5|RUNNING|None|n1", "6|SUSPENDED|None|n1", "7|PENDING|Priority|", "8|FAILED|None|n1")
    fake_command("squeue", "".join(f"echo '{line}';" for line in lines))
    fake_command("scancel", f'echo "$@" >> {tmp_path}/said')
    queue.cancel(["8", "7", "6", "5"], by_themselves=True)
    assert (tmp_path / "said").read_text().splitlines() == [
        "6",
        "--state=PENDING 5 6 7 8",
        "--state=RUNNING --batch --signal=TERM 5 6 7 8",
    ]


def test_whoever_waits_hears_once_that_a_job_is_held(
    fake_command: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = Order(kind="train", words=("train",), nodes=1, cpus=1, gpu=False, warning=120)
    found = SessionJobs(session.session(tmp_path / "run", order))
    found.enter()
    job = Job(name="train-0", stage="train", blocks=(0,), executor="slurm", id="5", host="h")
    ledger.record(found, [job])
    fake_command(
        "squeue",
        f"echo x >> {tmp_path}/asked; test $(wc -l < {tmp_path}/asked) -gt 2 &&"
        " echo '5|COMPLETED|None|n1' || echo '5|PENDING|(job requeued in held state)|'",
    )
    submit.wait_for_slurm(found)
    assert capsys.readouterr().err.splitlines() == [
        "train-0 (job 5) is held (job requeued in held state): scontrol release mends it"
    ]


def test_cancelling_ends_a_submitter_that_was_stopped(tmp_path: Path) -> None:
    order = Order(kind="train", words=("train",), nodes=1, cpus=1, gpu=False, warning=120)
    found = SessionJobs(session.session(tmp_path / "run", order))
    found.enter()
    code = "import signal, sys; from pathlib import Path; from cluster.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('holds', flush=True); signal.pause()"
    command = [sys.executable, "-c", code, str(found.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"holds\n"
            process.send_signal(signal.SIGSTOP)
            assert submit.cancel(found) == []
            assert process.wait(timeout=PATIENCE) == -signal.SIGTERM
        finally:
            process.kill()


def test_logs_are_followed_while_the_controller_is_away_and_the_job_is_requeued(
    fake_command: Fake, tmp_path: Path
) -> None:
    job = Job(name="train-0", stage="train", executor="slurm", id="5", host="h")
    lives = _life_of(job)
    fake_command("sacct", "exit 1")
    for body, expected in (
        ("echo 'Unable to contact slurm controller' >&2; exit 1", True),
        ("echo '5|NODE_FAIL|None|n1'", True),
        ("echo '5|PENDING|BeginTime|'", True),
        ("echo '5|COMPLETED|None|n1'", False),
    ):
        fake_command("squeue", body)
        assert lives() is expected


def test_slurm_is_chosen_where_a_controller_answers(fake_command: Fake) -> None:
    fake_command("sbatch", "exit 1")
    fake_command("scontrol", '[ "$1" = ping ]')
    assert submit.choose("auto") == "slurm"


@pytest.mark.parametrize("body", ["exit 1", "exec sleep 100000"])
def test_this_machine_is_chosen_where_none_answers(fake_command: Fake, body: str) -> None:
    fake_command("sbatch", "exit 1")
    fake_command("scontrol", body)
    assert submit.choose("auto") == "local"
    with pytest.raises(InputError, match="no Slurm controller answers"):
        submit.choose("slurm")
