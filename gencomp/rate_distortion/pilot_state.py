"""The settings and the state of a pilot, and the state as tensors to save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from gencomp.errors import InputError
from gencomp.rate_distortion import ais, hmc, random, schedules
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.preconditioning import Preconditioner, Scatter
from gencomp.rate_distortion.priors import Prior

Schedule = Literal["geodesic", "sigmoid"]
PilotSchedule = Literal["sigmoid", "cess"]
_TENSORS = ("rows", "explored", "metric_betas", "metric")


@dataclass(frozen=True, eq=False)
class PilotRun:
    """What stays fixed while a sampler is tuned.

    Attributes:
        distortion: of the pilot's images; a few that resemble those to be measured are enough.
        prior: where the chains start.
        beta_max: the end of both walks and of the schedule.
        temperatures: of the schedule to be measured with.
        chains: per image, at least 4.
        leapfrog: steps of a trajectory.
        seed: must differ from the measuring round's.
        image_ids: of the pilot's images; 0, 1, ... if not given.
        pilot_temperatures: of the first walk (at most, with "cess"), and at most of the second.
        schedule: to be measured with: "geodesic" has steps of equal thermodynamic length.
        pilot_schedule: of the first walk: "sigmoid", or "cess", whose steps keep the conditional
            effective sample size.
        preconditioner: the metric.
        low_precision_until: up to this β forces inside a trajectory may be of low precision.

    Raises:
        InputError: a setting out of range.
    """

    distortion: Distortion
    prior: Prior
    beta_max: float
    temperatures: int
    chains: int
    leapfrog: int
    seed: int
    image_ids: Sequence[int] | None = None
    pilot_temperatures: int = 500
    schedule: Schedule = "geodesic"
    pilot_schedule: PilotSchedule = "sigmoid"
    preconditioner: Preconditioner = "dense"
    low_precision_until: float = 0.0

    def __post_init__(self) -> None:
        if self.chains < 4 or self.leapfrog < 1:
            raise InputError(
                f"chains {self.chains} and leapfrog {self.leapfrog} must be positive, with at "
                "least 4 chains."
            )
        images = self.distortion.x_IN.shape[0]
        ids = range(images) if self.image_ids is None else self.image_ids
        object.__setattr__(self, "image_ids", random.check_keys(self.seed, ids))
        if len(self.ids) != images:
            raise InputError(f"{len(self.ids)} image ids for {images} images; one for each.")
        choices = {"schedule": Schedule, "pilot_schedule": PilotSchedule}
        for name, kind in {**choices, "preconditioner": Preconditioner}.items():
            if (value := getattr(self, name)) not in get_args(kind):
                raise InputError(f"{name} is {value!r}; it can be {', '.join(get_args(kind))}.")
        for temperatures in (self.temperatures, self.pilot_temperatures):
            schedules.sigmoid(self.beta_max, temperatures)  # raises if there is none

    @property
    def ids(self) -> tuple[int, ...]:
        assert self.image_ids is not None  # set on construction
        return tuple(self.image_ids)

    @property
    def second_length(self) -> int:
        """Temperatures of the second walk."""
        return min(self.temperatures, self.pilot_temperatures)

    def kernel(self) -> hmc.Kernel:
        return hmc.build_kernel(self.distortion, self.prior, self.leapfrog)

    @cached_property
    def fingerprint(self) -> Tensor:
        """SHA-256 of all that the pilot depends on but the decoder, uint8 [32]."""
        settings = (
            *(self.prior.identity, self.beta_max, self.temperatures, self.chains, self.leapfrog),
            *(self.seed, self.ids, self.pilot_temperatures, self.schedule, self.pilot_schedule),
            *(self.preconditioner, self.low_precision_until),
        )
        return ais.fingerprint(settings, self.distortion)


class PilotState(NamedTuple):
    """Where the walk stands."""

    chains: ais.AISState
    log_step: float
    rows: Tensor  # [p, 5] float64, of this walk: β, mean d, sd d, step size, acceptance
    explored: Tensor  # [P, 5], rows of the first walk; empty during it
    scatter: Scatter  # of the first walk
    metric_betas: Tensor  # [P'] knots so far
    metric: Tensor  # [P', ...] covariances there


def to_tensors(run: PilotRun, state: PilotState) -> dict[str, Tensor]:
    """The state as a flat dictionary of CPU tensors, with the fingerprint of its run."""
    rest = {name: getattr(state, name) for name in _TENSORS}
    tensors = {
        **ais.flatten(state.chains),
        **state.scatter._asdict(),
        **rest,
        "log_step": torch.tensor(state.log_step, dtype=torch.float64),
        "fingerprint": run.fingerprint,
    }
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def from_tensors(run: PilotRun, tensors: dict[str, Tensor]) -> PilotState:
    """Continue exactly where ``to_tensors`` stood.

    Raises:
        InputError: the tensors are of another pilot.
    """
    names = {*ais.TENSORS, *Scatter._fields, *_TENSORS, "log_step", "fingerprint"}
    if set(tensors) != names or not torch.equal(tensors["fingerprint"].cpu(), run.fingerprint):
        raise InputError("the saved chains belong to another pilot (settings, images or dtype).")
    return PilotState(
        chains=ais.unflatten(tensors, run.distortion.x_IN.device),
        log_step=tensors["log_step"].item(),
        scatter=Scatter(*(tensors[name] for name in Scatter._fields)),
        **{name: tensors[name] for name in _TENSORS},
    )
