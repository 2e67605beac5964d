"""A sweep over codecs in a report: all trials, and the best ones with their codecs at work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.results import histories
from cluster.results.pictures import psnr_captions, squared_error_of
from cluster.runs import Run
from gencomp.report import Best, CurveFiles, PictureRow, Sweep, Trial
from gencomp.report.content import Line
from gencomp.report.wording import metric_name, point_label
from gencomp.system import Picture
from sweeps.report import codec_files
from sweeps.report.codec_files import Decoded
from sweeps.results import SweepResult
from sweeps.sweep_file import Objective


def read(
    result: SweepResult,
    originals: Sequence[Picture],
    matched: Sequence[np.ndarray],
    say: Callable[[str], None] = lambda text: None,
    checkpoint: str = "last",
) -> tuple[Sweep, list[PictureRow]]:
    """All trials, and the best ones with the originals as their codecs decode them.

    Args:
        result: the sweep.
        originals: pictures to show.
        matched: the images of the generator's curve; none without a curve.
        say: called with what is being done.
        checkpoint: the choice of the checkpoint of the codecs.
    """
    sweep = result.sweep
    every = {row["trial"]: _trial(result, row) for row in result.rows}
    best, pictures = [], []
    for row in result.best():
        trial = every[row["trial"]]
        label = point_label(trial.point, sweep.group_by)
        say(f"coding with the codec of trial {trial.id} ({label})")
        one, decoded = _best(trial, result.run(row, checkpoint), label, originals, matched, say)
        best.append(one)
        if decoded is not None:
            captions = psnr_captions([one.image_HWC for one in originals], decoded.images)
            pictures.append(PictureRow(label.capitalize(), decoded.note, decoded.images, captions))
    shown = Sweep(
        name=result.directory.name,
        objective=_objective(sweep.objective),
        group_by=sweep.group_by,
        bounds=sweep.objective.subject_to,
        minimised=sweep.objective.minimised,
        trials=list(every.values()),
        best=best,
    )
    return shown, pictures


def _trial(result: SweepResult, row: Mapping[str, Any]) -> Trial:
    space = result.sweep.space
    point = {key: row[key] for key in space}
    evaluations = result.evaluations(row)
    scores = [(one["step"], result.sweep.objective.score(one)) for one in evaluations]
    scores = [(step, score) for step, score in scores if math.isfinite(score)]
    own = {"trial", "status", "error", "score", *space}
    return Trial(
        id=row["trial"],
        status=row["status"],
        error=row["error"],
        point=point,
        metrics={name: value for name, value in row.items() if name not in own},
        score=math.inf if row["score"] is None else row["score"],
        scores=Line([step for step, _ in scores], [score for _, score in scores]),
    )


def _objective(objective: Objective) -> str:
    words = " and ".join(metric_name(name) for name in objective.minimised)
    words = f"Objective: the least {words}"
    for name, bound in objective.subject_to.items():
        words += f", keeping {metric_name(name)} ≤ {bound:g}"
    if objective.subject_to:
        words += f" (score: {metric_name(objective.minimise)} + {objective.penalty:g} × excess)"
    return words


def _best(
    trial: Trial,
    run: Run,
    label: str,
    originals: Sequence[Picture],
    matched: Sequence[np.ndarray],
    say: Callable[[str], None],
) -> tuple[Best, Decoded | None]:
    """A best trial, and the originals as its files decode to; None without a codec."""
    history, _ = histories.read(run, label)
    codec = run.system().codec()
    if codec is None:
        return Best(trial, history), None
    on_curve = None
    if matched:
        pictures = [Picture(image_HWC, index=place) for place, image_HWC in enumerate(matched)]
        found = codec_files.through_files(codec, pictures)
        mse_I = [squared_error_of(a, b) for a, b in zip(matched, found.images, strict=True)]
        on_curve = CurveFiles(np.array(found.bits), np.array(mse_I), found.file_bpp)
    best = Best(trial, history, codec_files.held_out(run, say), on_curve)
    return best, codec_files.through_files(codec, originals)
