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
from contextlib import ExitStack

from submitit.helpers import DelayedSubmission

from slurm import children
from slurm.allocation import RayCluster, ray_cluster
from slurm.driver import Driver
from slurm.report import STOPPED, Report, reporting
from slurm.session import Session, open_session

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0
# How often Ray is started anew on all nodes after it has ended on one that still lives.
_RESTARTS = 3
# Until a step has ended whose Ray has taken the driver with it.
_NOTICE_SECONDS = 5.0
# Of whoever submitted the job: a driver joins no cluster but ours.
_FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")


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
        done, total = session.progress_now()
        with reporting(session.progress(self.name), self.name, total) as report:
            report.began(done)
            for _ in range(1 + _RESTARTS):
                if session.is_complete() or self._attempt(session, report):
                    session.completed()
                    report.done, report.total = session.progress_now()
                    return
            raise RuntimeError(f"Ray has ended {1 + _RESTARTS} times; see the log above")

    def checkpoint(self) -> DelayedSubmission:
        """Called in the signal handler: end all in order, then let submitit requeue."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a second warning has no more to say
        if self._open is not None:
            self._open.close()
        return DelayedSubmission(Drive(self.name, self.directory))

    def _attempt(self, session: Session, report: Report) -> bool:
        """Run the driver once: whether all is done, or Ray has ended under it.

        Raises:
            InputError: the driver refused its input.
            RuntimeError: the driver failed, or Ray does not start.
            SystemExit: the driver was stopped by somebody else.
        """
        order = session.order
        environment = {name: v for name, v in os.environ.items() if name not in _FOREIGN}
        with ExitStack() as self._open:
            children.adopt()
            self._open.callback(children.kill_all)
            cluster = None
            if order.nodes > 1:
                cluster = self._open.enter_context(ray_cluster(order.cpus, order.gpu))
                environment |= cluster.variables
            driver = Driver(order.words, environment, order.patience)
            self._open.enter_context(driver)
            looked = time.monotonic()
            while not driver.has_ended():
                time.sleep(_POLL_SECONDS)
                if cluster is not None and _is_broken(cluster):
                    return False
                if time.monotonic() - looked > _LOOK_SECONDS:
                    done, report.total = session.progress_now()
                    report(done)
                    looked = time.monotonic()
            try:
                finished = driver.outcome()
            except RuntimeError:
                if cluster is not None and _is_broken(cluster, _NOTICE_SECONDS):
                    return False
                raise
            if not finished:
                raise SystemExit(STOPPED)
        return True


def _is_broken(cluster: RayCluster, patience: float = 0.0) -> bool:
    """Whether Ray has ended on a node, or does within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (missing := cluster.missing()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if missing:
        print(f"Ray has ended on {', '.join(missing)}: it is started anew", file=sys.stderr)
    return bool(missing)
