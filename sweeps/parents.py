"""Sweeps that start from trials of other sweeps, such as decoders on an encoder that a sweep chose.

A sweep file names each parent run of its trials by the sweep that trains it and the point of that
sweep:

    parents:
      encoder: {sweep: urdp_lambda_mnist, point: {loss.perception_weight: 0.015}}

With `every: true` a parent is each finished trial of the other sweep in turn, as if the space had a
grid of their runs: critics of all decoders are such a sweep.

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
from sweeps.sweep_file import Grid, ParentTrial, Sweep

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
    """The sweep with the runs of its parents as values of the recipe, or as a grid of its space.

    Raises:
        InputError: a parent's sweep has not run, has no such trial or several, or has not finished
            it.
    """
    fixed: dict[str, str] = {}
    varied: dict[str, Grid] = {}
    for role, parent in sweep.parents.items():
        runs = tuple(map(str, _runs(role, parent, directory)))
        if parent.every:
            varied[f"parents.{role}"] = Grid(grid=runs)
        else:
            (fixed[f"parents.{role}"],) = runs
    return sweep.model_copy(
        update={
            "overrides": {**sweep.overrides, **fixed},
            "space": {**sweep.space, **varied},
        }
    )


def _runs(role: str, parent: ParentTrial, directory: Path) -> list[Path]:
    """The run of the trial that a parent is, or the runs of each of them."""
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
    if parent.every:
        done = [trial.path for trial in found if trial.status() == "finished"]
        if not done:
            chosen = f" with {point}" if point else ""
            raise InputError(
                f"parents.{role} is each finished trial of {where}{chosen}, but there is none: run"
                f" `gencomp sweep {shlex.quote(str(parent.sweep))}` again"
            )
        return done
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
    return [found[0].path]
