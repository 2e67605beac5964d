"""Sweeps that start from trials of other sweeps, such as decoders on an encoder that a sweep chose.

A sweep file names each parent run of its trials by the sweep that trains it and the point of that
sweep:

    parents:
      encoder: {sweep: urdp_lambda_mnist, point: {loss.perception_weight: 0.015}}

The other sweep lies beside this one, under its own name. Sweeps form a chain in this way, and
`gencomp sweep` on the last one, or on several of them, runs all of them in order.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gencomp import recipes
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe
from sweeps import plan, sweep_file
from sweeps.sweep_file import ParentTrial, Sweep

# The sections that every recipe has, so that a value for one sweep of a chain suits the others.
_SHARED_SECTIONS = ("data", "training", "evaluation")
assert set(_SHARED_SECTIONS) <= set(BaseRecipe.model_fields)


def directory_of(parent: str, directory: Path) -> Path:
    """The directory of a sweep that a sweep in `directory` names as a parent."""
    return directory.parent / Path(parent).stem


def shared(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of a command line that hold in every sweep of a chain."""
    return {key: value for key, value in overrides.items() if key.split(".")[0] in _SHARED_SECTIONS}


def chain(asked: Mapping[Path, Sweep], overrides: Mapping[str, Any]) -> dict[Path, Sweep]:
    """Sweeps and all that must have run before them, in the order in which they run.

    A sweep that several of them start from runs once.

    Args:
        asked: the sweeps that were asked for, by their directories.
        overrides: the recipe values of the command line, of which `shared` keeps some for the
            sweeps that were not asked for.

    Raises:
        InputError: a sweep names one that does not exist, or itself, or its space makes recipes
            that are not valid.
    """
    seen: dict[Path, Sweep] = {}
    for directory, sweep in asked.items():
        _visit(sweep, directory, (), _Asked(asked, shared(overrides)), seen)
    return seen


class _Asked(NamedTuple):
    """What was asked for: sweeps by their directories, and what holds in all others."""

    sweeps: Mapping[Path, Sweep]
    overrides: Mapping[str, Any]


def _visit(
    sweep: Sweep,
    directory: Path,
    below: tuple[Path, ...],
    asked: _Asked,
    seen: dict[Path, Sweep],
) -> None:
    """Add a sweep after those that it starts from; `below` are those that start from it."""
    if directory in seen:
        return
    if sweep.parents:  # hours may pass before such a trial is made
        raw = recipes.read(sweep.base)
        for point in sweep_file.extremes(sweep):
            recipes.validate(recipes.with_overrides(raw, {**sweep.overrides, **point}), sweep.base)
    for role, parent in sweep.parents.items():
        where = directory_of(parent.sweep, directory)
        if where in below or where == directory:
            raise InputError(
                f"the sweep {parent.sweep}, which parents.{role} names, starts from itself"
            )
        known = asked.sweeps.get(where)
        found = known if known is not None else sweep_file.load(parent.sweep, asked.overrides)
        _visit(found, where, (*below, directory), asked, seen)
    seen[directory] = sweep


def resolved(sweep: Sweep, directory: Path) -> Sweep:
    """The sweep with the runs of its parents as values of the recipe.

    Raises:
        InputError: a parent's sweep has not run, has no such trial or several, or has not finished
            it.
    """
    found = {
        f"parents.{role}": str(_trial(role, parent, directory))
        for role, parent in sweep.parents.items()
    }
    return sweep.model_copy(update={"overrides": {**sweep.overrides, **found}})


def _trial(role: str, parent: ParentTrial, directory: Path) -> Path:
    where = directory_of(parent.sweep, directory)
    if not plan.has_begun(where):
        raise InputError(
            f"parents.{role} is a trial of the sweep {where}, which has not run: run `gencomp sweep"
            f" {shlex.quote(str(parent.sweep))}` first"
        )
    point = ", ".join(f"{key}={value}" for key, value in parent.point.items())
    trials = plan.make(sweep_file.load(where / plan.SWEEP_FILE, {}), where)
    found = [
        trial
        for trial in trials
        if all(trial.point.get(key) == value for key, value in parent.point.items())
    ]
    if len(found) != 1:
        known = "; ".join(
            ", ".join(f"{key}={value}" for key, value in trial.point.items()) for trial in trials
        )
        raise InputError(
            f"parents.{role} asks for the trial of {where} with {point}, but there are {len(found)}"
            f" such trials; its trials are {known}"
        )
    if found[0].status() != "finished":
        raise InputError(
            f"parents.{role} is the trial of {where} with {point}, which has not finished: run"
            f" `gencomp sweep {shlex.quote(str(parent.sweep))}` again"
        )
    return found[0].path
