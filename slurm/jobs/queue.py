"""Slurm's view of our jobs: from `squeue`, and from `sacct` for jobs that have left the queue.

Some clusters have no accounting, and accounting says NODE_FAIL about a job that already waits in
the queue again. So the queue is asked first, by id and for all states.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

GONE = "GONE"
_LONGEST_ARRAY = 1001
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING"}
_RUNNING = {"RUNNING", "COMPLETING"}
_HELD = {"REQUEUE_HOLD", "SPECIAL_EXIT"}
_HELD_REASONS = (
    "JobHeldUser",
    "JobHeldAdmin",
    "launch failed requeued held",
    "job requeued in held state",
)
# A job in one of these states may return to the queue within a few seconds.
_PERHAPS_REQUEUED = {"PREEMPTED", "NODE_FAIL", "REVOKED", GONE}
_GRACE_SECONDS = 30.0
_POLL_SECONDS = 1.0


class Look(NamedTuple):
    """The view of one job that Slurm gives now."""

    state: str
    reason: str = ""
    node: str = ""


def answers() -> bool:
    """Whether a Slurm controller answers within two seconds."""
    if not (shutil.which("scontrol") and shutil.which("sbatch")):
        return False
    try:
        ping = subprocess.run(
            ["scontrol", "ping"],
            capture_output=True,
            timeout=2,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return ping.returncode == 0


def longest_array() -> int:
    """The most jobs that Slurm takes in one array; its default if no controller says so."""
    code, output, _ = _run(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", output, re.MULTILINE) if code == 0 else None
    return max(1, int(found[1])) if found else _LONGEST_ARRAY


def seconds_left(job: str) -> float | None:
    """The time until the time limit of a running job, in seconds; None if that is not known.

    Args:
        job: the job's id.
    """
    _, output, _ = _run(["squeue", "-h", "-j", job, "-o", "%L"])
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d\d)", output.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(group or 0) for group in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def look_up(ids: Collection[str]) -> dict[str, Look]:
    """The view of each job; its state is GONE if neither the queue nor accounting knows the job.

    Args:
        ids: the ids of the jobs, `A_a` for an element of an array.

    Raises:
        RuntimeError: the controller does not answer.
    """
    if not ids:
        return {}
    whole = ",".join(sorted({job.split("_")[0] for job in ids}))
    queue = ["squeue", "--states=all", "-r", "-h", "-o", "%i|%T|%r|%N", "-j", whole]
    code, output, error = _run(queue)
    if code != 0 and "Invalid job id" not in error:
        raise RuntimeError(f"squeue does not answer: {error.strip() or f'exit code {code}'}")
    found = parse_squeue(output)
    lost = [job for job in ids if job not in found]
    if lost:
        code, output, _ = _run(
            ["sacct", "-X", "-n", "-P", "-D", "-o", "JobID,State,NodeList", "-j", whole]
        )
        # Without accounting storage sacct fails, and there is no other source.
        found = {**(parse_sacct(output) if code == 0 else {}), **found}
    return {job: found.get(job, Look(GONE)) for job in ids}


def settled(ids: Collection[str], grace: float = _GRACE_SECONDS) -> dict[str, Look]:
    """The view of each job, as `look_up` gives it, once requeues are over.

    A job that was preempted or has lost its node is waited for until it is in the queue again, or
    for `grace` seconds.

    Raises:
        RuntimeError: the controller does not answer.
    """
    watcher = QueueWatcher(grace)
    while True:
        looks = look_up(ids)
        known = {job: look for job, look in looks.items() if look.state != GONE}
        if watcher.active(known) == active(known):
            return looks
        time.sleep(_POLL_SECONDS)


def parse_squeue(output: str) -> dict[str, Look]:
    """The view of each job, from lines of id|state|reason|nodes."""
    looks = {}
    for line in output.splitlines():
        job, state, rest = line.split("|", 2)
        reason, _, node = rest.rpartition("|")
        looks[job.strip()] = Look(state, "" if reason == "None" else reason.strip("()"), node)
    return looks


def parse_sacct(output: str) -> dict[str, Look]:
    """The view of each job, from lines of id|state|nodes; a later line is a newer attempt."""
    looks = {}
    for line in output.splitlines():
        job, state, node = line.split("|")
        looks[job] = Look(state.split()[0], "", "" if node == "None assigned" else node)
    return looks


def words(look: Look) -> str:
    """The state in words for users, without what Slurm does not know (attempt and result)."""
    if is_held(look):
        return f"held ({look.reason or look.state}): scontrol release mends it"
    if look.state in _WAITING:
        reason = "waits after a requeue" if look.reason == "BeginTime" else look.reason
        return f"waiting ({reason})" if reason else "waiting"
    if look.state in _RUNNING:
        return "running"
    if look.state == "CANCELLED":
        return "cancelled"
    if look.state == GONE:
        return "unknown: gone from the controller"
    if look.state == "COMPLETED":
        return "ended without result"
    return f"failed ({look.state})"


def is_held(look: Look) -> bool:
    """Whether a job is held until a user or an administrator releases it."""
    return look.state in _HELD or look.reason.startswith(_HELD_REASONS)


class QueueWatcher:
    """Keeps how long each job has been in a state after which it may be requeued."""

    def __init__(self, grace: float = _GRACE_SECONDS) -> None:
        self._grace = grace
        self._since: dict[str, float] = {}

    def active(self, looks: Mapping[str, Look]) -> set[str]:
        """The jobs that have not ended."""
        now, alive = time.monotonic(), set()
        for job, look in looks.items():
            if look.state in _PERHAPS_REQUEUED:
                if now - self._since.setdefault(job, now) < self._grace:
                    alive.add(job)
                continue
            self._since.pop(job, None)
            if look.state in _WAITING | _RUNNING | _HELD:
                alive.add(job)
        return alive


def active(looks: Mapping[str, Look]) -> set[str]:
    """The jobs that have not ended, judged by a single look."""
    return QueueWatcher(grace=0).active(looks)


def cancel(ids: Collection[str], by_themselves: bool = False) -> None:
    """Cancel jobs. Slurm sends SIGTERM first, so that they can save.

    Args:
        ids: the ids of the jobs.
        by_themselves: whether running jobs are only asked to end, because they may take longer than
            Slurm's `KillWait`; other processes in their allocations get no signal then.

    Raises:
        RuntimeError: the controller does not answer, or refuses.
    """
    whole = sorted(ids)
    commands = [["scancel", *whole]]
    if by_themselves:
        waiting = ["scancel", "--state=PENDING", *whole]
        commands = [waiting, ["scancel", "--state=RUNNING", "--batch", "--signal=TERM", *whole]]
        looks = look_up(whole)
        # The filters have no words for the states suspended, configuring and held.
        others = [job for job in active(looks) if looks[job].state not in ("PENDING", "RUNNING")]
        if others:
            commands.insert(0, ["scancel", *sorted(others)])
    for command in commands:
        code, _, error = _run(command)
        if code != 0:
            raise RuntimeError(f"scancel failed: {error.strip()}")


def _run(command: list[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} did not answer within a minute"
    return done.returncode, done.stdout, done.stderr
