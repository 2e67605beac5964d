"""The figures of a report as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gencomp.evaluation.psnr import psnr
from gencomp.rate_distortion.units import nats_to_bpp
from gencomp.report import analysis
from gencomp.report.content import Best, Curve, Generator, History, Sweep, Trial
from gencomp.report.drawing import (
    GROUPS,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    automatic_scale,
    handle,
    log_axis,
    new,
    plain,
    ramp,
    step_axis,
    style,
    to_svg,
)
from gencomp.report.wording import metric_name, value_of

# Rates below this share of the smallest codec's are not drawn, since nothing is coded there.
_LOWEST_RATE = 0.2
_FREE: dict[str, Any] = {"color": MUTED, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 1}


def rate_distortion(
    curve: Curve | None, best: Sequence[Best], generator: Generator | None, pixels: int
) -> str:
    """Draw the curve with its band, the codecs with error bars, and the free encoder's MSE."""
    with style():
        figure, axes_RC = new(10.4, 5.2)
        axes: Axes = axes_RC[0, 0]
        rates = [one.held_out.code_bpp for one in best if one.held_out] + [
            float(one.on_curve.bits_I.mean()) / pixels for one in best if one.on_curve
        ]
        if curve is not None:
            _draw_curve(axes, curve, lowest_bpp=_LOWEST_RATE * min(rates) if rates else 0.0)
        for i, one in enumerate(best):
            _draw_codec(axes, one, i, pixels)
        free = generator.metrics.get("mse") if generator else None
        if free is not None:
            axes.axhline(free, **_FREE)
        axes.margins(x=0.06, y=0.08)
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set_xlabel("rate, bits per pixel (of codecs: measured)")
        axes.set_ylabel("MSE on [−1, 1]")
        _other_units(axes, pixels)
        figure.legend(handles=_handles(curve, best, generator), loc="outside right upper")
        return to_svg(
            figure, "rd", "Rate-distortion curve of the generator and the codecs' operating points"
        )


