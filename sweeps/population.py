"""Population based training: which member goes on from whose state, and with which values.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", with truncation selection.
All members train up to the same step; then the worst are replaced. Each stretch between two
exchanges is a trial of its own, whose recipe holds the values that it was trained with from its
first step to its last. Everything here is a pure function: the same scores give the same exchanges,
whatever order the trials ended in and however often the sweep was killed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gencomp.errors import InputError
from sweeps.sweep_file import Entry, Grid, LogUniform, Sweep, draw

# Sec. 4.1.1 of the paper perturbs by 1.2 or 0.8.
_FACTORS = (0.8, 1.2)
# A linear range may hold 0, so a value in it moves by this share of the range instead.
_SHARE = 0.1


class Member(NamedTuple):
    """What a member of the population does up to the next exchange.

    Attributes:
        point: the values of the keys in the space.
        parent: the number of the member of the round before from whose state this one starts; None
            in the first round.
    """

    point: dict[str, Any]
    parent: int | None


def first_round(sweep: Sweep) -> list[Member]:
    """The members of the first round, at random points."""
    assert sweep.population is not None
    generator = _generator(sweep, 0)
    return [
        Member({key: draw(entry, generator) for key, entry in sweep.space.items()}, None)
        for _ in range(sweep.population.size)
    ]


def next_round(
    sweep: Sweep, number: int, members: Sequence[Member], scores: Sequence[float]
) -> list[Member]:
    """The members after an exchange.

    Args:
        sweep: a sweep with a population.
        number: the number of the round that begins, where the first round has number 0.
        members: the members of the round before.
        scores: the scores of these members, the least of which is the best; the score of a member
            that failed or diverged is infinite.

    Returns:
        As many members as before. Each goes on from its own state, except that the worst, and all
        without a finite score, go on from the state of one of the best, with other values.

    Raises:
        InputError: no member has a finite score.
    """
    assert sweep.population is not None
    order = sorted(range(len(members)), key=lambda member: (scores[member], member))
    count = max(1, round(sweep.population.replaced * len(members)))
    best = [member for member in order[:count] if math.isfinite(scores[member])]
    if not best:
        raise InputError(
            f"no member of the population has a finite score after {number} rounds: choose another"
            " --name and a narrower space, or recipe values with which training is stable"
        )
    worst = {member for member in order[-count:] if scores[member] > scores[best[-1]]}
    worst |= {member for member in order if not math.isfinite(scores[member])}
    generator = _generator(sweep, number)
    found = []
    for own, member in enumerate(members):
        # The numbers are drawn for every member, so that they do not depend on who is replaced.
        chosen = best[int(generator.integers(len(best)))]
        less = {key: bool(generator.uniform() < 0.5) for key in sweep.space}
        if own not in worst:
            found.append(Member(member.point, own))
            continue
        point = {
            key: _perturbed(entry, members[chosen].point[key], less[key])
            for key, entry in sweep.space.items()
        }
        found.append(Member(point, chosen))
    return found


def _perturbed(entry: Entry, value: Any, less: bool) -> Any:
    """A value near another one, inside the space."""
    if isinstance(entry, Grid):
        place = entry.grid.index(value) + (-1 if less else 1)
        return entry.grid[min(max(place, 0), len(entry.grid) - 1)]
    low, high = entry.bounds
    if isinstance(entry, LogUniform):
        moved = value * _FACTORS[0 if less else 1]
    else:
        moved = value + (-_SHARE if less else _SHARE) * (high - low)
    return float(min(max(moved, low), high))


def _generator(sweep: Sweep, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([sweep.seed, number])))
