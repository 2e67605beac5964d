"""The plan of a sweep: which trials it has so far, and the files that say so.

The file sweep.yaml holds the sweep as it was asked for. The file trials.json holds the ids of its
trials in the order in which they came.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cluster.files import write_text
from cluster.run_entry import Identities
from gencomp.errors import InputError
from sweeps import proposals
from sweeps.population_rounds import Rounds
from sweeps.sweep_file import Sweep, contains, dump, extremes, points
from sweeps.trial import Trial, TrialFactory

SWEEP_FILE = "sweep.yaml"
TRIALS_FILE = "trials.json"


def has_begun(directory: Path) -> bool:
    """Whether a directory holds a sweep already.

    Raises:
        InputError: the directory holds something else.
    """
    begun = (directory / SWEEP_FILE).exists()
    if directory.exists() and not begun and not _is_empty(directory):
        raise InputError(f"{directory} exists and is not a sweep; choose another --name")
    return begun


def make(sweep: Sweep, directory: Path) -> list[Trial]:
    """The trials that a sweep has come to so far; nothing is written.

    Raises:
        InputError: a point makes a recipe that is not valid, or its data or a run that it names is
            missing.
    """
    factory = TrialFactory(sweep, directory, Identities())
    if sweep.search is None and sweep.population is None:
        return _distinct(factory.trial(point) for point in points(sweep))
    for point in extremes(sweep):
        factory.trial(point)
    if sweep.population is not None:
        rounds = Rounds(sweep, factory, directory)
        return _distinct(trial for found in rounds.trials for trial in found)
    proposed = [one.point for one in proposals.read(directory) if contains(sweep, one.point)]
    return _distinct(factory.trial(point) for point in proposed)


def write(
    sweep: Sweep,
    trials: Sequence[Trial],
    directory: Path,
    may_write: Callable[[], None] = lambda: None,
) -> None:
    """Write the sweep, the list of its trials and a run for each new trial.

    Trials that exist stay as they are.

    Args:
        sweep: the sweep.
        trials: its trials.
        directory: its directory, which is created where it is missing.
        may_write: called before each write; raises where another process has taken over the sweep.
    """
    # The sweep file comes first: it tells a plan that was cut short from somebody else's directory.
    directory.mkdir(parents=True, exist_ok=True)
    may_write()
    write_text(directory / SWEEP_FILE, dump(sweep))
    write_ids(trials, directory)
    for trial in trials:
        may_write()
        trial.create()


def write_ids(trials: Sequence[Trial], directory: Path) -> None:
    """Write the ids of all trials in the order in which they came."""
    write_text(directory / TRIALS_FILE, json.dumps([trial.id for trial in trials]))


def _is_empty(directory: Path) -> bool:
    """Whether a directory holds no more than a start that was cut short may have left."""
    return directory.is_dir() and all(
        entry.name.startswith((".", "lock")) or _is_empty(entry) for entry in directory.iterdir()
    )


def _distinct(found: Iterable[Trial]) -> list[Trial]:
    return list({trial.id: trial for trial in found}.values())
