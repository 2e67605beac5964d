"""The object that runs inside the job of a run or a sweep: a driver, with a Ray cluster around it.

submitit pickles this object, so it holds names and numbers only. On the warning signal submitit
calls `checkpoint` in the signal handler: the driver is asked to save, everything ends in order, and
submitit requeues the job under its number. SIGTERM ends the job in the same order. Between attempts
nothing is kept but what the driver writes, and the driver resumes from its newest checkpoint. Where
attempts in a row reach their time limit before they have a step, no further one would have, and the
job ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from submitit.helpers import DelayedSubmission

from cluster import ray_runtime, run_status
from cluster.logs import process_log
from gencomp.errors import InputError
from gencomp.exit_codes import TERMINATED
from slurm.jobs import queue
from slurm.jobs.progress_file import ProgressFile, progress_path, reporting
from slurm.sessions import child_processes
from slurm.sessions.driver import Driver, DriverDied
from slurm.sessions.ray_cluster import RayCluster, ray_cluster
from slurm.sessions.session import Session, Traces, open_session

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0
# How often everything is started again in one attempt after the driver, or Ray on a node, has died.
_RESTARTS = 3
# The time for the driver of an earlier attempt to die, on a node that Slurm has lost sight of.
_PREDECESSOR_SECONDS = 600.0
# The time after which a step has certainly ended if its Ray has ended, and the driver with it.
_NOTICE_SECONDS = 5.0
# So many attempts in a row may reach their time limit with nothing to show.
_FRUITLESS = 3
# Slurm may warn of a time limit so many seconds early, since it looks only now and then.
_EARLY_SECONDS = 65.0
# The variables of the submitter's own cluster, if there is one: a driver joins no cluster but ours.
_CLUSTER_VARIABLES = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"}
_CLUSTER_VARIABLES.add(ray_runtime.COMPLETE)


class TimeLimitTooShort(Exception):
    """Raised where attempts reach their time limit again and again before they have a step."""


class Drive:
    """Drives a run or a sweep to its end.

    Args:
        fruitless: how many attempts have just reached their time limit with nothing to show.

    Attributes:
        name: the job's name.
        directory: the session's directory.
    """

    def __init__(self, name: str, directory: str, fruitless: int = 0) -> None:
        self.name, self.directory = name, directory
        self._fruitless = fruitless
        self._before: Traces | None = None  # what there was when this attempt began
        self._began = time.monotonic()
        self._open: ExitStack | None = None  # everything that must end, in order

    def __call__(self) -> None:
        session = open_session(self.directory)
        if "SLURM_RESTART_COUNT" in os.environ:
            _wait_for_predecessor(session.subject)
        done, total = session.progress_now()
        with reporting(progress_path(session.path, self.name), self.name, total) as report:
            report.began(done)
            self._began, self._before = time.monotonic(), session.traces()
            for restarts_left in reversed(range(1 + _RESTARTS)):
                lost = "" if session.is_complete() else self._attempt(session, report)
                if not lost:
                    session.completed()
                    report.done, report.total = session.progress_now()
                    return
                if restarts_left:
                    print("all is started anew", file=sys.stderr, flush=True)
            raise RuntimeError(
                f"the driver or Ray has died {1 + _RESTARTS} times; the last time: {lost}"
            )

    def checkpoint(self) -> DelayedSubmission:
        """End everything in order, and let submitit requeue. The signal handler calls this.

        Raises:
            TimeLimitTooShort: further attempts would have nothing to show either.
        """
        # Neither a second warning nor SIGTERM at the time limit may interrupt the saving.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        warned = time.monotonic()
        if self._open is not None:
            self._open.close()
        session = open_session(self.directory)
        fruitless = self._fruitless
        if session.traces() != self._before:
            fruitless = 0
        elif (left := _seconds_left()) is not None:
            left += time.monotonic() - warned
            # A job that goes for a more important one has more time left than that.
            fruitless += left <= session.order.warning + _EARLY_SECONDS
            if fruitless >= _FRUITLESS:
                raise _too_short(session.subject, warned - self._began, left)
        return DelayedSubmission(Drive(self.name, self.directory, fruitless))

    def _attempt(self, session: Session, report: ProgressFile) -> str:
        """Run the driver once.

        Returns:
            Nothing if all is done, or how the driver has died, or Ray under it.

        Raises:
            InputError: the driver refused its input.
            RuntimeError: the driver failed.
            SystemExit: something else stopped the driver.
        """
        order = session.order
        environment = {name: v for name, v in os.environ.items() if name not in _CLUSTER_VARIABLES}
        with ExitStack() as self._open:
            child_processes.adopt()
            self._open.callback(child_processes.kill_all)
            cluster = None
            if order.nodes > 1:
                try:
                    bringing_up = ray_cluster(order.cpus, order.gpu, order.end_seconds)
                    cluster = self._open.enter_context(bringing_up)
                except RuntimeError as error:
                    return _said(error)
                environment |= cluster.variables
            driver = Driver(order.words, environment, order.save_seconds)
            self._open.enter_context(driver)
            looked = time.monotonic()
            while not driver.has_ended():
                time.sleep(_POLL_SECONDS)
                if cluster is not None and (lost := _lost(cluster)):
                    return _said(lost)
                if time.monotonic() - looked > _LOOK_SECONDS:
                    with suppress(OSError):  # a shared file system may forget a file for a moment
                        done, report.total = session.progress_now()
                        report(done)
                    looked = time.monotonic()
            try:
                finished = driver.outcome()
            except DriverDied as error:
                return _said(error)
            except (InputError, RuntimeError):
                if cluster is not None and (lost := _lost(cluster, _NOTICE_SECONDS)):
                    return _said(lost)
                raise
            if not finished:
                raise SystemExit(TERMINATED)
        return ""


def _seconds_left() -> float | None:
    """The seconds until the time limit of this job; None outside Slurm, or if it does not say."""
    job = os.environ.get("SLURM_JOB_ID")
    return queue.seconds_left(job) if job else None


def _too_short(subject: Path, used: float, left: float) -> TimeLimitTooShort:
    """The end of a job whose time limit does not hold its start; it is noted in the subject's log.

    Args:
        used, left: the seconds of the last attempt until Slurm's warning, and from there on.
    """
    text = (
        f"{_FRUITLESS} attempts in a row have reached their time limit without a step; --time must"
        f" hold the start, for which the last one had {used:.0f} s, then some steps, and the"
        f" {left:.0f} s from Slurm's warning to the limit"
    )
    process_log.note(subject, "ERROR", text, event="failed")
    return TimeLimitTooShort(text)


def _lost(cluster: RayCluster, seconds: float = 0.0) -> str:
    """What `RayCluster.lost` says now or within some seconds."""
    deadline = time.monotonic() + seconds
    while not (lost := cluster.lost()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return lost


def _said(lost: object) -> str:
    """Say at once what was lost, before everything else is ended."""
    print(lost, file=sys.stderr, flush=True)
    return str(lost)


def _wait_for_predecessor(subject: Path) -> None:
    """Wait while the driver of an earlier attempt still holds a run or a sweep."""
    deadline = time.monotonic() + _PREDECESSOR_SECONDS
    while (who := run_status.holder(subject)) is not None and time.monotonic() < deadline:
        print(f"waiting for an earlier attempt to end: {who}", file=sys.stderr, flush=True)
        time.sleep(_LOOK_SECONDS)
