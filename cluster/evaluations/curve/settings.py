"""What the user chooses about a rate-distortion curve."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.evaluations import plans
from gencomp.errors import InputError

_LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]
DistortionName = Literal["squared_error", "gaussian_likelihood", "features"]
# Parts of beta_max where the chains are certified, unless betas are named.
BDMC_PARTS = (0.01, 0.1, 1.0)


class Settings(BaseModel):
    """Settings of pilot, measurement and certificate; the identity of a plan with its subject."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    split: str = Field(description="split of the shard set to measure")
    images: int = Field(ge=1, description="how many, evenly spaced over the split")
    block: int = Field(ge=1, description="images whose chains move together")
    chains: int = Field(ge=4, description="chains per image")
    temperatures: int = Field(ge=2, description="inverse temperatures of the measuring schedule")
    points: int = Field(ge=1, description="of them reported")
    beta_max: float = Field(gt=0, description="last inverse temperature")
    distortion: DistortionName = Field("squared_error", description="summed over an image")
    features: str | None = Field(None, description="SHA-256 of the feature network's file")
    leapfrog: int = Field(ge=1, description="steps of a trajectory")
    schedule: Literal["geodesic", "sigmoid"] = Field(
        "geodesic", description="of the measurement; geodesic ones come from the pilot"
    )
    preconditioner: Literal["none", "diagonal", "dense"] = Field(
        "dense", description="what of the latents' covariance scales the steps"
    )
    forces: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="precision inside trajectories; never that of d"
    )
    forces_until: float = Field(0.0, ge=0, description="last inverse temperature of such forces")
    seed: Seed = Field(description="of the measurement")
    tuning_seed: Seed = Field(description="of the pilot")
    pilot_images: int = Field(ge=1, description="images the pilot tunes on")
    pilot_temperatures: int = Field(ge=2, description="inverse temperatures of the pilot")
    pilot_schedule: Literal["sigmoid", "cess"] = Field(
        "sigmoid", description="of the pilot; cess adapts to the conditional ESS"
    )
    bdmc_images: int = Field(0, ge=0, description="simulated for each of bdmc_betas; 0: none")
    bdmc_betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="where the gap is measured, at the schedule's nearest temperatures"
    )
    bdmc_chains: int = Field(4, ge=1, description="chains per simulated image and direction")
    simulation_seed: Seed = Field(8, description="of the simulated images")
    threads: int = Field(
        ge=1, le=1024, description="threads of a job: their number shapes last bits"
    )
    device: Literal["cpu", "cuda"] = Field(description="where the decoder runs")

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
    return plans.checked(Settings, values)


def bdmc_betas(images: int, beta_max: float) -> tuple[float, ...]:
    """The betas of a certificate for which none are named; none without images."""
    return tuple(part * beta_max for part in BDMC_PARTS) if images else ()


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
