"""A run as metrics for Prometheus, in a file for the textfile collector of its node_exporter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from cluster import run_status
from cluster.beside import Tolerance, repeated
from cluster.files import write_bytes
from cluster.logs import metrics_log
from cluster.run_status import Standing
from gencomp.errors import InputError

_PERIOD = 15.0  # seconds
# Rows beyond these are not looked at for the newest one of training.
_LOOKED_AT = 20
_STAMP = (*metrics_log.STAMP, "samples_per_second")


@contextmanager
def written(run: Path, file: Path | None) -> Iterator[None]:
    """While the body runs, and once after it, a file is replaced by what the run's files say.

    Args:
        run: the run's directory.
        file: the file, of whose folder the collector reads each `*.prom`; None for no file.
    """
    if file is None:
        yield
        return
    tolerance = Tolerance(str(file))

    def write() -> None:
        tolerance(lambda: write_bytes(file, text(run).encode(), durable=False))

    with repeated(write, _PERIOD, write):
        yield


def require(file: Path) -> None:
    """Raise `InputError` unless the collector would read a file of that name."""
    if file.suffix != ".prom" or not file.parent.is_dir() or file.is_dir():
        raise InputError(f"--prometheus {file} must be a file *.prom in a folder that exists")


def text(run: Path) -> str:
    """The metrics of a run in Prometheus's text format.

    Args:
        run: the run's directory.
    """
    standing = run_status.read(run)
    newest = islice(metrics_log.newest_first(run / "metrics.jsonl"), _LOOKED_AT)
    row = next((row for row in newest if "samples_per_second" in row), {})
    terms = {k: v for k, v in row.items() if k not in _STAMP and isinstance(v, int | float)}
    measured = {k: v for k, v in (standing.evaluation or {}).items() if k not in _STAMP}
    name = run.resolve().name
    lines: list[str] = []
    for metric, kind, what, value in _single(standing, row.get("time")):
        if value is not None:
            lines += _head(metric, kind, what)
            lines.append(f"{metric}{_labels(run=name)} {value:.17g}")
    for metric, what, values in (
        ("gencomp_training", "Means of losses and their terms since the row before.", terms),
        ("gencomp_evaluation", "Metrics of the newest evaluation.", measured),
    ):
        if values:
            lines += _head(metric, "gauge", what)
            lines += [
                f"{metric}{_labels(run=name, name=key)} {float(value):.17g}"
                for key, value in values.items()
                if value is not None
            ]
    lines += _head("gencomp_state", "gauge", "The state of the run, as a label.")
    lines.append(f"gencomp_state{_labels(run=name, state=standing.state)} 1")
    return "\n".join(lines) + "\n"


def _single(
    standing: Standing, logged: float | None
) -> Iterator[tuple[str, str, str, float | None]]:
    """The metrics with one value: name, type, help and value, None where it is not known."""
    yield "gencomp_step", "gauge", "Training steps done.", standing.step
    yield "gencomp_steps", "gauge", "Training steps in all.", standing.total
    rate = standing.samples_per_second
    yield "gencomp_samples_per_second", "gauge", "Training samples per second.", rate
    yield "gencomp_seconds_left", "gauge", "Seconds until training ends.", standing.seconds_left
    starts, failures = standing.attempts, len(standing.failures)
    yield "gencomp_attempts_total", "counter", "Starts of the workers.", starts
    yield "gencomp_failures_total", "counter", "Failures of workers and drivers.", failures
    yield "gencomp_logged_seconds", "gauge", "Time of the newest row, in Unix seconds.", logged


def _head(metric: str, kind: str, what: str) -> list[str]:
    return [f"# HELP {metric} {what}", f"# TYPE {metric} {kind}"]


def _labels(**values: str) -> str:
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
