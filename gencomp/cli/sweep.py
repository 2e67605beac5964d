"""`gencomp sweep`: search a space over a recipe with Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from gencomp import recipes
from gencomp.cli.arguments import call
from gencomp.cli.tables import print_table
from gencomp.errors import InputError

STOPPED = 130
_SHOWN = ("bpp", "mse", "psnr", "mmd")


def sweep(words: Sequence[str]) -> int:
    """Entry of the command table: recipe values may stand among the other words."""
    own, overrides = recipes.split_overrides(words)

    def sweep(
        file: tyro.conf.Positional[str],
        /,
        name: str | None = None,
        runs: Path = Path("runs"),
        concurrent: int | None = None,
    ) -> int:
        """Run the trials of a sweep that are not done yet, and print the table of all of them.

        A sweep may be killed and started again anywhere: the same command goes on. Recipe values
        set by --section.field VALUE hold in every trial.

        Args:
            file: A sweep file, or the name of a sweep that ships with gencomp.
            name: Name of the sweep, a directory in --runs; by default the file's name.
            runs: Directory of runs and sweeps.
            concurrent: Trials at once, instead of what the file says.
        """
        return _sweep(file, overrides, runs / (name or Path(file).stem), concurrent)

    return int(call(sweep, own, prog="gencomp sweep"))


def _sweep(file: str, overrides: dict[str, Any], directory: Path, concurrent: int | None) -> int:
    from sweeps import space, trials

    loaded = space.load(file, overrides)
    if concurrent is not None:
        loaded = loaded.model_copy(update={"concurrent": max(concurrent, 1)})
    if directory.exists() and not _is_empty(directory) and not (directory / "sweep.yaml").exists():
        raise InputError(f"{directory} exists and is not a sweep; choose another --name")
    planned = trials.plan(loaded, directory)
    trials.write_plan(loaded, planned, directory)
    done = sum(trial.status() in ("finished", "stopped") for trial in planned)
    print(f"sweep {directory}: {len(planned)} trials, {done} done", flush=True)
    if done < len(planned):
        from sweeps.run import run

        complete = run(loaded, planned, directory, on_event=_print_event)
        if not complete:
            print(f"sweep {directory} stopped; the same command goes on")
            return STOPPED
    rows = trials.table(planned, loaded.objective)
    trials.write_table(rows, directory)
    _print_rows("all trials, best score first", rows, list(loaded.space))
    best = trials.best_of_each(rows, loaded.group_by)
    _print_rows(
        f"best of each {loaded.group_by}" if loaded.group_by else "best trial",
        best,
        list(loaded.space),
    )
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        print(f"trial {row['trial']} failed: {row['error']}")
    return 1 if failed else 0


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())


def _print_event(trial: Any, status: str, metrics: dict[str, Any]) -> None:
    shown = "  ".join(f"{k} {metrics[k]:.4g}" for k in ("step", *_SHOWN, "score") if k in metrics)
    point = "  ".join(f"{key.rsplit('.')[-1]} {value}" for key, value in trial.point.items())
    print(f"  {status:<8} {point}  {shown or metrics.get('error', '')}", flush=True)


def _print_rows(title: str, rows: list[dict[str, Any]], keys: list[str]) -> None:
    columns = ["trial", "status", "step", *keys, *_SHOWN, "score"]
    print_table(
        title,
        [key.rsplit(".")[-1] for key in columns],
        [[_cell(row.get(column)) for column in columns] for row in rows],
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
