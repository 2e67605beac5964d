"""`gencomp report`: one HTML page from a generator run, a sweep and a rate-distortion curve."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gencomp.errors import InputError

if TYPE_CHECKING:
    from sweeps.report.inputs import Found


def report(
    generator: Path | None = None,
    sweep: Path | None = None,
    curve: Path | None = None,
    out: Path = Path("runs/report.html"),
    images: int = 8,
) -> None:
    """Write one self-contained HTML page from finished runs.

    A part that is not there is left out, and the page says so.

    Args:
        generator: Run of the generative model; runs/generator by default.
        sweep: Directory of the sweep over codecs; runs/rates by default.
        curve: Collected AIS evaluation; evaluations/ais in the generator's run by default.
        out: The page to write.
        images: Test images to show.
    """
    if images < 1:
        raise InputError(f"--images is {images}, but at least one image must be shown")
    if out.is_dir() or (out.parent.exists() and not out.parent.is_dir()):
        raise InputError(f"--out {out} cannot be written; name an HTML file in a directory")
    from cluster.files import write_text
    from sweeps.report.inputs import find

    html = _page(find(generator, sweep, curve), images)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, html)
    print(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB)")


def _page(found: Found, images: int) -> str:
    import shards
    from cluster.results.protocol import facts, protocol
    from gencomp.report import PictureRow, Report, render
    from sweeps.report import sweep as parts

    curve = parts.read_curve(found.evaluation) if found.evaluation else None
    notes = list(found.missing)
    if curve and curve.missing:
        notes.append(f"The curve is not complete: {curve.missing}.")
    title, pixels = "What a generator allows", curve.pixels if curve else None
    shard_set, originals = None, PictureRow("Originals", "", [])
    if run := found.any_run:
        shard_set = shards.open_set(run.recipe().evaluation_shards())
        identity = run.identity()
        if shard_set.index_hash != identity.get("evaluation.data", identity["data"]):
            raise InputError(
                f"{shard_set.path} is another shard set than {run.path} was trained on"
            )
        if found.evaluation and found.evaluation.plan.data != shard_set.index_hash:
            notes.append("The curve was measured on another data set than the rest of this page.")
        title = f"{run.recipe().system} on {shard_set.info.name}: rate, distortion, perception"
        originals = parts.read_originals(run, shard_set, images)
        height, width = originals.images[0].shape[:2]
        pixels = pixels or height * width
    generator, own_pictures = parts.read_generator(found.run, originals.images)
    sweep, decoded = parts.read_sweep(found, originals.images)
    return render(
        Report(
            title=title,
            date=f"Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            facts=facts(found, shard_set, generator, curve),
            notes=notes,
            pixels=pixels,
            generator=generator,
            sweep=sweep,
            curve=curve,
            pictures=[originals, *own_pictures[:1], *decoded, *own_pictures[1:]] if run else [],
            protocol=protocol(found, shard_set, curve),
        )
    )