def quality(curve: Curve) -> str:
    """Draw effective sample size and acceptance over β, with a band of 80 % of the images."""
    with style():
        figure, axes_RC = new(4.2, 2.7)
        axes: Axes = axes_RC[0, 0]
        parts = (
            (curve.ess_IT / curve.chains, GROUPS[0], "ESS / chains"),
            (curve.acceptance_IT, GROUPS[1], "acceptance"),
        )
        for values_IT, colour, label in parts:
            low, high = np.nanquantile(values_IT, [0.1, 0.9], axis=0)
            axes.fill_between(curve.beta_T, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(curve.beta_T, np.nanmean(values_IT, 0), color=colour, label=label)
        axes.set_ylim(0, 1.03)
        log_axis(axes, "x")
        axes.set_xlabel("inverse temperature β (of the summed squared error)")
        axes.legend(loc="lower left", ncols=2)
        return to_svg(
            figure, "quality", "Effective sample size and acceptance over inverse temperature"
        )


def distortion_perception(sweep: Sweep, colour_key: str | None) -> str:
    """Draw the MSE against the MMD of every trial.

    The colour shows one key of the space, and the marker shows the group.
    """
    with style():
        figure, axes_RC = new(6.0, 3.7)
        axes: Axes = axes_RC[0, 0]
        colours, markers = _codes(sweep, colour_key)
        chosen = {b.trial.id for b in sweep.best}
        shown = [t for t in sweep.trials if _number(t, "mse") and t.metrics.get("mmd") is not None]
        for trial in shown:
            colour = colours.get(trial.point.get(colour_key or ""), INK)
            filled = trial.status == "finished"
            axes.plot(
                [_number(trial, "mse")],
                [_number(trial, "mmd")],
                marker=markers[trial.point.get(sweep.group_by or "")],
                markersize=9 if trial.id in chosen else 6,
                color=colour,
                markerfacecolor=colour if filled else PAPER,
                markeredgecolor=INK if trial.id in chosen else colour,
                markeredgewidth=1.4,
                linestyle="none",
            )
        if (bound := sweep.bounds.get("mmd")) is not None:
            axes.axhline(bound, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"bound of the objective, {plain(bound)}",
                (0.99, bound),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=MUTED,
            )
        axes.margins(0.09)
        automatic_scale(axes, [_number(t, "mmd") for t in shown])
        if shown and max(_number(t, "mse") for t in shown) > 3 * min(
            _number(t, "mse") for t in shown
        ):
            log_axis(axes, "x")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("MSE on [−1, 1]")
        axes.set_ylabel("MMD of the latents to the prior")
        figure.legend(handles=_code_handles(sweep, colour_key), loc="outside right upper")
        return to_svg(figure, "perception", "MSE against MMD of all trials")


def scores(sweep: Sweep, colour_key: str | None, legend: bool = False) -> str:
    """Draw the score over steps in a panel for each group; a cross marks an early stop."""
    groups = _groups(sweep)
    columns = min(len(groups), 4)
    rows = math.ceil(len(groups) / columns)
    with style():
        width = 10.4 if columns > 2 else 1 + 3.2 * columns
        figure, axes_RC = new(width, 0.4 + 2.3 * rows, rows, columns, sharex=True, sharey=True)
        colours, _ = _codes(sweep, colour_key)
        every = [v for t in sweep.trials for v in t.scores.values if math.isfinite(v)]
        for axes, group in zip(axes_RC.flat, groups, strict=False):
            for trial in sweep.trials:
                if trial.point.get(sweep.group_by or "") == group and len(trial.scores.steps):
                    _draw_score(axes, trial, colours.get(trial.point.get(colour_key or ""), INK))
            automatic_scale(axes, every)
            step_axis(axes)
            if sweep.group_by:
                axes.set_title(value_of(sweep.group_by, group))
        for axes in axes_RC.flat[len(groups) :]:
            axes.set_axis_off()
        for axes in axes_RC[:, 0]:
            axes.set_ylabel("score")
        if legend:
            figure.legend(handles=_colour_handles(sweep, colour_key), loc="outside right upper")
        return to_svg(figure, "scores", "Score of all trials over steps")


def losses(histories: Sequence[History], name: str) -> str:
    """Draw a panel for each term, with training batches as lines and evaluations as points."""
    terms = list(dict.fromkeys(term for history in histories for term in history.training))
    rows = math.ceil(len(terms) / 3)
    with style():
        figure, axes_RC = new(10.4, 0.3 + 2.5 * rows, rows, min(len(terms), 3))
        for axes, term in zip(axes_RC.flat, terms, strict=False):
            every: list[float] = []
            for i, history in enumerate(histories):
                every += _draw_history(axes, history, term, i)
            automatic_scale(axes, every)
            step_axis(axes)
            axes.set_title(metric_name(term))
        for axes in axes_RC.flat[len(terms) :]:
            axes.set_axis_off()
        handles = [handle(GROUPS[i % 6], MARKERS[i % 6], h.name) for i, h in enumerate(histories)]
        if len(histories) > 1:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
        return to_svg(figure, name, "Losses over steps")


def colour_key(sweep: Sweep) -> str | None:
    """The key of the space that colours trials, which is the first one that is not the group."""
    keys = list(sweep.trials[0].point) if sweep.trials else []
    return next((key for key in keys if key != sweep.group_by), None)


def _draw_curve(axes: Axes, curve: Curve, lowest_bpp: float) -> None:
    mean = analysis.means(curve)
    bpp_T = nats_to_bpp(mean.rate_T, curve.pixels)
    order = np.argsort(bpp_T, kind="stable")
    order = order[bpp_T[order] > lowest_bpp]
    bpp, mse, error = bpp_T[order], mean.mse_T[order], np.nan_to_num(mean.mse_error_T[order])
    axes.fill_between(
        bpp, np.maximum(mse - error, mse / 10), mse + error, color=INK, alpha=0.16, linewidth=0
    )
    axes.plot(bpp, mse, color=INK, linewidth=1.8, zorder=3)
    if len(bpp) <= 60:
        axes.plot(bpp, mse, color=INK, marker=".", markersize=3.5, linestyle="none", zorder=3)
    _draw_gaps(axes, curve, lowest_bpp)


def _draw_gaps(axes: Axes, curve: Curve, lowest_bpp: float) -> None:
    """Draw each gap below the curve, as far as it would move the curve along the distortion."""
    mean, log_beta_T = analysis.means(curve), np.log(curve.beta_T)
    for gap in curve.gaps:
        at = math.log(gap.beta)
        bpp = float(nats_to_bpp(np.interp(at, log_beta_T, mean.rate_T), curve.pixels))
        if bpp <= lowest_bpp:
            continue
        mse = float(np.interp(at, log_beta_T, mean.mse_T))
        for nats, width in ((gap.value, 2.6), (gap.interval[1], 0.9)):
            end = max(mse - max(nats, 0.0) / gap.beta / curve.values, mse / 10)
            axes.vlines(bpp, end, mse, color=MUTED, linewidth=width, zorder=2)


def _draw_codec(axes: Axes, one: Best, i: int, pixels: int) -> None:
    """Draw a codec with a filled marker for the curve's images and a hollow one for held-out ones.

    A marker stands at the rate of the code, and a thin line from it ends at that of whole joint
    containers. The hollow marker is fainter where there is a filled one too.
    """
    look: dict[str, Any] = {
        "color": GROUPS[i % 6],
        "marker": MARKERS[i % 6],
        "markersize": 7,
        "capsize": 3,
        "linestyle": "none",
        "elinewidth": 1.2,
        "zorder": 4,
    }

    def whole_files(code_bpp: float, file_bpp: float, mse: float) -> None:
        axes.plot([code_bpp, file_bpp], [mse, mse], color=look["color"], linewidth=0.8, zorder=3)

    if (found := one.held_out) is not None:
        low, high = found.mse_interval or (found.mse, found.mse)
        axes.errorbar(
            [found.code_bpp],
            [found.mse],
            yerr=[[max(found.mse - low, 0)], [max(high - found.mse, 0)]],
            **look,
            markerfacecolor=PAPER,
            alpha=0.75 if one.on_curve is not None else 1.0,
        )
        if one.on_curve is None:
            whole_files(found.code_bpp, found.file_bpp, found.mse)
    if (files := one.on_curve) is not None:
        bpp, mse = float(files.bits_I.mean()) / pixels, float(files.mse_I.mean())
        error = float(np.nan_to_num(analysis.standard_error(files.mse_I)))
        axes.errorbar([bpp], [mse], yerr=[error], **{**look, "zorder": 5})
        whole_files(bpp, files.file_bpp, mse)


def _other_units(axes: Axes, pixels: int) -> None:
    """Add exact axes of nats per image above and of PSNR, which is linear in log MSE, at right."""
    nats_a_bpp = pixels * math.log(2)
    top, right = axes.twiny(), axes.twinx()
    top.set_xlim(*(nats_a_bpp * x for x in axes.get_xlim()))
    log_axis(top, "x")
    top.set_xlabel("rate, nats per image", labelpad=7)
    right.set_ylim(*(psnr(y) for y in axes.get_ylim()))
    right.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    right.set_ylabel("PSNR, dB")
    for other, side in ((top, "top"), (right, "right")):
        other.grid(False)
        for name, spine in other.spines.items():
            spine.set_visible(name == side)


def _handles(
    curve: Curve | None, best: Sequence[Best], generator: Generator | None
) -> list[Line2D]:
    handles = []
    if curve is not None:
        handles.append(
            Line2D(
                [], [], color=INK, linewidth=1.8, label=f"generator by AIS, {curve.images} images"
            )
        )
        if curve.gaps:
            label = "its BDMC gap on simulated images"
            handles.append(Line2D([], [], color=MUTED, linewidth=2.6, label=label))
    for i, one in enumerate(best):
        if one.held_out or one.on_curve:
            handles.append(handle(GROUPS[i % 6], MARKERS[i % 6], one.history.name, "none"))
    matched = [one for one in best if one.on_curve is not None]
    counts = sorted({one.held_out.images for one in best if one.held_out})
    if counts:
        said = f"{' / '.join(map(str, counts))} held-out images"
        label = f"hollow: {said}" if matched else f"codecs, {said}"
        hollow = handle(MUTED, "o", label, "none")
        hollow.set_markerfacecolor(PAPER)
        handles.append(hollow)
    if matched and curve is not None:
        handles.append(handle(MUTED, "o", f"filled: the curve's {curve.images} images", "none"))
    if generator is not None and "mse" in generator.metrics:
        images = generator.metrics.get("images")
        label = "its own encoder, no rate limit" + (f",\n{images:.0f} images" if images else "")
        handles.append(Line2D([], [], **_FREE, label=label))
    return handles


def _draw_score(axes: Axes, trial: Trial, colour: str) -> None:
    steps, values = trial.scores
    axes.plot(steps, values, color=colour, linewidth=1.3)
    if trial.status == "stopped":
        axes.plot(
            [steps[-1]], [values[-1]], marker="x", markersize=6, markeredgewidth=1.6, color=colour
        )
    elif trial.status == "finished":
        axes.plot([steps[-1]], [values[-1]], marker="o", markersize=3.5, color=colour)


def _draw_history(axes: Axes, history: History, term: str, i: int) -> list[float]:
    """Draw one run into the panel of a term, and return the values that were drawn."""
    drawn: list[float] = []
    colour = GROUPS[i % 6]
    if (line := history.training.get(term)) is not None:
        axes.plot(line.steps, line.values, color=colour, linewidth=1.2, alpha=0.85)
        drawn += list(line.values)
    if (points := history.held_out.get(term)) is not None:
        few = len(points.steps) <= 40
        axes.plot(
            points.steps,
            points.values,
            color=colour,
            marker=MARKERS[i % 6] if few else None,
            markersize=4,
            markerfacecolor=PAPER,
            linewidth=0.8,
            linestyle=":",
        )
        drawn += list(points.values)
    return drawn


def _codes(sweep: Sweep, key: str | None) -> tuple[dict[Any, str], dict[Any, str]]:
    """The colour of each value, and the marker of each group."""
    colours = ramp([t.point[key] for t in sweep.trials if key in t.point]) if key else {}
    markers = {group: MARKERS[i % 6] for i, group in enumerate(_groups(sweep))}
    return colours, markers


def _colour_handles(sweep: Sweep, key: str | None) -> list[Line2D]:
    """The legend of colours; of many it shows only three."""
    colours, _ = _codes(sweep, key)
    values = list(colours)
    if len(values) > 6:
        values = [values[0], values[len(values) // 2], values[-1]]
    return [handle(colours[v], "o", value_of(key or "", v), "none") for v in values]


def _code_handles(sweep: Sweep, key: str | None) -> list[Line2D]:
    """The legend of colours, markers and fillings."""
    _, markers = _codes(sweep, key)
    handles = _colour_handles(sweep, key)
    if sweep.group_by:
        handles += [
            handle(MUTED, m, value_of(sweep.group_by, g), "none") for g, m in markers.items()
        ]
    best, stopped = (
        handle(MUTED, "o", "outlined: best", "none"),
        handle(MUTED, "o", "hollow: not finished", "none"),
    )
    best.set_markeredgecolor(INK)
    best.set_markersize(8)
    stopped.set_markerfacecolor(PAPER)
    return [*handles, best, stopped]


def _groups(sweep: Sweep) -> list[Any]:
    found = {t.point.get(sweep.group_by or "") for t in sweep.trials}
    return sorted(found, key=lambda group: (str(type(group)), group))


def _number(trial: Trial, name: str) -> float:
    """The value of a metric, or 0 where it is missing or not finite."""
    value = trial.metrics.get(name)
    return float(value) if value is not None and math.isfinite(value) else 0.0
