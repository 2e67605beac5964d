"""What the user chooses about a rate-distortion curve. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from cluster.evaluations.options import Device, Options, Seed, Threads
from gencomp.errors import InputError
from gencomp.validation import checked

BdmcImages = Annotated[int, Field(ge=0)]
BdmcChains = Annotated[int, Field(ge=1)]
# The number of simulated images of a certificate, unless it is given. The gap of four images can
# look small while that of most images is large.
_BDMC_IMAGES = 16
# The betas at which the chains are certified, as parts of beta_max, unless betas are given.
_CERTIFIED_PARTS = (0.01, 0.1, 1.0)


class CurveOptions(Options):
    """The options that say what is measured."""

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
    device: Device = Field("cpu", description="Device on which the decoder runs.")


class SamplerOptions(Options):
    """The options of the sampler."""

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
        description="Part of the latents' covariance that scales the steps, as the pilot has"
        " estimated it.",
    )
    forces: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Precision inside trajectories; the precision of the distortion and of the"
        " weights stays the same.",
    )
    forces_until: float = Field(
        0.0, ge=0, description="Last inverse temperature at which tf32 or bfloat16 forces are used."
    )
    block: int = Field(
        2, ge=1, description="Images whose chains move together; more make better use of a GPU."
    )


class PilotOptions(Options):
    """The options of the pilot, which tunes the sampler."""

    pilot_images: int = Field(
        3, ge=1, description="Measured images that the pilot tunes on, with the tuning seed."
    )
    pilot_temperatures: int = Field(80, ge=2, description="Inverse temperatures of the pilot.")
    pilot_schedule: Literal["sigmoid", "cess"] = Field(
        "sigmoid",
        description="Schedule of the pilot's first walk; cess keeps the conditional effective"
        " sample size constant.",
    )
    tuning_seed: Seed = Field(
        6, description="Seed of the pilot; it must differ from the seed of the measurement."
    )


class CertificateOptions(Options):
    """The options of the certificates, which show how far the estimate can be off: bidirectional
    Monte Carlo on simulated images, and chains from modes for the measured images."""

    bdmc_images: BdmcImages | None = Field(
        None,
        description="Simulated images for each beta, 0 for no gap; by default 16, or 0 where the"
        " distortion is that of features.",
    )
    bdmc_betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Inverse temperatures near which the gap is measured, each at the schedule's"
        " nearest one; by default a hundredth of beta-max, a tenth of it, and beta-max itself.",
    )
    bdmc_chains: BdmcChains | None = Field(
        None,
        description="Chains per simulated image and direction; by default the number of --chains.",
    )
    simulation_seed: Seed = Field(8, description="Seed of the simulated images.")
    certify: bool = Field(
        False,
        description="Certify the measured images themselves: bound log Z of each from below by"
        " chains from modes, which an encoder and optimisation find, and measure each with another"
        " seed once more.",
    )
    certify_betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Inverse temperatures near which measured images are certified, each at the"
        " nearest reported one; by default a hundredth of beta-max, a tenth of it, and beta-max"
        " itself.",
    )
    certify_starts: int = Field(
        16, ge=1, description="Starts of the search for modes, for each image and beta."
    )
    certify_seed: Seed = Field(
        9, description="Seed of the certificate of measured images; no other seed may be the same."
    )


class Settings(CertificateOptions, PilotOptions, SamplerOptions, CurveOptions):
    """The settings of pilot, measurement and certificate, which identify a plan with its subject.

    Attributes:
        features: the SHA-256 of the feature network's file.
        bdmc_images: the number of simulated images; 0 unless it is given.
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
        self._fit_certify()
        return self

    @model_serializer(mode="wrap")
    def _serialise(self, all_fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Plans that were written before measured images could be certified keep their identity.
        values: dict[str, Any] = all_fields(self)
        if not self.certify:
            values = {name: v for name, v in values.items() if not name.startswith("certify")}
        return values

    def _fit_certify(self) -> None:
        if self.certify != bool(self.certify_betas):
            raise ValueError("--certify and --certify-betas need each other")
        if self.certify_betas and max(self.certify_betas) > self.beta_max:
            raise ValueError(
                f"--certify-betas goes to {max(self.certify_betas):g}, beyond --beta-max "
                f"{self.beta_max:g}"
            )
        if self.certify and self.certify_seed in (self.seed, self.tuning_seed):
            raise ValueError("certify_seed must differ from seed and tuning_seed")

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
    """Settings that have been checked.

    Raises:
        InputError: a value is out of range; the message names the first such value.
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
    """The settings that the options give, with a value for everything that they leave open.

    Args:
        curve, sampler, pilot, certificate: the options.
        features: the file of the feature network.
        threads: the number of threads of each job.

    Raises:
        InputError: the values do not fit each other, or the file cannot be read.
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
        values["bdmc_betas"] = tuple(part * curve.beta_max for part in _CERTIFIED_PARTS)
    if certificate.certify and not certificate.certify_betas:
        values["certify_betas"] = tuple(part * curve.beta_max for part in _CERTIFIED_PARTS)
    return settings(**values)


def features_hash(path: Path) -> str:
    """The SHA-256 of a feature network's file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"--features {path} cannot be read: {error.strerror}") from None
