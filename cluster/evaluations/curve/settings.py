"""What the user chooses about a rate-distortion curve. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cluster.evaluations.options import Device, Options, Seed, Threads
from gencomp.errors import InputError
from gencomp.validation import checked

BdmcImages = Annotated[int, Field(ge=0)]
BdmcChains = Annotated[int, Field(ge=1)]
# Simulated images of a certificate, unless their number is given.
_BDMC_IMAGES = 4
# Parts of beta_max where the chains are certified, unless betas are named.
_BDMC_PARTS = (0.01, 0.1, 1.0)


class CurveOptions(Options):
    """What is measured."""

    split: str = Field("test", description="Split to measure.")
    images: int = Field(16, ge=1, description="Images to measure, evenly spaced over the split.")
    distortion: Literal["squared_error", "gaussian_likelihood", "features"] = Field(
        "squared_error",
        description="squared_error: summed over an image's values; gaussian_likelihood: negative"
        " log-likelihood with the decoder's variance; features: squared error of a network's"
        " features, summed.",
    )
    beta_max: float = Field(10.0, gt=0, description="Last inverse temperature of the distortion.")
    points: int = Field(30, ge=1, description="Temperatures reported.")
    seed: Seed = Field(7, description="Seed of the measurement.")
    device: Device = Field("cpu", description="Where the decoder runs.")


class SamplerOptions(Options):
    """How it is sampled."""

    chains: int = Field(4, ge=4, description="Chains per image.")
    temperatures: int = Field(
        100,
        ge=2,
        description="Inverse temperatures of the schedule; more bring the curve closer to the"
        " model's own.",
    )
    schedule: Literal["geodesic", "sigmoid"] = Field(
        "geodesic",
        description="geodesic: equal steps of the thermodynamic length that the pilot has seen.",
    )
    leapfrog: int = Field(20, ge=1, description="Leapfrog steps at each temperature.")
    preconditioner: Literal["none", "diagonal", "dense"] = Field(
        "dense",
        description="What of the latents' covariance, as the pilot has seen it, scales the steps.",
    )
    forces: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Precision inside trajectories; that of the distortion and the weights stays.",
    )
    forces_until: float = Field(
        0.0, ge=0, description="Last inverse temperature at which such forces are used."
    )
    block: int = Field(2, ge=1, description="Images whose chains move together; more suit a GPU.")


class PilotOptions(Options):
    """How the sampler is tuned."""

    pilot_images: int = Field(
        3, ge=1, description="Measured images that the pilot tunes on, with the tuning seed."
    )
    pilot_temperatures: int = Field(80, ge=2, description="Inverse temperatures of the pilot.")
    pilot_schedule: Literal["sigmoid", "cess"] = Field(
        "sigmoid",
        description="Schedule of the pilot's first walk; cess keeps the conditional effective"
        " sample size.",
    )
    tuning_seed: Seed = Field(
        6, description="Seed of the pilot, another one than that of the measurement."
    )


class CertificateOptions(Options):
    """How far the estimate can be off: bidirectional Monte Carlo on simulated images."""

    bdmc_images: BdmcImages | None = Field(
        None,
        description="Simulated images for each beta, 0 for no certificate; by default 4, and none"
        " with features.",
    )
    bdmc_betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Where the gap is measured, at the schedule's nearest temperatures; by default"
        " a hundredth of beta-max, a tenth, and beta-max itself.",
    )
    bdmc_chains: BdmcChains | None = Field(
        None,
        description="Chains per simulated image and direction; by default as many as chains.",
    )
    simulation_seed: Seed = Field(8, description="Seed of the simulated images.")


class Settings(CertificateOptions, PilotOptions, SamplerOptions, CurveOptions):
    """Settings of pilot, measurement and certificate; the identity of a plan with its subject.

    Attributes:
        features: SHA-256 of the feature network's file.
        bdmc_images: none unless their number is given.
    """

    features: str | None = None
    bdmc_images: BdmcImages = 0
    bdmc_chains: BdmcChains = 4
    threads: Threads

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        if self.seed == self.tuning_seed:
            raise ValueError("seed and tuning_seed must differ, or the curve is no bound")
        if (self.forces == "float32") != (self.forces_until == 0):
            raise ValueError(
                f"--forces {self.forces} does not fit --forces-until {self.forces_until:g}: it is "
                "the last inverse temperature of tf32 or bfloat16, and 0 without them"
            )
        if (self.distortion == "features") != (self.features is not None):
            raise ValueError("--distortion features and --features FILE need each other")
        self._fit_bdmc()
        return self

    def _fit_bdmc(self) -> None:
        if bool(self.bdmc_images) != bool(self.bdmc_betas):
            raise ValueError("--bdmc-images and --bdmc-betas need each other")
        if self.bdmc_images == 1:
            raise ValueError("--bdmc-images 1 would leave the gap without an error; ask for 0 or 2")
        if self.bdmc_images and self.distortion == "features":
            raise ValueError(
                "--bdmc-images must be 0 with --distortion features: no image can be drawn exactly "
                "for a known latent, so there is no upper bound of log Z"
            )
        if self.bdmc_betas and max(self.bdmc_betas) > self.beta_max:
            raise ValueError(
                f"--bdmc-betas goes to {max(self.bdmc_betas):g}, beyond --beta-max "
                f"{self.beta_max:g}"
            )


def settings(**values: Any) -> Settings:
    """Checked settings.

    Raises:
        InputError: one sentence about the first value out of range.
    """
    return checked(Settings, values)


def complete(
    curve: CurveOptions,
    sampler: SamplerOptions,
    pilot: PilotOptions,
    certificate: CertificateOptions,
    *,
    features: Path | None,
    threads: int,
) -> Settings:
    """The settings that options amount to, with what they leave open.

    Args:
        curve, sampler, pilot, certificate: the options.
        features: file of the feature network.
        threads: of each job.

    Raises:
        InputError: values do not fit each other, or the file cannot be read.
    """
    values = {**dict(curve), **dict(sampler), **dict(pilot), **dict(certificate)}
    values |= {
        "threads": threads,
        "features": None if features is None else features_hash(features),
    }
    if certificate.bdmc_images is None:
        values["bdmc_images"] = 0 if curve.distortion == "features" else _BDMC_IMAGES
    if certificate.bdmc_chains is None:
        values["bdmc_chains"] = sampler.chains
    if values["bdmc_images"] and not certificate.bdmc_betas:
        values["bdmc_betas"] = tuple(part * curve.beta_max for part in _BDMC_PARTS)
    return settings(**values)


def features_hash(path: Path) -> str:
    """The SHA-256 of a feature network's file.

    Raises:
        InputError: there is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"--features {path} cannot be read: {error.strerror}") from None
