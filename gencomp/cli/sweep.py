"""`gencomp sweep`, which searches a space over a recipe with Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cluster.tracking import choice
from gencomp import recipes
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Json
from gencomp.cli.console import only_json, print_table
from gencomp.errors import InputError
from gencomp.evaluation import scales
from gencomp.exit_codes import DONE, FAILED, STOPPED

if TYPE_CHECKING:
    from gencomp.recipes.key_help import KeyHelp
    from sweeps.sweep_file import Sweep
    from sweeps.trial import Trial


# The file of a sweep in its directory, see `sweeps.plan`.
SWEEP_FILE = "sweep.yaml"


@dataclass(frozen=True)
class Options:
    """The place of the sweep, and the number of its trials that run at once.

    Attributes:
        name: Name of the sweep, a directory in --runs; by default the file's name.
        runs: Directory of runs and sweeps, which all nodes must see.
        concurrent: How many trials run at once, instead of the number in the file.
        track: Experiment tracker in which each trial becomes a run under the sweep: mlflow, on the
            server that MLFLOW_TRACKING_URI names, wandb, or trackio.
    """

    name: str | None = None
    runs: Path = Path("runs")
    concurrent: int | None = None
    track: choice.Name | None = None

    def require_tracker(self) -> None:
        """Raise `InputError` for a tracker that cannot be had."""
        if self.track is not None:
            choice.require(self.track)

    def path(self, file: str) -> Path:
        """The sweep's directory; the file of a sweep in --runs stands for that sweep."""
        path = Path(file)
        if self.name is None and path.name == SWEEP_FILE and path.parent.parent == self.runs:
            return path.parent
        return self.runs / (self.name or path.stem)

    def require_shared(self, files: Sequence[str], overrides: Mapping[str, Any]) -> None:
        """Refuse no file, and for several of them what can hold for one alone."""
        from sweeps import parents

        if not files:
            raise InputError("missing FILE, a sweep file or the name of one that ships")
        if len(files) == 1:
            return
        if self.name is not None:
            raise InputError(f"--name names one sweep, but {len(files)} files are given")
        own = overrides.keys() - parents.shared(overrides).keys()
        if own:
            raise InputError(
                f"--{min(own)} is a value of one sweep, but {len(files)} files are given: only"
                " those of data, training and evaluation hold in all of them"
            )


# Sweep files, of which at least one must be there.
Files = tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")]]
_SHOWN = ("nominal_bpp", "mse", "psnr", "mmd")


def sweep(words: Sequence[str]) -> int:
    """Run the command on words among which values of the recipe may stand."""
    own, overrides = recipes.split_overrides(words)

    def sweep(
        files: Files,
        /,
        search: Annotated[Options, tyro.conf.OmitArgPrefixes],
        as_json: Json = False,
    ) -> int:
        """Run the trials of a sweep that are not done yet, and print the table of all of them.

        A sweep may be killed and started again anywhere: the same command goes on. Sweeps that the
        file names as parents run first. Recipe values set by --section.field VALUE hold in every
        trial, and those of data, training and evaluation in the sweeps before it too. gencomp sweep
        SWEEP --help lists the keys that its space may name.

        Several sweeps run one after the other, and what they start from runs once.

        Args:
            files: A sweep file, or the name of a sweep that ships with gencomp; or several.
            search: The place of the sweep, and the number of its trials that run at once.
        """
        search.require_tracker()
        with only_json(as_json) as answer:
            code, sweeps = _sweep(files, overrides, search)
            answer({"sweeps": sweeps})
        return code

    return recipe_words.call(sweep, own, "gencomp sweep", keys)


def keys(source: str, width: int) -> KeyHelp:
    """The help on the keys that the space of a sweep may name, on a terminal of `width` columns."""
    from sweeps import key_help, sweep_file

    return key_help.of_sweep(sweep_file.load(source, {}), width)


def _sweep(
    files: Sequence[str], overrides: dict[str, Any], search: Options
) -> tuple[int, list[dict[str, Any]]]:
    """Run sweeps after those before them; the exit code, and what scripts are told."""
    from sweeps import parents

    asked = load(files, overrides, search)
    code, told = DONE, []
    for where, sweep in parents.chain(asked, overrides).items():
        loaded = parents.resolved(_with_concurrent(sweep, search.concurrent), where)
        ended, one = _run(loaded, where, search.track)
        told.append(one)
        if ended == STOPPED:
            return STOPPED, told
        code = max(code, ended)
    return code, told


