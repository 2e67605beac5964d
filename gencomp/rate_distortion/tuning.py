"""The settings that a tuning round chooses and a measuring round keeps fixed.

They are the schedule, the metric, the step sizes and the trajectory length. The bounds of annealed
importance sampling hold only for kernels that do not depend on the run's own randomness, so the
settings are frozen here, together with the seed that they were found with.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import zipfile
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gencomp.errors import InputError
from gencomp.rate_distortion import preconditioning, schedules

_FORMAT = 2


def _nothing() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Tuning:
    """A frozen sampler.

    Attributes:
        betas: [T] the inverse temperatures, float64, strictly increasing from 0.
        step_sizes: [T] the step sizes, float64; entry j belongs to transitions at betas[j]. Only a
            reversed path uses entry 0.
        leapfrog: the number of leapfrog steps of a trajectory.
        latent_dim: the number K of latent dimensions.
        prior: the identity of the prior that the sampler was tuned for.
        seed: the seed of the tuning round; a measuring round must use another.
        low_precision_until: the β up to which forces inside a trajectory may have low precision.
        metric_betas: [P'] the temperatures of the metric, increasing and positive; empty for the
            identity.
        metric: the covariances of the latents at those temperatures, by which steps are scaled,
            [P', K, K], or their diagonals [P', K].
        pilot_betas, pilot_mean_d, pilot_sd_d, pilot_acceptance: [P] the measurements of the pilot,
            averaged over its images (the sd is the root of the mean variance).
    """

    betas: np.ndarray
    step_sizes: np.ndarray
    leapfrog: int
    latent_dim: int
    prior: str
    seed: int
    low_precision_until: float = 0.0
    metric_betas: np.ndarray = field(default_factory=_nothing)
    metric: np.ndarray = field(default_factory=_nothing)
    pilot_betas: np.ndarray = field(default_factory=_nothing)
    pilot_mean_d: np.ndarray = field(default_factory=_nothing)
    pilot_sd_d: np.ndarray = field(default_factory=_nothing)
    pilot_acceptance: np.ndarray = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", schedules.check(self.betas))
        steps = np.ascontiguousarray(self.step_sizes, dtype=np.float64)
        if steps.shape != self.betas.shape or not ((steps > 0) & np.isfinite(steps)).all():
            raise InputError("a tuning needs one positive step size for every temperature.")
        object.__setattr__(self, "step_sizes", steps)
        if self.leapfrog < 1 or self.latent_dim < 1 or not self.low_precision_until >= 0:
            raise InputError(
                f"leapfrog {self.leapfrog} and latent_dim {self.latent_dim} must be positive, "
                f"low_precision_until {self.low_precision_until} must not be negative."
            )
        preconditioning.check(self.metric_betas, self.metric, self.latent_dim)

    @property
    def temperatures(self) -> int:
        return len(self.betas)

    @property
    def expected_gap(self) -> float:
        """The mean shortfall of the log Z of one chain, in nats, if its moves are independent.

        It follows from the pilot's fluctuations of d and the schedule (``schedules.expected_gap``),
        and is not a number without a pilot. Chains whose moves depend on each other fall short by
        their integrated autocorrelation time as many times.
        """
        if not len(self.pilot_betas):
            return float("nan")
        return schedules.expected_gap(self.betas, self.pilot_betas, self.pilot_sd_d)

    def factor(self, temperature: int) -> np.ndarray | None:
        """The A for which A Aᵀ is the metric at a temperature.

        It is a lower triangular matrix [K, K], a vector [K] for a diagonal metric, or None for the
        identity.
        """
        return preconditioning.factor(
            self.metric_betas, self.metric, float(self.betas[temperature])
        )

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of everything that a measuring run takes from the tuning."""
        digest = hashlib.sha256()
        scalars = (self.leapfrog, self.latent_dim, self.prior, self.seed, self.low_precision_until)
        digest.update(repr((_FORMAT, *scalars)).encode())
        for values in (self.betas, self.step_sizes, self.metric_betas, self.metric):
            digest.update(repr(values.shape).encode())
            digest.update(values.astype("<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file, either completely or not at all."""
        path = Path(path)
        arrays: dict[str, Any] = {
            field.name: np.asarray(getattr(self, field.name)) for field in fields(self)
        }
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, format=np.asarray(_FORMAT), hash=np.asarray(self.hash), **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tuning:
        """Read the tuning that ``save`` has written.

        Raises:
            InputError: the file does not exist, is not a tuning, or has been changed.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
        except FileNotFoundError:
            raise InputError(f"there is no tuning at {path}; run the tuning round first.") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a tuning file ({error}).") from None
        expected = {"format", "hash", *(field.name for field in fields(cls))}
        if set(stored) != expected or int(stored["format"]) != _FORMAT:
            raise InputError(f"{path} is not a tuning file of format {_FORMAT}.")
        values = {field.name: stored[field.name] for field in fields(cls)}
        tuning = cls(**{name: v if v.ndim else v.item() for name, v in values.items()})
        if tuning.hash != stored["hash"].item():
            raise InputError(
                f"{path} does not hold what was saved there; run the tuning round again."
            )
        return tuning
