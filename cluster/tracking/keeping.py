"""A tracker beside the driver of a run, which it neither holds up nor makes fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.beside import Tolerance, repeated
from cluster.files import locked
from cluster.runs import Run
from cluster.tracking import choice
from cluster.tracking.choice import Name
from cluster.tracking.follower import Connect, Follower
from cluster.tracking.tracker import Outcome

log = logging.getLogger(__name__)

PERIOD = 5.0  # seconds


@contextmanager
def tracked(
    run: Run,
    name: Name | None,
    may_write: Callable[[], None],
    connect: Connect = choice.connect,
) -> Iterator[None]:
    """While the body trains a run, a tracker gets what is logged.

    Args:
        run: the run, whose directory the caller holds.
        name: the tracker's name; None for no tracker.
        may_write: raises if another process has taken the run over.
        connect: what opens the run in the tracker.
    """
    if name is None:
        yield
        return
    follower, tolerance = Follower(run, name, may_write, connect=connect), Tolerance(name)
    outcome: Outcome = "failed"
    where: str | None = None

    def send() -> None:
        nonlocal where
        tolerance(follower.send)
        if follower.where is not None and follower.where != where:
            where = follower.where
            log.info("%s: %s", name, where)

    with repeated(send, PERIOD, lambda: _end(follower, tolerance, outcome)):
        yield
        outcome = "finished" if run.result() is not None else "stopped"


def catch_up(run: Run, name: Name) -> None:
    """Send what a tracker lacks of a finished run.

    Raises:
        InputError: another process holds the run.
    """
    with locked(run.path) as lease:
        _end(Follower(run, name, lease.require), Tolerance(name), "finished")


def _end(follower: Follower, tolerance: Tolerance, outcome: Outcome) -> None:
    tolerance(lambda: follower.end(outcome))
