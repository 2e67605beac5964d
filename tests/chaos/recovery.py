"""Disturb a run, round by round, and report what that cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.chaos.faults import Fault
from tests.chaos.scene import Scene

MOST_STEPS = 8  # between a recovery and the next fault


class Recovery(NamedTuple):
    """One round.

    Attributes:
        fault: what happened.
        step: where the run was.
        resumed: the step it went on from.
        world: with how many workers.
        seconds: from the fault to the end of the first new step.
    """

    fault: str
    step: int
    resumed: int
    world: int
    seconds: float

    @property
    def lost(self) -> int:
        """Steps that were taken again."""
        return self.step - self.resumed


def disturb(scene: Scene, faults: Iterable[Fault]) -> list[Recovery]:
    """One fault after the other, each at a random moment after the recovery from the last."""
    return [_round(scene, fault) for fault in faults]


def _round(scene: Scene, fault: Fault) -> Recovery:
    scene.wait_for_step(scene.look() + scene.chance.randint(1, MOST_STEPS))
    scene.reached = scene.look()
    since = time.time()
    fault(scene)
    attempt, trained = scene.wait_for_recovery(since)
    step, scene.reached = scene.reached, 0
    return Recovery(fault.__name__, step, attempt.step, attempt.world, trained - since)


def summary(recoveries: Sequence[Recovery]) -> list[dict[str, Any]]:
    """A line for each fault, and one for all."""
    kinds = sorted({one.fault for one in recoveries})
    groups = {kind: [one for one in recoveries if one.fault == kind] for kind in kinds}
    return [_line(kind, group) for kind, group in (groups | {"all": list(recoveries)}).items()]


def _line(name: str, group: Sequence[Recovery]) -> dict[str, Any]:
    seconds, lost = [one.seconds for one in group], [one.lost for one in group]
    return {
        "fault": name,
        "count": len(group),
        "seconds_median": round(statistics.median(seconds), 1),
        "seconds_most": round(max(seconds), 1),
        "lost_median": statistics.median(lost),
        "lost_most": max(lost),
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The summary as text."""
    head = ["fault", "count", "recovery s, median", "most", "lost steps, median", "most"]
    rows = [head, *([str(value) for value in line.values()] for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
    )
