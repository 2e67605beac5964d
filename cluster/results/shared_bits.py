"""Distortion at equal perception against the bits of randomness that sender and receiver share.

The theory compares the best encoder and decoder for each budget of shared bits. Here the runs of
one budget, of several weights of perception, are its curve of distortion and perception, and all
curves are read at the same perception.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.results import pictures, tradeoff
from cluster.runs import Run, open_run
from gencomp import recipes
from gencomp.errors import InputError
from gencomp.evaluation.measured import Measured
from gencomp.figures.shared_bits import Budget, Curves
from gencomp.rate_distortion.perception import best_mixture
from gencomp.recipes.schema import RECORD_FIELDS
from gencomp.report import TradeoffRun

KEY = "code.shared_bits"
# What runs may differ in besides: the location of the data, whose content is compared elsewhere,
# and what is written down of a run.
_FREE = (
    KEY,
    "training.seed",
    "data.shards",
    "evaluation.shards",
    *(f"training.{field}" for field in RECORD_FIELDS),
)


class _Codec(NamedTuple):
    """A codec of one budget; several seeds of it are one codec with their mean metrics."""

    distortion: Measured
    perception: Measured


def curves(
    paths: Sequence[Path], distortion: str, perception: str, at: Sequence[float] = ()
) -> Curves:
    """The distortion of each budget at each of some perceptions.

    Args:
        paths: the directories of the runs.
        distortion, perception: metrics of the runs.
        at: the perceptions; by default the least one that the runs of all budgets reach.

    Raises:
        InputError: a run is not finished or has no such metric or no shared bits, two runs differ
            in something else than their loss, budget and seed, or a perception is reached by none.
    """
    measured = tradeoff.measured(paths)
    runs = [open_run(Path(one.directory)) for one in measured]
    budgets = [_shared_bits(run) for run in runs]
    _require_comparable(runs)
    of_budget = {
        bits: _codecs(
            [
                (run, one)
                for run, one, own in zip(runs, measured, budgets, strict=True)
                if own == bits
            ],
            (distortion, perception),
        )
        for bits in sorted(set(budgets))
    }
    least = {bits: min(c.perception.value for c in codecs) for bits, codecs in of_budget.items()}
    levels = tuple(at) or (max(least.values()),)
    for level in levels:
        if level < min(least.values()):
            raise InputError(
                f"no run has a {perception} of {level:g} or less; the least is"
                f" {min(least.values()):.4g}"
            )
    layers = runs[0].system().symbols()
    return Curves(
        levels=levels,
        budgets=[
            Budget(bits, [_read(codecs, level) for level in levels])
            for bits, codecs in of_budget.items()
        ],
        runs=len(measured),
        rate=sum(layer.fixed_bits for layer in layers) if layers else None,
        values=sum(len(layer.bits_K) for layer in layers),
    )


def _shared_bits(run: Run) -> float:
    """The budget of a run's code, which may be that of its parent; infinite without a limit."""
    for key, value in _flat(run).items():
        if key.partition(":")[2] == KEY:
            return math.inf if value is None else float(value)
    raise InputError(f"{pictures.stage(run)} has no {KEY}, so it has no budget of shared bits")


def _flat(run: Run) -> dict[str, Any]:
    """The values of a run's recipe and of those of its parents, behind their roles."""
    every = {"": run.recipe(), **run.parent_recipes()}
    return {
        f"{role}:{key}": value
        for role, recipe in every.items()
        for key, value in recipes.flatten(recipe.model_dump(mode="json")).items()
    }


def _is_of_loss(key: str) -> bool:
    return key.partition(":")[2].startswith("loss.")


def _compared(run: Run) -> dict[str, Any]:
    """What must be equal of a run and its parents."""
    return {
        key: value
        for key, value in _flat(run).items()
        if key.partition(":")[2] not in _FREE
        and not _is_of_loss(key)
        and not key.partition(":")[2].startswith("parents.")
    }


def _require_comparable(runs: Sequence[Run]) -> None:
    first = _compared(runs[0])
    for run in runs[1:]:
        own = _compared(run)
        for key in dict.fromkeys([*first, *own]):
            if first.get(key) != own.get(key):
                raise InputError(
                    f"{pictures.stage(runs[0])} and {pictures.stage(run)} differ in {_said(key)}"
                    f" ({first.get(key)} and {own.get(key)}), so their difference would not be that"
                    " of their shared bits"
                )


def _said(key: str) -> str:
    role, _, name = key.partition(":")
    return f"{name} of their {role} runs" if role else name


def _codecs(runs: Sequence[tuple[Run, TradeoffRun]], names: tuple[str, str]) -> list[_Codec]:
    """The codecs of one budget, one for each loss."""
    of_loss: dict[tuple[Any, ...], list[Mapping[str, Measured]]] = {}
    for run, one in runs:
        for name in names:
            if name not in one.values:
                known = ", ".join(sorted(one.values))
                raise InputError(f"{pictures.stage(run)} has no {name}; it has {known}")
        loss = tuple(str(value) for key, value in _flat(run).items() if _is_of_loss(key))
        of_loss.setdefault(loss, []).append(one.values)
    return [
        _Codec(*(_mean([v[name] for v in seeds]) for name in names)) for seeds in of_loss.values()
    ]


def _mean(values: Sequence[Measured]) -> Measured:
    return _combined([(1 / len(values), one) for one in values])


def _read(codecs: Sequence[_Codec], level: float) -> Measured | None:
    """The distortion of the best mixture at a perception; None where no codec reaches it.

    Its interval takes the errors of all four numbers as independent: those of the perceptions move
    the distortion along the chord.
    """
    pairs = [(one.distortion.value, one.perception.value) for one in codecs]
    mixture = best_mixture(pairs, level)
    if mixture is None:
        return None
    near, far, share = codecs[mixture.first], codecs[mixture.second], mixture.share
    if share == 0:
        return near.distortion
    chord = pairs[mixture.second][0] - pairs[mixture.first][0]
    slope = chord / (pairs[mixture.second][1] - pairs[mixture.first][1])
    value = (1 - share) * near.distortion.value + share * far.distortion.value
    parts = [
        (1 - share, near.distortion),
        (share, far.distortion),
        ((share - 1) * slope, near.perception),
        (-share * slope, far.perception),
    ]
    return Measured(value, _around(value, parts))


def _combined(parts: Sequence[tuple[float, Measured]]) -> Measured:
    value = math.fsum(weight * one.value for weight, one in parts)
    return Measured(value, _around(value, parts))


def _around(value: float, parts: Sequence[tuple[float, Measured]]) -> tuple[float, float] | None:
    """The interval of a sum of weighted values with independent errors, if all errors are known."""
    squares = []
    for weight, one in parts:
        if one.interval is None:
            return None
        squares.append((weight * (one.interval[1] - one.interval[0]) / 2) ** 2)
    half = math.sqrt(math.fsum(squares))
    return value - half, value + half