def _run(loaded: Sweep, directory: Path, tracker: choice.Name | None) -> tuple[int, dict[str, Any]]:
    """Run one sweep and print its tables; the exit code, and what scripts are told."""
    from cluster.files import locked
    from sweeps import plan, results, tracking
    from sweeps.run import room_needed, run
    from sweeps.trial import ENDED
    from sweeps.trial_queue import TrialQueue

    # The faults of a new sweep are reported before anything is written.
    planned = [] if plan.has_begun(directory) else plan.make(loaded, directory)
    with room_needed(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory) as lease:
            if plan.has_begun(directory):  # before the lock, another process could add trials
                planned = plan.make(loaded, directory)
            plan.write(loaded, planned, directory, lease.require)
            done = sum(trial.status() in ENDED for trial in planned)
            print(f"sweep {directory}: {len(planned)} trials, {done} done", flush=True)
            queue = TrialQueue(loaded, planned, directory, lease.require)
            with tracking.tracked(directory, tracker, lambda: queue.trials, lease.require):
                ending = run(loaded, queue, directory, on_event=_print_event)
    rows = results.read_results(directory).rows
    best = results.best(rows, loaded)
    newest = rows if loaded.population is None else results.newest_round(rows)
    who = "all trials" if loaded.population is None else "members"
    _print_rows(f"{who}, best score first", newest, loaded)
    _print_rows(_title_of_best(loaded), best, loaded)
    if loaded.population is not None and best:
        _print_schedule(queue.trial(best[0]["trial"]))
    failed = _print_failures(rows, newest)
    told = {
        "path": directory,
        "ending": ending,
        "minimised": loaded.objective.minimised,
        "trials": results.nested(rows, loaded),
        "best": results.nested(best, loaded),
    }
    if ending == "stopped":
        print(f"sweep {directory} stopped; the same command goes on")
        return STOPPED, told
    if ending == "budget":
        print(_over_budget(loaded, queue.trials, directory))
    return FAILED if failed else DONE, told


def load(files: Sequence[str], overrides: Mapping[str, Any], search: Options) -> dict[Path, Sweep]:
    """The sweeps in files by their directories, in the order of the files.

    Raises:
        InputError: a file is not there or wrong, two would lie in one directory, or several are
            given with what can hold for one alone.
    """
    from sweeps import sweep_file

    search.require_shared(files, overrides)
    found: dict[Path, Sweep] = {}
    for file in files:
        where = search.path(file)
        if where in found:
            raise InputError(f"two of the files would be the sweep {where}; run them one by one")
        found[where] = _with_concurrent(sweep_file.load(file, overrides), search.concurrent)
    return found


def _with_concurrent(sweep: Sweep, concurrent: int | None) -> Sweep:
    if concurrent is None:
        return sweep
    return sweep.model_copy(update={"concurrent": max(concurrent, 1)})


def _over_budget(sweep: Sweep, trials: Sequence[Trial], directory: Path) -> str:
    budget, pending = sweep.budget, [trial for trial in trials if trial.status() == "pending"]
    limits = []
    if budget.trials is not None:
        limits.append(f"{budget.trials} trials")
    if math.isfinite(budget.time):
        limits.append(f"{budget.seconds:g} s" if budget.seconds else f"{budget.hours:g} h")
    begun = sum(trial.was_begun() for trial in pending)
    new = len(pending) - begun
    if sweep.search is not None and budget.trials is not None:
        new += max(0, budget.trials - len(trials))
    return (
        f"sweep {directory}: the budget of {' and '.join(limits)} is used up; {begun} trials wait"
        f" at their checkpoints, {new} were not begun (a larger budget goes on)"
    )


def _title_of_best(sweep: Sweep) -> str:
    if sweep.objective.against:
        return f"Pareto front of {', '.join(sweep.objective.minimised)}"
    return f"best of each {sweep.group_by}" if sweep.group_by else "best trial"


def _print_event(trial: Any, status: str, metrics: dict[str, Any]) -> None:
    shown = "  ".join(f"{k} {metrics[k]:.4g}" for k in ("step", *_SHOWN, "score") if k in metrics)
    point = "  ".join(f"{key.rsplit('.')[-1]} {value}" for key, value in trial.point.items())
    print(f"  {status:<8} {point}  {shown or metrics.get('error', '')}", flush=True)


def _print_rows(title: str, rows: list[dict[str, Any]], sweep: Sweep) -> None:
    goal = [name for name in sweep.objective.minimised if name not in _SHOWN]
    columns = ["trial", "status", "step", *sweep.space, *_SHOWN, *goal, "score"]
    print_table(
        title,
        [key.rsplit(".")[-1] for key in columns],
        [[_cell(row.get(column)) for column in columns] for row in rows],
        scales.remark(name for name in (*_SHOWN, *goal) if any(name in row for row in rows)),
    )


def _print_failures(rows: list[dict[str, Any]], newest: list[dict[str, Any]]) -> int:
    """Print the failed trials, and count those that were not replaced by another one.

    Args:
        rows: The rows of all trials.
        newest: The rows of the trials that count: all trials, or the newest round of a population.
    """
    now = {row["trial"] for row in newest}
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        replaced = "" if row["trial"] in now else " and was replaced"
        print(f"trial {row['trial']} failed{replaced}: {row['error']}")
    return sum(row["trial"] in now for row in failed)


def _print_schedule(trial: Trial) -> None:
    """Print the values with which a member of a population was trained."""
    stretches = trial.schedule()
    print_table(
        f"values of {trial.id}",
        ["after step", *(key.rsplit(".")[-1] for key in trial.point), "trial"],
        [
            [str(one["after_step"]), *map(_cell, one["point"].values()), one["trial"]]
            for one in stretches
        ],
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
