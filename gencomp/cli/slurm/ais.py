"""`gencomp slurm ais`, which measures a rate-distortion curve and its certificate in jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.evaluations.curve.settings import (
    CertificateOptions,
    CurveOptions,
    PilotOptions,
    SamplerOptions,
    Settings,
    complete,
)
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.slurm.submission import SubmissionOptions
from gencomp.errors import InputError

if TYPE_CHECKING:
    from cluster.evaluations.curve.plan import Evaluation
    from cluster.runs import Run


@dataclass(frozen=True)
class ModelOptions:
    """A decoder of your own, which is evaluated instead of RUN.

    Attributes:
        model: The function or class that makes the decoder, as module:attribute; docs/models.md
            says what the decoder must have.
        weights: File of the decoder's weights: a checkpoint with the key state_dict, or
            .safetensors.
        shards: Shard set to measure on.
        output: Directory of the evaluation.
    """

    model: str | None = None
    weights: Path | None = None
    shards: str | None = None
    output: Path | None = None


def ais(
    run: Path | None = None,
    /,
    *,
    name: str = "ais",
    checkpoint: Checkpoint = "last",
    features: Path | None = None,
    model: Annotated[ModelOptions, tyro.conf.OmitArgPrefixes],
    curve: Annotated[CurveOptions, tyro.conf.OmitArgPrefixes],
    sampler: Annotated[SamplerOptions, tyro.conf.OmitArgPrefixes],
    pilot: Annotated[PilotOptions, tyro.conf.OmitArgPrefixes],
    certificate: Annotated[CertificateOptions, tyro.conf.OmitArgPrefixes],
    submission: SubmissionOptions,
) -> int:
    """Evaluate the rate-distortion curve of a decoder by annealed importance sampling.

    One pilot job tunes the sampler on some of the images with a seed of its own. After it come jobs
    that measure, jobs that bound the error by bidirectional Monte Carlo, and one job that merges
    their results into curve.json and curve.parquet. When the same command is given again, it
    submits only what is missing; jobs go on where they were interrupted. On Slurm the command
    returns after submission, unless --wait is given. On this machine it always waits, and Ctrl-C
    saves and stops its jobs. Options of sbatch that are not given are left to SBATCH_* variables
    and to the site.

    Args:
        run: Directory of a finished run whose system has a decoder from a latent prior.
        name: Name of the evaluation, a directory in RUN/evaluations.
        features: TorchScript file of the network whose features are compared; it takes images on
            the decoder's scale.
        model: A decoder of your own, which is evaluated instead of RUN.
        curve: The curve that is measured.
        sampler: How the curve is sampled.
        pilot: How the sampler is tuned.
        certificate: How far the estimate can be off: bidirectional Monte Carlo on simulated images.
        submission: How the jobs run.
    """
    from cluster.runs import open_run
    from slurm.kinds.curve import CurveJobs

    submission = submission.completed()
    chosen = complete(
        curve, sampler, pilot, certificate, features=features, threads=submission.cpus
    )
    if run is not None:
        _require_no_model(run, model)
        jobs = CurveJobs(_of_run(open_run(run, checkpoint), name, chosen, features))
    elif checkpoint == "last":
        jobs = CurveJobs(_of_model(model, chosen, features))
    else:
        raise InputError("--checkpoint belongs to a RUN; a model of your own has its --weights")
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs)


def _require_no_model(run: Path, own: ModelOptions) -> None:
    """Raise `InputError` if options of a model of the user's own stand beside a run."""
    for option, value in vars(own).items():
        if value is not None:
            raise InputError(f"--{option} belongs to a model of your own; leave RUN {run} out")


def _of_run(run: Run, name: str, chosen: Settings, features: Path | None) -> Evaluation:
    """The evaluation of a run.

    Raises:
        InputError: The run has no curve.
    """
    from cluster.evaluations.curve import plan

    return plan.Evaluation.find(run, name, plan.make(run, chosen, features))


def _of_model(own: ModelOptions, chosen: Settings, features: Path | None) -> Evaluation:
    """The evaluation of a model of the user's own.

    Raises:
        InputError: An option is missing, or the model does not fit the images.
    """
    from cluster.evaluations.curve import plan
    from cluster.evaluations.decoders import OfModel

    if own.model is None or own.shards is None or own.output is None:
        raise InputError(
            "name a finished RUN, or a model of your own by --model, --shards and --output"
        )
    weights = None if own.weights is None else str(own.weights.resolve())
    model = OfModel(reference=own.model, weights=weights, directory=str(Path.cwd()))
    return plan.Evaluation.find_at(
        own.output, plan.make_for_model(model, own.shards, chosen, features)
    )
