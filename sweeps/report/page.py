"""The page about a generator, its codecs and its curve: all that it says, without its looks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cluster import provenance
from cluster.checkpoints.store import LAST
from cluster.results import curve_tables, file_parts, generators, lossless
from cluster.results.pictures import evaluation_set
from cluster.results.protocol import Pairs, of_curve, of_data, of_environment, of_run, weights_of
from gencomp.report import Curve, Generator, PictureRow, Report
from gencomp.report.markup import count as whole
from shards.reading.reader import ShardSet
from sweeps.report import sweep as sweep_part
from sweeps.report import tradeoff as tradeoff_part
from sweeps.report.inputs import Found


def report(found: Found, images: int, say: Callable[[str], None] = lambda text: None) -> Report:
    """What the page says.

    Args:
        found: what the page is made from.
        images: the number of images to show.
        say: called with what is being done.

    Raises:
        InputError: a shard set is another one than a run was trained on, or a curve was collected
            only in part.
    """
    without_loss = lossless.read(found.lossless) if found.lossless else None
    curve = curve_tables.read(found.evaluation) if found.evaluation else None
    notes = list(found.missing)
    if curve and curve.missing:
        notes.append(f"The curve is not complete: {curve.missing}.")
    title, pixels = "What a generator allows", curve.pixels if curve else None
    shard_set, originals = None, generators.Originals(PictureRow("Originals", "", []), None)
    if run := found.any_run:
        shard_set = evaluation_set(run)
        if found.evaluation and found.evaluation.plan.data != shard_set.index_hash:
            notes.append("The curve was measured on another data set than the rest of this page.")
        about = "files without loss" if found.only_lossless else "rate, distortion, perception"
        title = f"{run.recipe().system} on {shard_set.info.name}: {about}"
        originals = generators.read_originals(run, shard_set, images)
        height, width = originals.row.images[0].shape[:2]
        pixels = pixels or height * width
    generator, own_pictures = generators.read_generator(found.run, originals)
    sweep, decoded = None, list[PictureRow]()
    if found.sweep:
        matched = curve_tables.images(found.evaluation) if found.evaluation else []
        sweep, decoded = sweep_part.read(
            found.sweep, originals.pictures, matched, say, found.checkpoint
        )
    shown = None
    if found.tradeoff:
        say(f"showing the images by {len(found.tradeoff)} decoders")
        shown = tradeoff_part.read(found.sweep, found.tradeoff, originals.pictures)
        decoded = []  # they are among the images of the tradeoff
    pictures = [originals.row, *own_pictures[:1], *decoded, *own_pictures[1:]]
    if run is None or ((shown or without_loss) and len(pictures) == 1):
        pictures = []
    return Report(
        title=title,
        date=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        facts=_facts(found, shard_set, generator, curve),
        notes=notes,
        pixels=pixels,
        generator=generator,
        sweep=sweep,
        tradeoff=shown,
        lossless=without_loss,
        parts=file_parts.of_report([run for _, run in found.best] or ([run] if run else [])),
        curve=curve,
        pictures=pictures,
        protocol=_protocol(found, shard_set, curve),
    )


def _facts(
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


def _protocol(
    found: Found, shard_set: ShardSet | None, curve: Curve | None
) -> list[tuple[str, Pairs]]:
    """Titled lists for the foot of the page."""
    parts: list[tuple[str, Pairs]] = []
    if shard_set and (run := found.any_run):
        parts.append(("Data and scales", of_data(shard_set, run)))
    if found.run:
        parts.append(("Generator", of_run(found.run)))
    if found.sweep:
        trials = [
            (f"trial {row['trial']}", f"weights {weights_of(run)}") for row, run in found.best
        ]
        first = of_run(found.best[0][1])[1:] if found.best else []
        seed = [("sweep seed", str(found.sweep.sweep.seed))]
        if found.checkpoint != LAST:
            seed.append(("checkpoint", found.checkpoint))
        parts.append(("Codecs", [("sweep", found.sweep.directory.name), *trials, *seed, *first]))
    if found.evaluation and curve:
        parts.append(("Curve", of_curve(found.evaluation, curve)))
    parts.append(("This page", of_environment(provenance.environment())))
    return parts
