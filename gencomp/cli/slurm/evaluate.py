"""`gencomp slurm evaluate`: metrics of a finished run, in many jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli.evaluate import MetricOptions
from gencomp.cli.slurm.submission import SUBMISSION, Submission


def evaluate(
    run: Path,
    /,
    metric: Annotated[MetricOptions, tyro.conf.OmitArgPrefixes],
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Measure a finished run on held-out images, as `gencomp evaluate` does, in jobs.

    The same command again submits only what is missing. On Slurm it returns after submission
    unless --wait; on this machine it always waits. `gencomp slurm collect` writes metrics.json.

    Args:
        run: Directory of a finished run.
        metric: What to measure.
        submission: How the jobs run.
    """
    from cluster.evaluations.metrics.plan import Evaluation
    from slurm.kinds.metrics import MetricJobs

    submission = submission.completed()
    opened = metric.open(run)
    plan = metric.plan(opened, submission.cpus)
    jobs = MetricJobs(Evaluation.find(opened, metric.name, plan))
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs.enter())
