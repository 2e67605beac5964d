"""The next point of a search: Optuna's samplers as a pure function of what there was before.

No study of Optuna lives on. Each proposal is made by a new study that holds all earlier proposals
of the sweep, with a sampler whose seed belongs to the number of the proposal. So a sweep that was
killed goes on as if it had not been.

Beside Optuna's public interface this file depends on the system attributes of a trial, in which
samplers note what they need for later proposals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.proposals import PastProposal, Proposal
from sweeps.sweep_file import Entry, Grid, LogUniform, Search, Sweep, contains, draw

# After so many points that were tried already, the next point is drawn among the others.
_TRIES = 10


def propose(sweep: Sweep, past: Sequence[PastProposal]) -> Proposal | None:
    """The next point to try.

    Args:
        sweep: the sweep with its space, search, objective and seed.
        past: all earlier proposals, in their order; those that do not lie in this space, because
            they were made for another one, are left out.

    Returns:
        A point that was not proposed before, or None when there seems to be none.
    """
    assert sweep.search is not None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: _distribution(entry) for key, entry in sweep.space.items()}
    inside = [one for one in past if contains(sweep, one.proposal.point)]
    tried = [one.proposal.point for one in inside]
    if len(tried) >= _size(sweep.space):
        return None
    frozen = [_frozen(one, sweep.space, distributions) for one in inside]
    for attempt in range(_TRIES):
        sampler = _sampler(sweep.search, _seed(sweep, past, attempt))
        study = optuna.create_study(
            directions=["minimize"] * len(sweep.objective.minimised), sampler=sampler
        )
        study.add_trials(frozen)
        asked = study.ask(distributions)
        point = {key: _value(entry, asked.params[key]) for key, entry in sweep.space.items()}
        if point not in tried:
            return Proposal(point, study.trials[-1].system_attrs)
    generator = np.random.default_rng(_seed(sweep, past, _TRIES))
    if 2 * len(tried) < _size(sweep.space):  # a random point is a new one more often than not
        while (point := _drawn(sweep.space, generator)) in tried:
            pass
        return Proposal(point, {})
    untried = [point for point in _all_points(sweep.space) if point not in tried]
    return Proposal(untried[generator.integers(len(untried))], {}) if untried else None


def _seed(sweep: Sweep, past: Sequence[PastProposal], attempt: int) -> int:
    """The seed of an attempt at a proposal."""
    return int(np.random.SeedSequence([sweep.seed, len(past), attempt]).generate_state(1)[0])


def _drawn(space: Mapping[str, Entry], generator: np.random.Generator) -> dict[str, Any]:
    return {key: draw(entry, generator) for key, entry in space.items()}


def _size(space: Mapping[str, Entry]) -> float:
    """The number of points of a space, infinite unless all of it is grids."""
    return math.prod(
        len(entry.grid) if isinstance(entry, Grid) else math.inf for entry in space.values()
    )


def _all_points(space: Mapping[str, Entry]) -> Iterator[dict[str, Any]]:
    """The points of a space of grids; none of another space."""
    if math.isfinite(_size(space)):
        grids = [entry.grid for entry in space.values() if isinstance(entry, Grid)]
        yield from (dict(zip(space, values, strict=True)) for values in itertools.product(*grids))


def _sampler(search: Search, seed: int) -> BaseSampler:
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=search.population, seed=seed)
    if search.sampler == "tpe":
        # Trials that run now count as bad ones, so that several trials at once do not try the same
        # place.
        return TPESampler(seed=seed, constant_liar=True)
    return RandomSampler(seed)


def _distribution(entry: Entry) -> BaseDistribution:
    if isinstance(entry, Grid):
        # The choices are numbers, because Optuna compares choices and some of ours are lists.
        return CategoricalDistribution(range(len(entry.grid)))
    return FloatDistribution(*entry.bounds, log=isinstance(entry, LogUniform))


def _value(entry: Entry, parameter: Any) -> Any:
    return entry.grid[parameter] if isinstance(entry, Grid) else parameter


def _parameter(entry: Entry, value: Any) -> Any:
    return entry.grid.index(value) if isinstance(entry, Grid) else value


def _frozen(
    one: PastProposal, space: Mapping[str, Entry], distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    state = _STATES[one.state]
    values = one.values
    if state == TrialState.COMPLETE and len(values) > 1 and not all(map(math.isfinite, values)):
        state = TrialState.FAIL  # Optuna needs finite volumes behind a Pareto front
    point = one.proposal.point
    return create_trial(
        state=state,
        values=list(values) if state == TrialState.COMPLETE else None,
        params={key: _parameter(entry, point[key]) for key, entry in space.items()},
        distributions=distributions,
        system_attrs=dict(one.proposal.notes),
        intermediate_values=dict(one.scores) if state == TrialState.PRUNED else None,
    )


_STATES = {
    "running": TrialState.RUNNING,
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
