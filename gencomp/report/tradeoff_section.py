"""The part of a report's page about distortion and perception: runs as points, a table, images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation

from gencomp.coding.symbols import LayerSymbols
from gencomp.evaluation import scales
from gencomp.evaluation.measured import Measured
from gencomp.figures.style import spread
from gencomp.report.content import Tradeoff, TradeoffRun
from gencomp.report.drawing import GROUPS, MARKERS, MUTED, handle, new, style, to_svg
from gencomp.report.gallery import gallery
from gencomp.report.markup import (
    DASH,
    Column,
    count,
    figure,
    measured,
    number,
    section,
    table,
    text,
)

_PANEL = (5.2, 4.3)  # inches
_CAPTION = (
    "A point is a run; bars are 95 % intervals over held-out images, where they are known, without "
    "the noise of another training. A thin line joins a run to the run whose encoder it starts "
    "from. Down and to the left is better."
)
_SYMBOLS = (
    "H(S | U) is the entropy of an image’s symbols given what sender and receiver share, one "
    "latent after the other, by the entropy coder’s tables of training images: what entropy coding "
    "spends, beside log<sub>2</sub> L a latent at the fixed length."
)


def tradeoff(content: Tradeoff) -> str:
    """The section as markup; empty without runs."""
    if not content.runs:
        return ""
    measures = "; ".join(
        text(f"{name}: {scales.PERCEPTION[name]}")
        for name in content.perceptions
        if name in scales.PERCEPTION
    )
    said = (
        f"<p>Distortion is {text(_with_unit(content.distortion))}. Perception is measured in "
        f"{len(content.perceptions)} way{'s' * (len(content.perceptions) > 1)}, never two in one "
        f"axis. {measures}.</p>"
    )
    grid = ""
    if content.pictures:
        grid = (
            "<h3>The same held-out images through each decoder</h3>"
            '<p class="muted">All on one scale: black is 0 and white is 1 in every row.</p>'
            + gallery(content.pictures)
        )
    body = said + figure(_drawing(content), _CAPTION) + _table(content) + grid
    return section("Distortion and perception", body)


def _drawing(content: Tradeoff) -> str:
    """The scatter of each measure of perception in a panel of its own, with a common legend."""
    shown = {
        name: [run for run in content.runs if {content.distortion, name} <= run.values.keys()]
        for name in content.perceptions
    }
    series = list(dict.fromkeys(run.series for run in content.runs))
    with style():
        width, height = _PANEL
        drawn, axes_RC = new(width * len(shown), height, 1, len(shown))
        labels = []
        for axes, (name, runs) in zip(axes_RC[0], shown.items(), strict=True):
            labels.append(_scatter(axes, content.distortion, name, runs, series))
        handles = [
            handle(GROUPS[i % len(GROUPS)], MARKERS[i % len(MARKERS)], name, "none")
            for i, name in enumerate(series)
        ]
        drawn.legend(handles=handles, loc="outside lower center", ncols=min(len(series), 3))
        for axes, own in zip(axes_RC[0], labels, strict=True):
            spread(axes, own)
        return to_svg(drawn, "tradeoff", "Perception against distortion of all runs")


def _scatter(
    axes: Axes, distortion: str, perception: str, runs: Sequence[TradeoffRun], series: list[str]
) -> list[Annotation]:
    """Draw the runs of one panel, and return their labels."""
    places = {
        run.name: (run.values[distortion].value, run.values[perception].value) for run in runs
    }
    labels = []
    for run in runs:
        place, number_ = places[run.name], series.index(run.series)
        colour = GROUPS[number_ % len(GROUPS)]
        for base in run.bases:
            if base in places:
                ends = zip(place, places[base], strict=True)
                axes.plot(*ends, color=MUTED, linewidth=0.7, alpha=0.6, zorder=1)
        axes.errorbar(
            [place[0]],
            [place[1]],
            xerr=_bars(run.values[distortion]),
            yerr=_bars(run.values[perception]),
            color=colour,
            marker=MARKERS[number_ % len(MARKERS)],
            elinewidth=0.8,
            zorder=3,
        )
        if run.label:
            at: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
            labels.append(axes.annotate(run.label, place, fontsize=7.5, color=colour, **at))
    axes.set_xlabel(f"distortion: {distortion}")
    axes.set_ylabel(f"perception: {perception}")
    axes.margins(0.12)
    return labels


def _bars(measured: Measured) -> list[list[float]] | None:
    if measured.interval is None:
        return None
    low, high = measured.interval
    return [[max(measured.value - low, 0.0)], [max(high - measured.value, 0.0)]]


def _table(content: Tradeoff) -> str:
    labels = {run.name: _short(run) for run in content.runs}
    coded = any(run.symbols for run in content.runs)
    columns = [
        Column("stage", words=True),
        Column("run", words=True),
        Column("nominal<br>bpp"),
        *([Column("H(S | U), bits an image,<br>latent by latent")] if coded else []),
        Column(text(content.distortion)),
        *(Column(text(name)) for name in content.perceptions),
        Column("images"),
        Column("starts from", words=True),
        Column("directory", words=True),
    ]
    rows = [
        [
            text(run.series),
            text(run.label or DASH),
            number(run.nominal_bpp, 3),
            *([_entropies(run.symbols)] if coded else []),
            *(
                measured(run.values.get(name))
                for name in (content.distortion, *content.perceptions)
            ),
            count(run.images),
            text(", ".join(labels[base] for base in run.bases if base in labels) or DASH),
            f"<code>{text(run.directory)}</code>",
        ]
        for run in content.runs
    ]
    note = "In brackets: 95 % intervals over held-out images, where they are known."
    note += f" {_SYMBOLS}" if coded else ""
    return (
        "<h3>Every run, with intervals</h3>" + table(columns, rows) + f'<p class="muted">{note}</p>'
    )


def _short(run: TradeoffRun) -> str:
    return ", ".join(filter(None, (run.series.partition(",")[0], run.label)))


_MOST_LATENTS = 8


def _entropies(layers: Sequence[LayerSymbols]) -> str:
    """The entropies of each layer: the sum, its latents or their ends, and the fixed length."""
    if not layers:
        return DASH
    said = []
    for layer in layers:
        bits = sorted(layer.bits_K)
        if len(bits) > _MOST_LATENTS:
            each = f"{len(bits)} latents of {bits[0]:.2f} to {bits[-1]:.2f}"
        else:
            each = " + ".join(f"{one:.2f}" for one in layer.bits_K)
        said.append(f'{layer.bits:.2f} of {layer.fixed_bits:.2f}<span class="pm"> ({each})</span>')
    return "<br>".join(said)


def _with_unit(metric: str) -> str:
    unit = scales.UNITS.get(metric)
    return f"{metric} ({unit})" if unit else metric
