"""The parts of a report's page about the curve: codecs against it, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gencomp.rate_distortion.units import nats_to_bpp
from gencomp.report import analysis, figures
from gencomp.report.content import Best, Curve
from gencomp.report.markup import (
    DASH,
    Column,
    count,
    figure,
    fixed,
    number,
    plus_minus,
    table,
    text,
)


def held_against(curve: Curve, codecs: Sequence[Best]) -> str:
    """The table of codecs against the curve; empty if none has coded the curve's images."""
    matched = [(one, one.on_curve) for one in codecs if one.on_curve is not None]
    if not matched:
        return ""
    rows = []
    for one, files in matched:
        nats_I = files.bits_I * math.log(2)
        start = [
            text(one.history.name),
            fixed(float(nats_I.mean()), 1),
            number(float(files.bits_I.mean()) / curve.pixels, 3),
            number(files.file_bpp, 3),
            plus_minus(float(files.mse_I.mean()), float(analysis.standard_error(files.mse_I))),
        ]
        held = analysis.held_against(curve, nats_I, files.mse_I)
        if held is None:
            rows.append([*start, "below the curve’s rates", *[DASH] * 5])
            continue
        at_mse, rate_error, beyond = held.rate_at_mse, held.rate_error, held.beyond
        in_bpp = [None if r is None else nats_to_bpp(r, curve.pixels) for r in (at_mse, rate_error)]
        rows.append(
            [
                *start,
                ("≤ " if beyond else "") + plus_minus(held.mse_at_rate, held.mse_at_rate_error),
                ("≥ " if beyond else "") + plus_minus(held.excess, held.excess_error),
                ("≥ " if beyond else "") + plus_minus(held.behind, held.behind_error),
                DASH if held.behind_by_gap is None else "+" + fixed(held.behind_by_gap, 2),
                plus_minus(at_mse, rate_error),
                plus_minus(*in_bpp),
            ]
        )
    columns = [
        Column("codec", words=True),
        Column("code,<br>nats"),
        Column("code,<br>bpp"),
        Column("joint file,<br>bpp"),
        Column("MSE on<br>[−1, 1]"),
        Column("curve’s MSE<br>at that rate"),
        Column("codec’s excess<br>MSE"),
        Column("behind,<br>dB"),
        Column("more by<br>the gap, dB"),
        Column("curve’s nats<br>at that MSE"),
        Column("curve’s bpp<br>at that MSE"),
    ]
    return (
        f"<h3>Each codec against the curve, on the same {curve.images} images</h3>"
        + table(columns, rows)
        + '<p class="muted">The rate that is held against the curve is that of the code; a joint '
        "file of these images has its container’s bytes besides. The excess is paired image by "
        "image, so that hard and easy images cancel in its standard error. ≤ and ≥: the codec’s "
        "rate lies beyond the curve’s last point, from where it cannot rise.</p>"
    )


def quality(curve: Curve) -> str:
    """What the curve says and what it does not, with its certificates."""
    lowest = float((curve.ess_IT / curve.chains).min())
    caption = (
        "Means over the images, bands from the 10th to the 90th percentile. The smallest effective "
        f"sample size of any image is {number(lowest * curve.chains, 3)} of {curve.chains} "
        "chains; below half of them, chains are resampled."
    )
    expected = (
        "For comparison: the pilot expects log Z of one chain whose moves are independent of each "
        f"other to fall short by {number(curve.single_chain_gap, 2)} nats; those of real chains "
        "are not. "
        if curve.single_chain_gap is not None
        else ""
    )
    return (
        '<h3>What the line does and does not say</h3><div class="aside"><div>'
        "<p>The line is estimated by annealed importance sampling. In expectation it is an upper "
        "bound: the rate-distortion curve of this generator lies on it or below, up to the band. "
        f"If the chains mix badly, the true curve lies lower still. {_certified(curve)}{expected}"
        "</p><p>Its rate is the "
        "mean divergence KL(q(z|x) ‖ p(z)) to the generator’s prior, which relative entropy "
        "coding approaches up to a logarithmic overhead. It speaks of this generator and this "
        "prior, not of all codecs. A codec whose latents leave the prior (a large MMD) may lie "
        "below the line without contradiction: it no longer preserves the distribution of the "
        "generator’s samples. Standard errors take the images as independent, which crops of "
        f"one photograph are not.</p></div>{figure(figures.quality(curve), caption)}</div>"
        f"{_gap_table(curve)}{_bound_table(curve)}"
    )


def _certified(curve: Curve) -> str:
    """What the certificates say of the line, in sentences."""
    words = ""
    if curve.gaps:
        gap = max(curve.gaps, key=lambda one: one.value)
        words += (
            f"How much lower was measured by bidirectional Monte Carlo (BDMC) on {gap.images} "
            "simulated images, which the generator itself makes: there the rate plus β times the "
            f"distortion is too high by {plus_minus(gap.value, gap.standard_error)} nats an image "
            f"at most on average (at β = {number(gap.beta, 3)}, where that is most). The gap "
            "speaks of images of the model and is no proof for the test images. "
        )
    if flagged := [one for one in curve.bounds if one.flagged]:
        bound = max(flagged, key=lambda one: one.at_least)
        words += (
            f"<strong>The line is wrong</strong> for {bound.flagged} of {bound.images} test images "
            f"at β = {number(bound.beta, 3)}: on average over all of them, chains that start at "
            f"modes find {number(bound.at_least, 3)} nats or more that it misses. "
        )
    elif curve.bounds:
        bound = max(curve.bounds, key=lambda one: one.missed)
        words += (
            "On the test images themselves, chains that start at modes find "
            f"{plus_minus(bound.missed, _nan(bound.missed_error))} nats more at most on average, "
            f"and prove for no image that the line misses more than {bound.tolerance:g} nat. "
        )
    return words or "How much lower was not measured. "


def _gap_table(curve: Curve) -> str:
    if not curve.gaps:
        return ""
    rows = [
        [
            number(gap.beta, 3),
            plus_minus(gap.value, gap.standard_error),
            f"{number(gap.interval[0], 3)} to {number(gap.interval[1], 3)}",
            number(gap.worst, 3),
            count(gap.images),
        ]
        for gap in curve.gaps
    ]
    columns = [
        *(Column("β"), Column("gap, nats"), Column("95 % interval"), Column("worst image")),
        Column("simulated<br>images"),
    ]
    return "<h3>BDMC gap on simulated images</h3>" + table(columns, rows)


def _bound_table(curve: Curve) -> str:
    if not curve.bounds:
        return ""
    rows = [
        [
            number(one.beta, 3),
            plus_minus(one.missed, _nan(one.missed_error)),
            number(one.at_least, 3),
            number(one.worst, 3),
            count(one.flagged),
            count(one.images),
        ]
        for one in curve.bounds
    ]
    columns = [
        *(
            Column("β"),
            Column("missed, nats"),
            Column("at least"),
            Column("worst image<br>at least"),
        ),
        *(Column("flagged"), Column("measured<br>images")),
    ]
    return (
        "<h3>Certificate of the measured images, by chains from modes</h3>"
        + table(columns, rows)
        + f'<p class="muted">log Z by chains that start at modes, minus that of the line; ± one '
        "standard error over the images. “At least” holds with "
        f"{curve.bounds[0].confidence:.0%} confidence for all entries together; an image is "
        f"flagged where it is more than {curve.bounds[0].tolerance:g} nat. Modes that no search "
        "finds stay unseen.</p>"
    )


def _nan(error: float | None) -> float:
    """An unknown error as a number that is none."""
    return math.nan if error is None else error
