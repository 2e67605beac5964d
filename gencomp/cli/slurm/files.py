"""`gencomp slurm files`: what the files of a run's codec cost and look like, in many jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from cluster.evaluations.files.settings import CHOICES, Choices
from gencomp.cli.slurm.submission import SUBMISSION, Submission


def files(
    run: Path,
    /,
    name: str = "files",
    images: int | None = None,
    choices: Annotated[Choices, tyro.conf.OmitArgPrefixes] = CHOICES,
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Write and read a real file of each held-out picture, as `gencomp files` does, in jobs.

    The same command again submits only what is missing. On Slurm it returns after submission
    unless --wait; on this machine it always waits. `gencomp slurm collect` writes rates.json.

    Args:
        run: Directory of a finished run that has a codec.
        name: Name of the evaluation, a directory in RUN/evaluations.
        images: How many pictures, evenly spaced over the split; by default all.
        choices: What to measure.
        submission: How the jobs run.
    """
    from cluster.evaluations.files import plan
    from cluster.runs import open_run
    from slurm.kinds.files import FileJobs

    submission = submission.completed()
    opened = open_run(run)
    wanted = plan.make(opened, choices, images, submission.cpus)
    jobs = FileJobs(plan.Evaluation.find(opened, name, wanted))
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs.enter())
