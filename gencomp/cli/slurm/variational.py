"""`gencomp slurm variational`: the curve of trained encoders, beside the one of `slurm ais`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gencomp.cli.slurm.submission import SUBMISSION, Submission


@dataclass(frozen=True)
class BaselineOptions:
    """What is trained and measured.

    Attributes:
        name: Name of the evaluation, a directory in RUN/evaluations.
        checkpoint: Checkpoint of the run: last, best (by training.keep_best_metric) or a step.
        split: Split to measure.
        images: Images to measure, evenly spaced over the split; those of `gencomp slurm ais` if
            their number is the same.
        distortion: squared_error: summed over an image's values; gaussian_likelihood: negative
            log-likelihood with the decoder's variance.
        betas: Inverse temperatures, in the order in which encoders are trained: each begins where
            the one before ended.
        training_images: Images of the training split to train on; by default all.
        epochs: Over them, for each beta.
        batch_size: Images of a training step.
        learning_rate: Of Adam; it falls to 0 for each beta.
        samples: Latents of each measured image.
        seed: Of weights, order and samples.
        device: Where it runs.
    """

    name: str = "variational"
    checkpoint: str = "last"
    split: str = "test"
    images: int = 16
    distortion: Literal["squared_error", "gaussian_likelihood"] = "squared_error"
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    training_images: int | None = None
    epochs: int = 50
    batch_size: int = 100
    learning_rate: float = 1e-4
    samples: int = 100
    seed: int = 9
    device: Literal["cpu", "cuda"] = "cpu"


def variational(
    run: Path,
    /,
    encoders: Annotated[BaselineOptions, tyro.conf.OmitArgPrefixes] = BaselineOptions(),
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Train Gaussian encoders for a frozen decoder, one for each beta, and measure their curve.

    It lies above the curve of `gencomp slurm ais` by what such encoders lose. One job trains on the
    run's training images and saves after each beta; the same command goes on after an interruption.
    The result is RUN/evaluations/NAME/variational.json, which `gencomp figure ais --variational`
    draws.

    Args:
        run: Directory of a finished run whose system has a decoder from a Gaussian prior.
        encoders: What is trained and measured.
        submission: How the job runs.
    """
    from cluster.checkpoints.store import parse_choice
    from cluster.evaluations.encoders import plan
    from cluster.runs import open_run
    from slurm.kinds.encoders import EncoderJobs

    submission = submission.completed()
    opened = open_run(run, parse_choice(encoders.checkpoint))
    values: dict[str, Any] = {**vars(encoders), "threads": submission.cpus}
    name = values.pop("name")
    del values["checkpoint"]
    wanted = plan.make(opened, **values)
    jobs = EncoderJobs(plan.Evaluation.find(opened, name, wanted))
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs.enter())
