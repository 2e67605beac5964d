"""`gencomp slurm evaluate`, which measures a finished run in many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.evaluate import RunOptions
from gencomp.cli.slurm.submission import SubmissionOptions


def evaluate(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def evaluate(
        run: Path,
        /,
        metric: Annotated[RunOptions, tyro.conf.OmitArgPrefixes],
        submission: SubmissionOptions,
        checkpoint: Checkpoint = "last",
    ) -> int:
        """Measure a finished run on held-out images, as `gencomp evaluate` does, in jobs.

        When the same command is given again, it submits only what is missing. On Slurm the command
        returns after submission, unless --wait is given; on this machine it always waits. `gencomp
        slurm collect` writes metrics.json.

        Args:
            run: Directory of a finished run.
            metric: The metrics to measure, and how they are measured.
            submission: How the jobs run.
        """
        from cluster.evaluations.metrics.plan import Evaluation
        from cluster.runs import open_run
        from slurm.kinds.metrics import MetricJobs

        submission = submission.completed()
        opened = open_run(run, checkpoint, writing)
        plan = metric.plan(opened, submission.cpus)
        jobs = MetricJobs(Evaluation.find(opened, metric.name, plan))
        return submission.show(jobs) if submission.dry_run else submission.submit(jobs)

    return recipe_words.call(evaluate, own, "gencomp slurm evaluate", recipe_words.writing_keys)
