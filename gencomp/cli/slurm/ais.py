"""`gencomp slurm ais`: a rate-distortion curve with its certificate, as restartable jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gencomp.cli.slurm.submission import SUBMISSION, Submission
from gencomp.errors import InputError

if TYPE_CHECKING:
    from cluster.evaluations.curve.plan import Evaluation
    from cluster.evaluations.curve.settings import Settings

_BDMC_IMAGES = 4


@dataclass(frozen=True)
class ModelOptions:
    """Your own decoder, instead of RUN.

    Attributes:
        model: module:attribute of what makes it; docs/models.md says what it must have.
        weights: File of its weights: a checkpoint with the key state_dict, or .safetensors.
        shards: Shard set to measure on.
        output: Directory of the evaluation.
    """

    model: str | None = None
    weights: Path | None = None
    shards: str | None = None
    output: Path | None = None


@dataclass(frozen=True)
class CurveOptions:
    """What is measured.

    Attributes:
        name: Name of the evaluation, a directory in RUN/evaluations.
        checkpoint: Checkpoint of the run: last, best (by training.keep_best_metric) or a step.
        split: Split to measure.
        images: Images to measure, evenly spaced over the split.
        distortion: squared_error: summed over an image's values; gaussian_likelihood: negative
            log-likelihood with the decoder's variance; features: squared error of a network's
            features, summed.
        features: TorchScript file of that network, of images on the decoder's scale.
        beta_max: Last inverse temperature of the distortion.
        points: Temperatures reported.
        seed: Seed of the measurement.
        device: Where the decoder runs.
    """

    name: str = "ais"
    checkpoint: str = "last"
    split: str = "test"
    images: int = 16
    distortion: Literal["squared_error", "gaussian_likelihood", "features"] = "squared_error"
    features: Path | None = None
    beta_max: float = 10.0
    points: int = 30
    seed: int = 7
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class SamplerOptions:
    """How it is sampled.

    Attributes:
        chains: Chains per image.
        temperatures: Inverse temperatures of the schedule; more bring the curve closer to the
            model's own.
        schedule: geodesic: equal steps of the thermodynamic length that the pilot has seen.
        leapfrog: Leapfrog steps at each temperature.
        preconditioner: What of the latents' covariance, as the pilot has seen it, scales the steps.
        forces: Precision inside trajectories; that of the distortion and the weights stays.
        forces_until: Last inverse temperature at which such forces are used.
        block: Images whose chains move together; more suit a GPU.
    """

    chains: int = 4
    temperatures: int = 100
    schedule: Literal["geodesic", "sigmoid"] = "geodesic"
    leapfrog: int = 20
    preconditioner: Literal["none", "diagonal", "dense"] = "dense"
    forces: Literal["float32", "tf32", "bfloat16"] = "float32"
    forces_until: float = 0.0
    block: int = 2


@dataclass(frozen=True)
class PilotOptions:
    """How the sampler is tuned.

    Attributes:
        pilot_images: Measured images that the pilot tunes on, with the tuning seed.
        pilot_temperatures: Inverse temperatures of the pilot.
        pilot_schedule: Of its first walk; cess keeps the conditional effective sample size.
        tuning_seed: Seed of the pilot, another one than that of the measurement.
    """

    pilot_images: int = 3
    pilot_temperatures: int = 80
    pilot_schedule: Literal["sigmoid", "cess"] = "sigmoid"
    tuning_seed: int = 6


@dataclass(frozen=True)
class CertificateOptions:
    """How far the estimate can be off: bidirectional Monte Carlo on images of the model itself.

    Attributes:
        bdmc_images: Simulated images for each beta, 0 for no certificate; by default 4, and none
            with features.
        bdmc_betas: Where the gap is measured, at the schedule's nearest temperatures; by default a
            hundredth of beta-max, a tenth, and beta-max itself.
        bdmc_chains: Chains per simulated image and direction; by default as many as chains.
        simulation_seed: Seed of the simulated images.
    """

    bdmc_images: int | None = None
    bdmc_betas: tuple[float, ...] = ()
    bdmc_chains: int | None = None
    simulation_seed: int = 8


def ais(
    run: Path | None = None,
    /,
    model: Annotated[ModelOptions, tyro.conf.OmitArgPrefixes] = ModelOptions(),
    curve: Annotated[CurveOptions, tyro.conf.OmitArgPrefixes] = CurveOptions(),
    sampler: Annotated[SamplerOptions, tyro.conf.OmitArgPrefixes] = SamplerOptions(),
    pilot: Annotated[PilotOptions, tyro.conf.OmitArgPrefixes] = PilotOptions(),
    certificate: Annotated[CertificateOptions, tyro.conf.OmitArgPrefixes] = CertificateOptions(),
    submission: Annotated[Submission, tyro.conf.OmitArgPrefixes] = SUBMISSION,
) -> int:
    """Evaluate the rate-distortion curve of a decoder by annealed importance sampling.

    One pilot job tunes the sampler on some of the images with a seed of its own. Behind it come
    jobs that measure, jobs that bound the error by bidirectional Monte Carlo, and one that merges
    what they leave into curve.json and curve.parquet. The same command again submits only what is
    missing; jobs go on where they were interrupted. On Slurm it returns after submission unless
    --wait; on this machine it always waits, and Ctrl-C saves and stops its jobs. Options of sbatch
    that are not given are left to SBATCH_* variables and to the site.

    Args:
        run: Directory of a finished run whose system has a decoder from a latent prior.
        model: Your own decoder, instead of RUN.
        curve: What is measured.
        sampler: How it is sampled.
        pilot: How the sampler is tuned.
        certificate: How far the estimate can be off: bidirectional Monte Carlo on simulated images.
        submission: How the jobs run.
    """
    from slurm.kinds.curve import CurveJobs

    submission = submission.completed()
    chosen = _settings(curve, sampler, pilot, certificate, submission)
    if run is None:
        jobs = CurveJobs(_of_model(model, curve, chosen))
    else:
        jobs = CurveJobs(_of_run(run, model, curve, chosen))
    return submission.show(jobs) if submission.dry_run else submission.submit(jobs.enter())


def _settings(
    curve: CurveOptions,
    sampler: SamplerOptions,
    pilot: PilotOptions,
    certificate: CertificateOptions,
    submission: Submission,
) -> Settings:
    """
    Raises:
        InputError: a value is out of range, or values do not fit each other.
    """
    from cluster.evaluations.curve.settings import bdmc_betas, features_hash, settings

    values: dict[str, Any] = {
        **vars(curve),
        **vars(sampler),
        **vars(pilot),
        **vars(certificate),
        "threads": submission.cpus,
    }
    del values["name"], values["checkpoint"]
    if curve.features is not None:
        values["features"] = features_hash(curve.features)
    if certificate.bdmc_images is None:
        values["bdmc_images"] = 0 if curve.distortion == "features" else _BDMC_IMAGES
    if certificate.bdmc_chains is None:
        values["bdmc_chains"] = sampler.chains
    if not certificate.bdmc_betas:
        values["bdmc_betas"] = bdmc_betas(values["bdmc_images"], curve.beta_max)
    return settings(**values)


def _of_run(run: Path, own: ModelOptions, curve: CurveOptions, chosen: Settings) -> Evaluation:
    """
    Raises:
        InputError: there is no such run, it has no curve, or options of a model are given.
    """
    from cluster.checkpoints.store import parse_choice
    from cluster.evaluations.curve import plan
    from cluster.runs import open_run

    for option, value in vars(own).items():
        if value is not None:
            raise InputError(f"--{option} belongs to a model of your own; leave RUN {run} out")
    opened = open_run(run, parse_choice(curve.checkpoint))
    return plan.Evaluation.find(opened, curve.name, plan.make(opened, chosen, curve.features))


def _of_model(own: ModelOptions, curve: CurveOptions, chosen: Settings) -> Evaluation:
    """
    Raises:
        InputError: an option is missing, or the model does not fit the images.
    """
    from cluster.evaluations.curve import plan
    from cluster.evaluations.decoders import OfModel

    if own.model is None or own.shards is None or own.output is None:
        raise InputError(
            "name a finished RUN, or a model of your own by --model, --shards and --output"
        )
    if curve.checkpoint != "last":
        raise InputError("--checkpoint belongs to a RUN; a model of your own has its --weights")
    weights = None if own.weights is None else str(own.weights.resolve())
    model = OfModel(reference=own.model, weights=weights, directory=str(Path.cwd()))
    return plan.Evaluation.find_at(
        own.output, plan.make_for_model(model, own.shards, chosen, curve.features)
    )
