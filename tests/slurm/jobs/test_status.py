"""The status of many jobs."""

from __future__ import annotations

import platform

import pytest

from cluster.evaluations.curve.plan import Evaluation
from slurm.jobs import ledger, status
from slurm.jobs.job import Job
from slurm.kinds.curve import CurveJobs
from tests.curves import Evaluate


def test_parts_are_looked_up_once_for_all_jobs(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking them up for each job would cost jobs times blocks."""
    evaluation = evaluate()
    jobs = CurveJobs(evaluation).enter()
    recorded = [
        Job(
            name=f"measure-{block}",
            stage="measure",
            blocks=(block,),
            executor="local",
            id=str(10**7 + block),
            host=platform.node(),
        )
        for block in range(4)
    ]
    ledger.record(jobs, recorded)
    for block in (1, 3):
        evaluation.part(block).parent.mkdir(exist_ok=True)
        evaluation.part(block).touch()
    looks = []
    missing = Evaluation.missing

    def counted(self: Evaluation) -> list[int]:
        looks.append(self)
        return missing(self)

    monkeypatch.setattr(Evaluation, "missing", counted)
    states = [row.state for row in status.rows(jobs)]
    lost = "ended without result"
    assert states == [lost, "done", lost, "done"] and len(looks) == 1
