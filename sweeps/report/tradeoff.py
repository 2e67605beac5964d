"""Distortion and perception in a report: the runs of a chain of sweeps, and their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cluster.results import tradeoff
from cluster.results.pictures import psnr_captions
from cluster.runs import open_run
from gencomp.evaluation import scales
from gencomp.report import PictureRow, Tradeoff, TradeoffRun
from gencomp.system import Picture, System
from sweeps import parents, results
from sweeps.operating_points import runs_of
from sweeps.results import SweepResult

_DISTORTION = "mse_unit"
# The measures that are drawn where runs have them, each in an axis of its own.
_DRAWN = ("critic_distance", "fresh_critic_distance", "swd")


def runs(sweep: SweepResult | None, more: Sequence[Path]) -> list[Path]:
    """The runs of a page's tradeoff; none for a sweep that weighs no measure of perception.

    Args:
        sweep: the sweep of the page, before whose trials come those of the sweeps it starts from.
        more: the runs and sweeps that were named beside it.
    """
    found: list[Path] = []
    if sweep is not None and scales.PERCEPTION.keys() & set(sweep.sweep.objective.minimised):
        found += [path for one in _chain(sweep) for path in runs_of(one.directory)]
    found += [path for one in more for path in runs_of(one)]
    return list({path.resolve(): path for path in found}.values())


def read(
    sweep: SweepResult | None, paths: Sequence[Path], originals: Sequence[Picture]
) -> Tradeoff:
    """The runs with their metrics, and the originals as each of them shows them.

    Args:
        sweep: the sweep of the page, whose objective names the axes.
        paths: the directories of the runs.
        originals: pictures to show.

    Raises:
        InputError: a run is not finished, or was evaluated on other images than the others.
    """
    minimised = sweep.sweep.objective.minimised if sweep else (_DISTORTION,)
    distortion = next((name for name in minimised if name not in scales.PERCEPTION), _DISTORTION)
    measured = tradeoff.measured(paths)
    drawn = dict.fromkeys((*(n for n in minimised if n in scales.PERCEPTION), *_DRAWN))
    perceptions = [name for name in drawn if any(name in run.values for run in measured)]
    shown = [run for run in measured if distortion in run.values]
    series = list(dict.fromkeys(run.series for run in shown))
    shown_HWC = [one.image_HWC for one in originals]
    whole, pictures = [], [PictureRow("Originals", "", shown_HWC)]
    for run in sorted(shown, key=lambda run: series.index(run.series)):
        system = open_run(Path(run.directory)).system()
        whole.append(replace(run, symbols=system.symbols()))
        if (images := _through(system, originals)) is not None:
            title = ", ".join(filter(None, (run.series, run.label)))
            note = _note(run, (distortion, *perceptions))
            pictures.append(PictureRow(title, note, images, psnr_captions(shown_HWC, images)))
    return Tradeoff(distortion, perceptions, whole, pictures)


def _chain(sweep: SweepResult) -> list[SweepResult]:
    """The sweep behind those that it starts from, as far as they have results."""
    found: list[SweepResult] = []
    for parent in sweep.sweep.parents.values():
        where = parents.directory_of(parent.sweep, sweep.directory)
        if (where / results.FILE).is_file():
            found += _chain(results.read_results(where))
    return [*found, sweep]


def _through(system: System, originals: Sequence[Picture]) -> list[np.ndarray] | None:
    """What the system's files decode to; None without a codec."""
    if (codec := system.codec()) is None:
        return None
    return list(map(codec.reconstruct, originals))


def _note(run: TradeoffRun, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {run.values[name].value:.3g}" for name in names if name in run.values)
