"""What runs inside the job of a run or a sweep: its driver, and a Ray cluster around it.

submitit pickles this object, so it holds names only. On the warning signal it calls `checkpoint` in
the signal handler: the driver is asked to save, everything ends in order, and submitit requeues the
job under its number. SIGTERM ends the job in the same order. Nothing is kept between attempts but
what the driver writes; it goes on from its newest checkpoint by itself.
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
from gencomp.errors import InputError
from gencomp.exit_codes import TERMINATED
from slurm.jobs.progress_file import ProgressFile, progress_path, reporting
from slurm.sessions import child_processes
from slurm.sessions.driver import Driver, DriverDied
from slurm.sessions.ray_cluster import RayCluster, ray_cluster
from slurm.sessions.session import Session, open_session

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0
# How often all is started anew in one attempt after the driver, or Ray on a node, has died.
_RESTARTS = 3
# For the driver of an earlier attempt, on a node that Slurm has lost sight of, to die.
_PREDECESSOR_SECONDS = 600.0
# Until a step has ended whose Ray has taken the driver with it.
_NOTICE_SECONDS = 5.0
# Of whoever submitted the job: a driver joins no cluster but ours.
_FOREIGN = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"}
_FOREIGN.add(ray_runtime.COMPLETE)


class Drive:
    """Drives a run or a sweep to its end.

    Attributes:
        name: of the job.
        directory: of the session.
    """

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.directory = name, directory
        self._open: ExitStack | None = None  # what must end, in order

    def __call__(self) -> None:
        session = open_session(self.directory)
        if "SLURM_RESTART_COUNT" in os.environ:
            _wait_for_predecessor(session.subject)
        done, total = session.progress_now()
        with reporting(progress_path(session.path, self.name), self.name, total) as report:
            report.began(done)
            for _ in range(1 + _RESTARTS):
                if session.is_complete() or self._attempt(session, report):
                    session.completed()
                    report.done, report.total = session.progress_now()
                    return
            raise RuntimeError(f"driver or Ray have died {1 + _RESTARTS} times; see the log above")

    def checkpoint(self) -> DelayedSubmission:
        """Called in the signal handler: end all in order, then let submitit requeue."""
        # Neither a second warning nor SIGTERM at the time limit may cut short what is being saved.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self._open is not None:
            self._open.close()
        return DelayedSubmission(Drive(self.name, self.directory))

    def _attempt(self, session: Session, report: ProgressFile) -> bool:
        """Run the driver once: whether all is done, or it has died, or Ray under it.

        Raises:
            InputError: the driver refused its input.
            RuntimeError: the driver failed.
            SystemExit: the driver was stopped by somebody else.
        """
        order = session.order
        environment = {name: v for name, v in os.environ.items() if name not in _FOREIGN}
        with ExitStack() as self._open:
            child_processes.adopt()
            self._open.callback(child_processes.kill_all)
            cluster = None
            if order.nodes > 1:
                try:
                    bringing_up = ray_cluster(order.cpus, order.gpu, order.farewell)
                    cluster = self._open.enter_context(bringing_up)
                except RuntimeError as error:
                    return _try_again(error)
                environment |= cluster.variables
            driver = Driver(order.words, environment, order.patience)
            self._open.enter_context(driver)
            looked = time.monotonic()
            while not driver.has_ended():
                time.sleep(_POLL_SECONDS)
                if cluster is not None and (lost := _lost(cluster)):
                    return _try_again(lost)
                if time.monotonic() - looked > _LOOK_SECONDS:
                    with suppress(OSError):  # a shared file system may forget a file for a moment
                        done, report.total = session.progress_now()
                        report(done)
                    looked = time.monotonic()
            try:
                finished = driver.outcome()
            except DriverDied as error:
                return _try_again(error)
            except (InputError, RuntimeError):
                if cluster is not None and (lost := _lost(cluster, _NOTICE_SECONDS)):
                    return _try_again(lost)
                raise
            if not finished:
                raise SystemExit(TERMINATED)
        return True


def _lost(cluster: RayCluster, patience: float = 0.0) -> str:
    """In words, on which nodes Ray has ended, or does within `patience` seconds; or nothing."""
    deadline = time.monotonic() + patience
    while not (missing := cluster.missing()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return f"Ray has ended on {', '.join(missing)}" if missing else ""


def _try_again(reason: object) -> bool:
    print(f"{reason}: all is started anew", file=sys.stderr, flush=True)
    return False


def _wait_for_predecessor(subject: Path) -> None:
    """Wait while the driver of an earlier attempt still holds a run or a sweep."""
    deadline = time.monotonic() + _PREDECESSOR_SECONDS
    while (who := run_status.holder(subject)) is not None and time.monotonic() < deadline:
        print(f"waiting for {who} of an earlier attempt to end", file=sys.stderr, flush=True)
        time.sleep(_LOOK_SECONDS)
