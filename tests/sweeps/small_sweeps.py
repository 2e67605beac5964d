"""Small sweeps, and their trials on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps import plan
from sweeps.sweep_file import Sweep
from sweeps.trial import Trial


def rates_and_weights(base: Path, **parts: Any) -> Sweep:
    """Two numbers of code channels, each with two weights of the MMD; parts replace its own."""
    made: dict[str, Any] = {
        "base": str(base),
        "space": {"networks.code_channels": {"grid": [1, 2]}, "loss.mmd_weight": {"grid": [0, 10]}},
        "group_by": "networks.code_channels",
    }
    return Sweep.model_validate(made | parts)


def planned(sweep: Sweep, directory: Path) -> list[Trial]:
    """The trials of a sweep, written into its directory."""
    trials = plan.make(sweep, directory)
    plan.write(sweep, trials, directory)
    return trials
