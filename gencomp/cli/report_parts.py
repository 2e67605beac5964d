"""The parts of a report, read from runs, a sweep and an evaluation on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import shards
from cluster.data import held_out_rows
from cluster.evaluations.curve.plan import Evaluation, spaced
from cluster.evaluations.decoders import read_images
from cluster.logs import json_lines
from cluster.runs import Run
from gencomp.cli.report_inputs import Found
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.report import Best, Curve, Generator, History, PictureRow, Sweep, Trial
from gencomp.report.analysis import psnr
from gencomp.report.content import Line
from gencomp.report.wording import metric_name, point_label
from gencomp.system import Batch, Codec, System, evaluation_mode
from shards.reading.reader import ShardSet
from sweeps.results import SweepResult
from sweeps.sweep_file import Objective


def read_curve(evaluation: Evaluation) -> Curve:
    """What `gencomp slurm collect` wrote."""
    plan, means = evaluation.plan, collected(evaluation)
    columns = pq.read_table(evaluation.path / "curve.parquet")
    points = len(means["points"])
    if columns.num_rows != means["images"] * points:
        raise InputError(
            f"{evaluation.path} was collected only in part; run `gencomp slurm collect` again"
        )
    values = {name: columns[name].to_numpy().reshape(-1, points) for name in columns.column_names}
    missing = (
        f"{means['images']} of {means['images_planned']} images are measured, "
        f"{len(means['missing_blocks'])} blocks are missing"
    )
    return Curve(
        beta_T=values["beta"][0],
        rate_IT=values["rate"],
        distortion_IT=values["distortion"],
        log_z_IT=values["log_z"],
        ess_IT=values["ess"],
        acceptance_IT=values["acceptance"],
        chains=plan.settings.chains,
        temperatures=plan.settings.temperatures,
        height=plan.height,
        width=plan.width,
        missing="" if means["complete"] else missing,
        single_chain_gap=means["protocol"].get("expected_single_chain_gap"),
    )


def collected(evaluation: Evaluation) -> dict[str, Any]:
    """The content of curve.json."""
    content: dict[str, Any] = json.loads((evaluation.path / "curve.json").read_text())
    return content


def read_originals(run: Run, shard_set: ShardSet, images: int) -> PictureRow:
    """Images evenly spaced over the evaluation split."""
    recipe = run.recipe()
    split = shard_set.split(recipe.evaluation.split)
    chosen = spaced(len(split), images, split.name)
    originals = list(held_out_rows(recipe, split, chosen).images)
    note = f"{split.name} images {', '.join(map(str, chosen))} of {len(split)}; 24 bpp"
    return PictureRow("Originals", note, originals)


def read_generator(
    run: Run | None, originals: Sequence[np.ndarray]
) -> tuple[Generator | None, list[PictureRow]]:
    """The run with its own reconstructions and its prior samples."""
    if run is None:
        return None, []
    history, metrics = _history(run, run.name)
    rows = _system_pictures(run.system(), run.recipe().training.seed, originals)
    return Generator(run.name, run.result() or metrics, history), rows


def _system_pictures(
    system: System, seed: int, originals: Sequence[np.ndarray]
) -> list[PictureRow]:
    """The rows of `System.pictures`, reconstructions first, without the originals."""
    images_BCHW = torch.from_numpy(np.stack(originals)).permute(0, 3, 1, 2).contiguous()
    count = len(originals)
    places_B = torch.arange(count)
    batch = Batch(images_BCHW, places_B, places_B, torch.full((count,), -1))
    with evaluation_mode(system.networks):
        rows = system.pictures(batch, Draws(seed, ("report",), count))
    pictures = []
    for title, row_BCHW in rows.items():
        if title == "originals":
            continue
        images = list(row_BCHW.permute(0, 2, 3, 1).numpy())
        if title == "reconstructions":
            captions = _psnr_captions(originals, images)
            pictures.append(
                PictureRow("The generator’s own encoder", "no rate limit", images, captions)
            )
        else:
            pictures.append(PictureRow(title.capitalize(), f"seed {seed}", images))
    return pictures


def read_sweep(
    found: Found, originals: Sequence[np.ndarray]
) -> tuple[Sweep | None, list[PictureRow]]:
    """All trials, and the best ones with their codecs at work."""
    if found.sweep is None:
        return None, []
    plan = found.sweep.sweep
    every = {row["trial"]: _trial(found.sweep, row) for row in found.sweep.rows}
    matched = _curve_images(found.evaluation) if found.evaluation else None
    best, pictures = [], []
    for row, run in found.best:
        trial = every[row["trial"]]
        label = point_label(trial.point, plan.group_by)
        print(f"  coding with the codec of trial {trial.id} ({label})", flush=True)
        one, decoded = _best(trial, run, label, originals, matched)
        best.append(one)
        if one.payload_bits and one.file_bytes:
            bpp = one.payload_bits / (decoded[0].shape[0] * decoded[0].shape[1])
            note = f"{bpp:.4g} bpp: {one.payload_bits} bits in files of {one.file_bytes:.0f} bytes"
            captions = _psnr_captions(originals, decoded)
            pictures.append(PictureRow(label.capitalize(), note, decoded, captions))
    sweep = Sweep(
        name=found.sweep.directory.name,
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
    matched: list[np.ndarray] | None,
) -> tuple[Best, list[np.ndarray]]:
    """A best trial and the pictures as its files decode to."""
    history, _ = _history(run, label)
    codec = run.system().codec()
    if codec is None:
        return Best(trial, history), []
    height, width = originals[0].shape[:2]
    decoded, sizes = _through_files(codec, originals)
    mse_I = None
    if matched:
        reconstructions, _ = _through_files(codec, matched)
        mse_I = np.array([_mse(a, b) for a, b in zip(matched, reconstructions, strict=True)])
    bits = codec.payload_bits(height, width)
    return Best(trial, history, bits, float(np.mean(sizes)), mse_I), decoded


def _through_files(
    codec: Codec, images: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[int]]:
    streams = [codec.compress(image_HWC) for image_HWC in images]
    return [codec.decompress(stream) for stream in streams], [len(stream) for stream in streams]


def _curve_images(evaluation: Evaluation) -> list[np.ndarray]:
    """The images that the curve was measured on, in its order."""
    plan = evaluation.plan
    shard_set = shards.open_set(plan.shards)
    if shard_set.index_hash != plan.data:
        raise InputError(f"shard set {plan.shards} is another one than the curve was measured on")
    rows = pq.read_table(evaluation.path / "curve.parquet", columns=["image"])["image"].to_numpy()
    points = len(collected(evaluation)["points"])
    split = shard_set.split(plan.settings.split)
    images_BCHW = read_images(evaluation.subject, split, rows[::points].tolist())
    return list(images_BCHW.permute(0, 2, 3, 1).numpy())


def _history(run: Run, name: str) -> tuple[History, dict[str, float]]:
    """Loss terms over steps, and the last evaluation."""
    prefix = f"{run.recipe().evaluation.split}/"
    training: dict[str, list[tuple[float, float]]] = {}
    held_out: dict[str, list[tuple[float, float]]] = {}
    last: dict[str, float] = {}
    for row in json_lines.read(run.metrics):
        found = {
            key.removeprefix(prefix): v
            for key, v in row.items()
            if key.startswith(prefix) and v is not None
        }
        if found:
            last = {"step": row["step"], **found}
            if "mse" in found:
                found["rmse"] = math.sqrt(found["mse"])
            for term, value in found.items():
                held_out.setdefault(term, []).append((row["step"], value))
            continue
        for key, value in row.items():
            if "/" in key and value is not None:
                training.setdefault(key.rpartition("/")[2], []).append((row["step"], value))
    return History(name, _lines(training), _lines(held_out)), last


def _lines(points: Mapping[str, list[tuple[float, float]]]) -> dict[str, Line]:
    return {
        term: Line([s for s, _ in found], [v for _, v in found]) for term, found in points.items()
    }


def _psnr_captions(originals: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> list[str]:
    return [f"{psnr(_mse(a, b)):.1f} dB" for a, b in zip(originals, images, strict=True)]


def _mse(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """On the scale [−1, 1]."""
    return float(np.square((a_HWC.astype(np.float64) - b_HWC) / 127.5).mean())
