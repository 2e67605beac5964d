"""What a report says about how its numbers came about."""

from __future__ import annotations

import json
from pathlib import Path

import gencomp
from cluster.evaluations.curve.plan import Evaluation
from cluster.runs import Run
from gencomp.cli.report_inputs import Found, weights_of
from gencomp.cli.report_parts import collected
from gencomp.report import Curve, Generator
from gencomp.report.markup import count as whole
from shards.reading.reader import ShardSet

Pairs = list[tuple[str, str]]


def facts(
    found: Found, shard_set: ShardSet | None, generator: Generator | None, curve: Curve | None
) -> Pairs:
    """What was run, for the head of the page."""
    facts = []
    if shard_set:
        splits = ", ".join(f"{whole(count)} {name}" for name, count in shard_set.splits.items())
        facts.append(("Data", f"{shard_set.info.name} ({splits})"))
    if generator and found.run:
        recipe = found.run.recipe()
        steps = int(generator.metrics.get("step", 0))
        state = "" if found.run.result() else ", not finished"
        facts.append(("Generator", f"{recipe.system}/{recipe.stage}, {whole(steps)} steps{state}"))
    if found.sweep:
        facts.append(
            ("Sweep", f"{len(found.sweep.rows)} trials of {Path(found.sweep.sweep.base).stem}")
        )
    if curve:
        size = f"{curve.images} images × {curve.chains} chains"
        temperatures = f"{whole(curve.temperatures)} temperatures"
        facts.append(("Curve by AIS", f"{size}, {temperatures}"))
    return facts


def protocol(
    found: Found, shard_set: ShardSet | None, curve: Curve | None
) -> list[tuple[str, Pairs]]:
    """Titled lists for the foot of the page."""
    parts: list[tuple[str, Pairs]] = []
    if shard_set and (run := found.any_run):
        parts.append(("Data and scales", _data_protocol(shard_set, run)))
    if found.run:
        parts.append(("Generator", _run_protocol(found.run)))
    if found.sweep:
        trials = [
            (f"trial {row['trial']}", f"weights {weights_of(run)}") for row, run in found.best
        ]
        first = _run_protocol(found.best[0][1])[1:] if found.best else []
        seed = [("sweep seed", str(found.sweep.sweep.seed))]
        parts.append(("Codecs", [("sweep", found.sweep.directory.name), *trials, *seed, *first]))
    if found.evaluation and curve:
        parts.append(("Curve", _curve_protocol(found.evaluation, curve)))
    parts.append(("This page", [("gencomp", gencomp.__version__)]))
    return parts


def _data_protocol(shard_set: ShardSet, run: Run) -> Pairs:
    splits = ", ".join(f"{name} {whole(count)}" for name, count in shard_set.splits.items())
    settings = run.recipe().evaluation
    which = f"its first {settings.limit} images" if settings.limit else "all images"
    return [
        ("data set", shard_set.info.name),
        ("index hash", shard_set.index_hash),
        ("images", splits),
        ("transform", shard_set.info.transform.geometry),
        ("storage", shard_set.info.transform.storage),
        ("evaluated on", f"{settings.split}, {which}"),
        ("distortion", "squared error of RGB values on [−1, 1], mean per value"),
        ("PSNR", "10·log10(4/MSE), of the mean MSE"),
        (
            "rate of codecs",
            "nominal: symbols at the fixed length; files add sizes, a fingerprint and a checksum",
        ),
    ]


def _run_protocol(run: Run) -> Pairs:
    recipe, result = run.recipe(), run.result() or {}
    environment = json.loads((run.path / "environment.json").read_text())
    return [
        ("weights", weights_of(run)),
        ("stage", f"{recipe.system}/{recipe.stage}"),
        ("length", f"{whole(result['step'])} steps" if "step" in result else "not finished"),
        ("seed", str(recipe.training.seed)),
        ("batch", f"{recipe.data.batch_size} images"),
        ("versions", ", ".join(f"{name} {version}" for name, version in environment.items())),
    ]


def _curve_protocol(evaluation: Evaluation, curve: Curve) -> Pairs:
    plan, protocol = evaluation.plan, collected(evaluation)["protocol"]
    settings = plan.settings
    return [
        ("estimator", protocol["estimator"]),
        ("images", f"{curve.images} of {len(plan.rows)}, evenly spaced over {settings.split}"),
        ("chains", f"{settings.chains} an image, {settings.leapfrog} leapfrog steps"),
        (
            "temperatures",
            f"{settings.temperatures}, {len(curve.beta_T)} reported, β up to {settings.beta_max:g}",
        ),
        (
            "seeds",
            f"{settings.seed} (measuring), {settings.tuning_seed} (tuning)",
        ),
        ("decoder weights", plan.decoder),
        *((name, str(choice)) for name, choice in plan.named_checkpoint.items()),
        ("plan", plan.hash),
        ("tuning", protocol["tuning"]),
        (
            "versions",
            "; ".join(
                ", ".join(f"{k} {v}" for k, v in one.items()) for one in protocol["versions"]
            ),
        ),
    ]
