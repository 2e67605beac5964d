"""What the space of a sweep can name, as text for a terminal."""

from __future__ import annotations

import shlex

from gencomp import recipes
from gencomp.recipes.key_help import KeyHelp, describe
from sweeps.sweep_file import Entry, Grid, LogUniform, Sweep


def of_sweep(sweep: Sweep, width: int) -> KeyHelp:
    """The keys of the base recipe that the space of a sweep may name, and those that it names.

    Args:
        sweep: The sweep; its overrides are shown as the defaults.
        width: The columns of the terminal.

    Raises:
        InputError: There is no such base recipe, or it is not valid with the overrides.
    """
    base = recipes.load(sweep.base, sweep.overrides)
    title = (
        f"Keys of {sweep.base} ({base.system}/{base.stage}) that a space may name."
        f" `gencomp train {shlex.quote(str(sweep.base))}"
        " --help` shows all of those that --KEY VALUE sets in every"
        " trial."
    )
    notes = {key: f"searched: {_words(entry)}" for key, entry in sweep.space.items()}
    return describe(base, title, width, sweep.may_vary, notes)


def _words(entry: Entry) -> str:
    if isinstance(entry, Grid):
        return ", ".join(map(str, entry.grid))
    low, high = entry.bounds
    return f"{low:g} to {high:g}{', by logarithm' * isinstance(entry, LogUniform)}"
