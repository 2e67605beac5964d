"""A sweep over codecs in a report: all trials, and the best ones with their codecs at work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.results import histories
from cluster.results.pictures import psnr_captions, squared_error_of
from cluster.runs import Run
from gencomp.report import Best, PictureRow, Sweep, Trial
from gencomp.report.content import Line
from gencomp.report.wording import metric_name, point_label
from gencomp.system import Codec, Picture
from sweeps.results import SweepResult
from sweeps.sweep_file import Objective


def read(
    result: SweepResult,
    originals: Sequence[np.ndarray],
    matched: Sequence[np.ndarray],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Sweep, list[PictureRow]]:
    """All trials, and the best ones with the originals as their codecs decode them.

    Args:
        result: the sweep.
        originals: images to show, uint8 [H, W, 3] each.
        matched: the images of the generator's curve; none without a curve.
        say: called with what is being done.
    """
    plan = result.sweep
    every = {row["trial"]: _trial(result, row) for row in result.rows}
    best, pictures = [], []
    for row in result.best():
        trial = every[row["trial"]]
        label = point_label(trial.point, plan.group_by)
        say(f"coding with the codec of trial {trial.id} ({label})")
        one, decoded = _best(trial, result.run(row), label, originals, matched)
        best.append(one)
        if one.nominal_bits and one.file_bytes:
            bpp = one.nominal_bits / (decoded[0].shape[0] * decoded[0].shape[1])
            note = (
                f"nominal {bpp:.4g} bpp: {one.nominal_bits} bits, in files of"
                f" {one.file_bytes:.0f} bytes"
            )
            captions = psnr_captions(originals, decoded)
            pictures.append(PictureRow(label.capitalize(), note, decoded, captions))
    sweep = Sweep(
        name=result.directory.name,
        objective=_objective(plan.objective),
        group_by=plan.group_by,
        bounds=plan.objective.subject_to,
        trials=list(every.values()),
        best=best,
    )
    return sweep, pictures


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
    words = f"Objective: the least {metric_name(objective.minimise)}"
    for name, bound in objective.subject_to.items():
        words += f", keeping {metric_name(name)} ≤ {bound:g}"
    if objective.subject_to:
        words += f" (score: {metric_name(objective.minimise)} + {objective.penalty:g} × excess)"
    return words


def _best(
    trial: Trial,
    run: Run,
    label: str,
    originals: Sequence[np.ndarray],
    matched: Sequence[np.ndarray],
) -> tuple[Best, list[np.ndarray]]:
    """A best trial and the pictures as its files decode to."""
    history, _ = histories.read(run, label)
    codec = run.system().codec()
    if codec is None:
        return Best(trial, history), []
    height, width = originals[0].shape[:2]
    decoded, sizes = _through_files(codec, originals)
    mse_I = None
    if matched:
        reconstructions, _ = _through_files(codec, matched)
        mse_I = np.array(
            [squared_error_of(a, b) for a, b in zip(matched, reconstructions, strict=True)]
        )
    bits = codec.nominal_bits(height, width)
    return Best(trial, history, bits, float(np.mean(sizes)), mse_I), decoded


def _through_files(
    codec: Codec, images: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[int]]:
    streams = [codec.compress(Picture(image_HWC)) for image_HWC in images]
    return [codec.decompress(stream) for stream in streams], [len(stream) for stream in streams]
