"""`gencomp status`, which says where runs and sweeps stand, from their files alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from cluster import run_status
from cluster.run_status import Standing
from gencomp.cli.arguments import Json
from gencomp.cli.console import duration, print_json, print_table
from gencomp.errors import InputError
from gencomp.evaluation import scales
from sweeps import sweep_status
from sweeps.sweep_status import SweepStatus

_LAST_FAILURES = 5
_METRICS = ("nominal_bpp", "mse", "psnr", "mmd")


def status(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")] = (
        Path("runs"),
    ),
    /,
    as_json: Json = False,
) -> None:
    """Say where runs and sweeps stand: their progress, speed, remaining time and failures.

    The command only reads files, so it works at any time on any host that sees the files. If the
    process of a run elsewhere seems to be dead, its run is watched for 25 seconds.

    Args:
        paths: Runs, sweeps, or directories of runs and sweeps.
    """
    now = time.time()
    if as_json:
        inside = [one for path in paths for one in ([path] if _is_known(path) else _inside(path))]
        print_json(_document(run_status.look_at_all(_look, dict.fromkeys(inside))))
        return
    for path in paths:
        found = run_status.look_at_all(_look, [path] if _is_known(path) else _inside(path))
        if _is_known(path):
            show = _show_sweep if isinstance(found[0], SweepStatus) else _show_run
            show(found[0], now)  # type: ignore[arg-type]
        else:
            _show_directory(path, found, now)


def _is_known(path: Path) -> bool:
    return run_status.is_run(path) or sweep_status.is_sweep(path)


def _inside(path: Path) -> list[Path]:
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give a run, a sweep or a directory of them")
    found = sorted(one for one in path.iterdir() if one.is_dir() and _is_known(one))
    if not found:
        raise InputError(f"{path} is no run and no sweep, and there are none in it")
    return found


def _look(path: Path) -> Standing | SweepStatus:
    return run_status.read(path) if run_status.is_run(path) else sweep_status.read(path)


def _show_run(run: Standing, now: float) -> None:
    detail = f": {run.detail}" if run.detail else ""
    print(f"{run.path} ({run.kind}): {run.state}{detail}")
    speed = [f"{run.samples_per_second:.4g} samples/s"] if run.samples_per_second else []
    left = [f"{duration(run.seconds_left)} left"] if run.seconds_left is not None else []
    print(f"  {', '.join([_progress(run), *speed, *left])}")
    if run.evaluation is not None:
        metrics = {k: v for k, v in run.evaluation.items() if k not in ("step", "time")}
        print(
            f"  evaluation of step {run.evaluation['step']}, {_ago(run.evaluation, now)}:"
            f" {', '.join(f'{name} {_cell(value)}' for name, value in metrics.items())}"
        )
    if run.checkpoint is None:
        print("  no checkpoint")
    else:
        print(f"  checkpoint of step {run.checkpoint['step']}, {_ago(run.checkpoint, now)}")
    print(f"  {run.attempts} attempt{'s' * (run.attempts != 1)}", end="")
    print(f", {len(run.failures)} failed:" if run.failures else "")
    for failure in run.failures[-_LAST_FAILURES:]:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure["time"]))
        print(f"    {at} {failure['message']}")


def _show_sweep(sweep: SweepStatus, now: float) -> None:
    counts = Counter(run.state for _, run in sweep.trials)
    words = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    who = f"running, {sweep.holder}" if sweep.holder else "not running"
    print(f"{sweep.path}: {who}; {len(sweep.trials)} trials: {words}")
    keys = list(dict.fromkeys(key for point, _ in sweep.trials for key in point))
    rows = []
    for point, run in sweep.trials:
        found = run.evaluation or {}
        rows.append(
            [
                run.path.name,
                *(_cell(point.get(key)) for key in keys),
                *_columns(run, now),
                *(_cell(found.get(name)) for name in _METRICS),
            ]
        )
    short = [key.rsplit(".")[-1] for key in keys]
    measured = {name for _, run in sweep.trials for name in run.evaluation or {}}
    shown = scales.remark(name for name in _METRICS if name in measured)
    print_table("trials", ["trial", *short, *_HEADER, *_METRICS], rows, shown)
    for _, run in sweep.trials:
        if run.state in ("failed", "interrupted"):
            print(f"  {run.path.name} {run.state}: {run.detail}")


def _show_directory(path: Path, found: Sequence[Standing | SweepStatus], now: float) -> None:
    rows = []
    for one in found:
        if isinstance(one, SweepStatus):
            done = sum(run.state in ("finished", "stopped") for _, run in one.trials)
            state = "running" if one.holder else "not running"
            rows.append([one.path.name, "sweep", state, f"{done} of {len(one.trials)} trials"])
            rows[-1] += [""] * (len(_HEADER) - 2)
        else:
            rows.append([one.path.name, one.kind, *_columns(one, now)])
    print_table(str(path), ["run", "kind", *_HEADER], rows)


_HEADER = ["state", "progress", "samples/s", "left", "checkpoint", "failures"]


def _columns(run: Standing, now: float) -> list[str]:
    """The cells about a run below the headings of `_HEADER`."""
    return [
        run.state,
        _progress(run),
        _cell(run.samples_per_second),
        "" if run.seconds_left is None else duration(run.seconds_left),
        "" if run.checkpoint is None else _ago(run.checkpoint, now),
        str(len(run.failures) or ""),
    ]


def _progress(run: Standing) -> str:
    if run.total is None:
        return f"step {run.step}"
    return f"step {run.step} of {run.total} ({run.fraction or 0:.0%})"


def _ago(what: dict[str, float], now: float) -> str:
    return f"{duration(max(now - what['time'], 0))} ago"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _document(found: Sequence[Standing | SweepStatus]) -> dict[str, Any]:
    """The document for scripts, in which each trial is a run with its point."""
    sweeps = [one for one in found if isinstance(one, SweepStatus)]
    return {
        "runs": [one for one in found if isinstance(one, Standing)],
        "sweeps": [
            {
                "path": one.path,
                "holder": one.holder,
                "trials": [{"point": point, **vars(run)} for point, run in one.trials],
            }
            for one in sweeps
        ],
    }
