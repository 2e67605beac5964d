"""Operating points that a command line names: of runs, sweeps, metrics.json files and curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.results import curve_files, metrics
from cluster.results.metrics import RunResult
from gencomp.errors import InputError
from sweeps.plan import SWEEP_FILE
from sweeps.results import read_results


def read(words: Sequence[str], evaluation: str, files: str = "files") -> list[RunResult]:
    """The results that the words of a command line name, each with its series.

    Args:
        words: Runs, sweeps (their finished trials), metrics.json files or JSON files of curves;
            LABEL=RESULT,RESULT joins some under a label.
        evaluation: The name of the evaluation to take from each run.
        files: The name of the measurement of files that each run's rates are taken from.

    Raises:
        InputError: One is no result, or not finished.
    """
    if not words:
        raise InputError("curves need one result or more: runs, sweeps or metrics.json files")
    labelled: list[RunResult] = []
    free: list[RunResult] = []
    for word in words:
        label, _, locations = word.rpartition("=")
        for name in locations.split(","):
            for one in _expand(Path(name), evaluation, files):
                series = label or one.series  # a file of a curve has its path
                (labelled if series else free).append(replace(one, series=series))
    return labelled + metrics.joined(free)


def runs_of(path: Path) -> list[Path]:
    """The finished trials of a sweep in the order of their values, or the run itself.

    Raises:
        InputError: The directory is a sweep without results.
    """
    if not (path / SWEEP_FILE).is_file():
        return [path]
    found = read_results(path)
    keys = list(found.sweep.space)
    points = [row for row in found.rows if row["status"] == "finished"]
    points.sort(key=lambda row: [(str(type(row[k])), row[k]) for k in keys])
    return [found.run(row).path for row in points]


def _expand(path: Path, evaluation: str, files: str) -> Iterator[RunResult]:
    """A metrics.json, the points of a curve, the finished trials of a sweep, or a run."""
    if path.suffix == ".json" and curve_files.is_curve(path):
        yield from curve_files.read(path)
    elif path.name == "metrics.json" or path.suffix == ".json":
        yield metrics.of_file(path, files)
    else:
        for run in runs_of(path):
            yield metrics.of_run(run, evaluation, files)
