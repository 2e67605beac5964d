"""The page of a report; each section is a function from its part of the report to HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gencomp.evaluation import scales
from gencomp.report import curve_sections, figures
from gencomp.report.content import Best, Curve, Generator, PictureRow, Report, Sweep, Trial
from gencomp.report.gallery import gallery
from gencomp.report.lossless_section import lossless
from gencomp.report.markup import (
    DASH,
    Column,
    count,
    figure,
    fixed,
    image,
    number,
    pairs,
    plus_minus,
    section,
    table,
    text,
)
from gencomp.report.parts_section import rate_by_part
from gencomp.report.template import PAGE, STYLE
from gencomp.report.tradeoff_section import tradeoff
from gencomp.report.wording import key_name, metric_name, value_text

_STATUS = {
    "finished": "finished",
    "stopped": "stopped early",
    "failed": "failed",
    "pending": "not run",
}


_METRIC_HEADINGS = {"mse": "MSE", "psnr": "PSNR,<br>dB", "mmd": "MMD"}
_PERCEPTION = (
    "Distortion against how well the latents keep the generator’s prior, for every trial. MMD "
    "estimates the squared maximum mean discrepancy between the latents that the codec decodes "
    "and samples of the prior (0: the same distribution). The nearer "
    "to 0, the closer the reconstructions keep to the distribution of the generator’s own "
    "samples, whatever the rate."
)


def render(report: Report) -> str:
    """The whole page as one HTML document that needs neither other files nor a network."""
    sections = [
        _rate_distortion(report),
        tradeoff(report.tradeoff) if report.tradeoff else "",
        lossless(report.lossless) if report.lossless else "",
        rate_by_part(report.parts) if report.parts else "",
        _sweep(report.sweep) if report.sweep else "",
        _training(report.generator, report.sweep),
        _pictures(report.pictures),
        _figures(report.figures),
        _protocol(report),
    ]
    facts = "".join(f"<div><span>{text(n)}</span><b>{text(v)}</b></div>" for n, v in report.facts)
    notes = "".join(f"<li>{text(note)}</li>" for note in report.notes)
    return PAGE.substitute(
        title=text(report.title),
        date=text(report.date),
        style=STYLE,
        lede=_lede(report),
        facts=f'<div class="facts">{facts}</div>' if facts else "",
        notes=f'<ul class="notes">{notes}</ul>' if notes else "",
        sections="\n".join(filter(None, sections)),
    )


def _figures(drawings: Sequence[tuple[str, np.ndarray]]) -> str:
    parts = [figure(image(pixels_HWC, name), text(name)) for name, pixels_HWC in drawings]
    return section("Figures", "".join(parts)) if parts else ""


def _lede(report: Report) -> str:
    sentences = []
    if report.curve:
        sentences.append(
            "The line in the first figure is what this one generator allows when an ideal "
            "encoder picks its latents."
        )
    if report.sweep and report.pixels:
        sentences.append("The points are codecs that write real files.")
    if report.curve and report.sweep:
        sentences.append(
            "A codec above the line can be improved without touching the generator: in expectation "
            "at least by the height of the gap at equal rate, or by its width at equal quality."
        )
    return f'<p class="lede">{" ".join(sentences)}</p>' if sentences else ""


def _rate_distortion(report: Report) -> str:
    best = report.sweep.best if report.sweep else ()
    codecs = [one for one in best if one.held_out or one.on_curve]
    if report.pixels is None or not (report.curve or codecs):
        return ""
    drawing = figures.rate_distortion(report.curve, codecs, report.generator, report.pixels)
    parts = [figure(drawing, _caption(report.curve, codecs))]
    if report.curve and codecs:
        parts.append(curve_sections.held_against(report.curve, codecs))
    if report.curve:
        parts.append(curve_sections.quality(report.curve))
    return section("Rate and distortion", "".join(parts))


def _caption(curve: Curve | None, codecs: Sequence[Best]) -> str:
    words = [
        "MSE is per value on images scaled to [−1, 1]; PSNR = 10·log<sub>10</sub>(4/MSE) of the "
        "mean MSE; both scales are logarithmic in MSE."
    ]
    if curve:
        band = (
            "± one standard error over images, drawn along the distortion"
            if curve.images > 1
            else "none, as the error of a single image is unknown"
        )
        words.append(
            f"Line: mean over {curve.images} test images at equal inverse temperature β; band: "
            f"{band}."
        )
        if curve.gaps:
            words.append(
                "Bars below the line: its BDMC gap on simulated images, along the distortion, with "
                "the upper end of the 95 % interval as a thin line."
            )
    if codecs:
        words.append(
            "Points: codecs by their real files. A point stands at the bits of code, and the thin "
            "line from it ends at all bits of the joint container that holds the files of many "
            "images. Filled: the curve’s images, ± one standard error; hollow: held-out images, "
            "95 % interval."
        )
    return " ".join(words)


def _sweep(sweep: Sweep) -> str:
    key = figures.colour_key(sweep)
    group = text(key_name(sweep.group_by)) if sweep.group_by else ""
    counts = [
        f"{sum(t.status == status for t in sweep.trials)} {words}"
        for status, words in _STATUS.items()
        if any(t.status == status for t in sweep.trials)
    ]
    finished = any(t.metrics for t in sweep.trials)
    drawings = ""
    kept = "mmd" in _shown_metrics(sweep)
    if finished and kept:
        drawings = (
            '<div class="aside">'
            + figure(figures.distortion_perception(sweep, key))
            + f"<p>{_PERCEPTION}</p></div>"
        )
    if finished:
        colours = "in the colours above" if kept else "in the colours of the legend"
        drawings += figure(
            figures.scores(sweep, key, legend=not kept),
            f"Score while training, {colours}; a dot ends a finished trial, a cross one that was "
            "stopped early.",
        )
    heading = f"The best codec for each number of {group}" if group else "The best codec"
    if len(sweep.minimised) > 1:
        heading = "The best codecs, none of which another beats in all metrics"
    if group and group != "channels":
        heading = f"The best codec for each {group}"
    return section(
        heading,
        f"<p>{text(sweep.objective)}. The sweep <code>{text(sweep.name)}</code> ran "
        f"{len(sweep.trials)} trials: "
        f"{', '.join(counts)}.</p>{_scales(sweep)}{_best_table(sweep)}{drawings}"
        f"<h3>All trials, best score first</h3>{_trial_table(sweep)}",
    )


def _scales(sweep: Sweep) -> str:
    """What the reader of the tables must know about their metrics first."""
    named = {name for trial in sweep.trials for name in trial.metrics}
    said = scales.remark(name for name in ("mse", "mmd") if name in named)
    return f'<p class="muted">{text(said)}.</p>' if said else ""


def _best_table(sweep: Sweep) -> str:
    keys = list(sweep.trials[0].point) if sweep.trials else []
    keys.sort(key=lambda key: key != sweep.group_by)
    columns = [
        *(Column(text(key_name(key))) for key in keys),
        Column("nominal<br>bpp"),
        Column("code,<br>bpp"),
        Column("joint file,<br>bpp"),
        Column("file alone,<br>bytes"),
        *_metric_columns(sweep),
        Column("images"),
        Column("trial", words=True),
    ]
    rows = []
    for one in sweep.best:
        metrics, files = one.trial.metrics, one.held_out
        rows.append(
            [
                *(text(value_text(one.trial.point.get(key, DASH))) for key in keys),
                number(metrics.get("nominal_bpp"), 3),
                number(files.code_bpp if files else None, 3),
                number(files.file_bpp if files else None, 3),
                fixed(files.bytes_alone if files else None, 0),
                *_metric_cells(one.trial, sweep),
                count(metrics.get("images")),
                f"<code>{text(one.trial.id)}</code>",
            ]
        )
    missed = [
        name
        for name, bound in sweep.bounds.items()
        if any(_over(one.trial, name, bound) for one in sweep.best)
    ]
    note = (
        '<p class="muted">† above the objective’s bound on '
        f"{text(', '.join(map(metric_name, missed)))}.</p>"
        if missed
        else ""
    )
    return table(columns, rows) + note + _rates_note(sweep)


def _rates_note(sweep: Sweep) -> str:
    """What the columns of rates mean, if there are any."""
    counts = sorted({one.held_out.images for one in sweep.best if one.held_out})
    if not counts:
        return ""
    images = " / ".join(map(str, counts))
    return (
        '<p class="muted">Nominal: symbols at log<sub>2</sub> L bits each, which no file need '
        f"have. Code and files: measured on real files of {images} held-out images, in joint "
        "containers and each alone. The metrics (MSE on [−1, 1]): the sweep’s last evaluation, on "
        "as many images as the table says.</p>"
    )


def _trial_table(sweep: Sweep) -> str:
    keys = list(sweep.trials[0].point) if sweep.trials else []
    failed = any(trial.error for trial in sweep.trials)
    columns = [
        Column("trial", words=True),
        Column("status", words=True),
        *(Column(text(key_name(key))) for key in keys),
        Column("steps"),
        Column("nominal<br>bpp"),
        *_metric_columns(sweep),
        Column("score"),
        *([Column("error", words=True)] if failed else []),
    ]
    rows, classes = [], []
    best = {one.trial.id for one in sweep.best}
    for trial in sweep.trials:
        rows.append(
            [
                f"<code>{text(trial.id)}</code>",
                f'<span class="{trial.status}">{_STATUS[trial.status]}</span>',
                *(text(value_text(trial.point.get(key, DASH))) for key in keys),
                count(trial.metrics.get("step")),
                number(trial.metrics.get("nominal_bpp"), 3),
                *_metric_cells(trial, sweep),
                number(trial.score if math.isfinite(trial.score) else None),
                *([f'<span class="wrap">{text(trial.error or "")}</span>'] if failed else []),
            ]
        )
        classes.append("best" if trial.id in best else "")
    return table(columns, rows, classes)


def _shown_metrics(sweep: Sweep) -> list[str]:
    """The metrics of the tables: the usual ones that trials have, and those of the objective."""
    found = {n for t in sweep.trials for n, value in t.metrics.items() if value is not None}
    usual = [name for name in _METRIC_HEADINGS if name in found or not found]
    return [*usual, *(name for name in sweep.minimised if name not in usual)]


def _metric_columns(sweep: Sweep) -> list[Column]:
    names = _shown_metrics(sweep)
    return [Column(_METRIC_HEADINGS.get(name, text(metric_name(name)))) for name in names]


def _metric_cells(trial: Trial, sweep: Sweep) -> list[str]:
    """The cells of the metrics, with the errors that are known; a dagger marks a missed bound."""
    metrics = trial.metrics
    decimals = {"psnr": 2, "mmd": 4}
    cells = {
        name: fixed(metrics.get(name), decimals[name])
        if name in decimals
        else plus_minus(metrics.get(name), metrics.get(f"{name}_standard_error"))
        for name in _shown_metrics(sweep)
    }
    for name, bound in sweep.bounds.items():
        if name in cells and _over(trial, name, bound):
            cells[name] += '<span class="stopped">†</span>'
    return list(cells.values())


def _over(trial: Trial, name: str, bound: float) -> bool:
    value = trial.metrics.get(name)
    return value is not None and value > bound


def _training(generator: Generator | None, sweep: Sweep | None) -> str:
    body = ""
    if generator and generator.history.training:
        metrics = generator.metrics
        said = (
            f"On {count(metrics.get('images'))} held-out images its own encoder reaches "
            f"an MSE of {plus_minus(metrics['mse'], metrics.get('mse_standard_error'))} "
            f"({fixed(metrics.get('psnr'), 2)} dB) with an MMD of {fixed(metrics.get('mmd'), 4)}, "
            "without any rate limit."
            if "mse" in metrics
            else ""
        )
        body += f"<h3>Generator <code>{text(generator.name)}</code></h3><p>{said}</p>" + figure(
            figures.losses([generator.history], "generator-loss")
        )
    histories = [one.history for one in sweep.best if one.history.training] if sweep else []
    if histories:
        body += "<h3>The best codecs</h3>" + figure(figures.losses(histories, "codec-loss"))
    if not body:
        return ""
    lead = (
        '<p class="muted">Solid: training batches, averaged between rows of the log. Dotted with '
        "marks: held-out "
        "images in evaluation mode, RMSE as the root of the mean MSE.</p>"
    )
    return section("Training", lead + body)


def _pictures(rows: Sequence[PictureRow]) -> str:
    if not rows:
        return ""
    return section("Originals, reconstructions, samples", gallery(rows))


def _protocol(report: Report) -> str:
    if not report.protocol:
        return ""
    parts = "".join(
        f"<div><h3>{text(title)}</h3>{pairs(items)}</div>" for title, items in report.protocol
    )
    return section("Protocol", f'<div class="protocol">{parts}</div>')
