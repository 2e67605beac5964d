"""The settings and the state of a pilot, and the tensors that the state is saved as."""

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
    """The settings of a pilot, which stay fixed while a sampler is tuned.

    Attributes:
        distortion: the distortion of the pilot's images; a few images that resemble those to be
            measured are enough.
        prior: the prior, at which the chains start.
        beta_max: the last β of both walks and of the schedule.
        temperatures: the number of temperatures of the measuring round's schedule.
        chains: the number of chains per image, at least 4.
        leapfrog: the number of leapfrog steps of a trajectory.
        seed: the seed, which must differ from the measuring round's.
        image_ids: the ids of the pilot's images; 0, 1, ... by default.
        pilot_temperatures: the number of temperatures of the first walk, and the largest number for
            the second walk. With "cess" it is the largest number for the first walk too.
        schedule: the kind of the measuring round's schedule; "geodesic" has steps of equal
            thermodynamic length.
        pilot_schedule: the kind of the first walk's schedule: "sigmoid", or "cess", whose steps
            keep the conditional effective sample size.
        preconditioner: the kind of the metric.
        low_precision_until: the β up to which forces inside a trajectory may have low precision.

    Raises:
        InputError: a setting is out of range.
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
                f"chains is {self.chains} and leapfrog is {self.leapfrog}; there must be at "
                "least 4 chains and 1 leapfrog step."
            )
        images = self.distortion.x_IN.shape[0]
        ids = range(images) if self.image_ids is None else self.image_ids
        object.__setattr__(self, "image_ids", random.check_keys(self.seed, ids))
        if len(self.ids) != images:
            raise InputError(
                f"there are {len(self.ids)} image ids for {images} images; each needs one."
            )
        choices = {"schedule": Schedule, "pilot_schedule": PilotSchedule}
        for name, kind in {**choices, "preconditioner": Preconditioner}.items():
            if (value := getattr(self, name)) not in get_args(kind):
                raise InputError(f"{name} is {value!r}; it can be {', '.join(get_args(kind))}.")
        for temperatures in (self.temperatures, self.pilot_temperatures):
            schedules.sigmoid(self.beta_max, temperatures)  # raises if no schedule is possible

    @property
    def ids(self) -> tuple[int, ...]:
        assert self.image_ids is not None  # set on construction
        return tuple(self.image_ids)

    @property
    def second_length(self) -> int:
        """The number of temperatures of the second walk."""
        return min(self.temperatures, self.pilot_temperatures)

    def kernel(self) -> hmc.Kernel:
        return hmc.build_kernel(self.distortion, self.prior, self.leapfrog)

    @cached_property
    def fingerprint(self) -> Tensor:
        """The SHA-256 of everything but the decoder that the pilot depends on, uint8 [32]."""
        settings = (
            *(self.prior.identity, self.beta_max, self.temperatures, self.chains, self.leapfrog),
            *(self.seed, self.ids, self.pilot_temperatures, self.schedule, self.pilot_schedule),
            *(self.preconditioner, self.low_precision_until),
        )
        return ais.fingerprint(settings, self.distortion)


class PilotState(NamedTuple):
    """The state of a pilot during one of its walks."""

    chains: ais.AISState
    log_step: float
    rows: Tensor  # [p, 5] float64, this walk's rows: β, mean d, sd d, step size, acceptance
    explored: Tensor  # [P, 5], the rows of the first walk; empty during that walk
    scatter: Scatter  # the scatter of the first walk
    metric_betas: Tensor  # [P'] the temperatures at which the metric is known so far
    metric: Tensor  # [P', ...] the covariances at these temperatures


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
    """The state that ``to_tensors`` has saved.

    Raises:
        InputError: the tensors belong to another pilot.
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
