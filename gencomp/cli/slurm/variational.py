"""`gencomp slurm variational`, which measures the rate-distortion curve of trained encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from cluster.evaluations.encoders.settings import EncoderOptions
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.slurm.submission import SubmissionOptions


def variational(
    run: Path,
    /,
    *,
    name: str = "variational",
    checkpoint: Checkpoint = "last",
    encoders: Annotated[EncoderOptions, tyro.conf.OmitArgPrefixes],
    submission: SubmissionOptions,
) -> int:
    """Train Gaussian encoders for a frozen decoder, one for each beta, and measure their curve.

    The curve lies above that of `gencomp slurm ais` by what such encoders lose. One job trains on
    the run's training images and saves after each beta; the same command goes on after an
    interruption. The result is written to RUN/evaluations/NAME/variational.json, which `gencomp
    figure ais --variational` draws.

    Args:
        run: Directory of a finished run whose system has a decoder from a Gaussian prior.
        name: Name of the evaluation, a directory in RUN/evaluations.
        encoders: How the encoders are trained and measured.
        submission: How the job runs.
    """
    from cluster.evaluations.encoders import plan
    from cluster.runs import open_run
    from slurm.kinds.encoders import EncoderJobs

    submission = submission.completed()
    opened = open_run(run, checkpoint)
    wanted = plan.make(opened, **dict(encoders), threads=submission.cpus)
    jobs = EncoderJobs(plan.Evaluation.find(opened, name, wanted))
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs)
