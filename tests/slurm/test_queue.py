"""What Slurm says, read from fake commands."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from gencomp.errors import InputError
from slurm import queue, submit
from slurm.queue import Look, QueueWatcher

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
    time.sleep(0.06)
    assert watcher.active({"1": Look("NODE_FAIL")}) == set()


def test_slurm_is_chosen_where_a_controller_answers(fake_command: Fake) -> None:
    fake_command("sbatch", "exit 1")
    fake_command("scontrol", '[ "$1" = ping ]')
    assert submit.choose("auto") == "slurm"


@pytest.mark.parametrize("body", ["exit 1", "exec sleep 30"])
def test_this_machine_is_chosen_where_none_answers(fake_command: Fake, body: str) -> None:
    fake_command("sbatch", "exit 1")
    fake_command("scontrol", body)
    began = time.monotonic()
    assert submit.choose("auto") == "local"
    assert time.monotonic() - began < 4
    with pytest.raises(InputError, match="no Slurm controller answers"):
        submit.choose("slurm")
