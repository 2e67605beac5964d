"""What is known of a curve's error: gaps on simulated images, and bounds for the measured ones.

A gap of bidirectional Monte Carlo speaks of images that the model itself makes. A bound of chains
from modes speaks of the measured images, and of one direction: it proves that the curve misses at
least so much (``gencomp.rate_distortion.certificate``). Both are in nats per image, in which they
are errors of rate + β·distortion.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cluster.evaluations.curve.plan import Plan, nearest, nearest_reported
from cluster.evaluations.tables import Table
from gencomp.evaluation import intervals
from gencomp.rate_distortion.bdmc import Gap
from gencomp.rate_distortion.certificate import lower_bound
from gencomp.rate_distortion.tuning import Tuning

# The greatest probability that any bound of an evaluation is wrong. One half is for the bounds of
# single images at all betas, and one half for those of the means.
ERROR_RATE = 0.01
LARGE_SHARE = 0.05  # of the rate; a gap above it is called large
CLEAR = 3.0  # standard errors; a gap above it is no noise
TOLERANCE = 1.0  # nats; an image for which the curve surely misses more is flagged


def gaps(
    tables: Mapping[int, pa.Table], plan: Plan, tuning: Tuning, points: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The gaps between the bounds of log Z, for each beta where two images or more have both.

    Args:
        tables: number of a block -> its part.
        plan: the plan.
        tuning: the frozen sampler.
        points: the points of the curve, for the rate at the gap's beta.
    """
    result = []
    for asked in plan.settings.bdmc_betas:
        bounds: dict[str, dict[int, float]] = {"forward": {}, "backward": {}}
        for number, table in tables.items():
            block = plan.blocks[number]
            if block.kind in bounds and block.beta == asked:
                found = zip(block.items, table["log_z"].to_pylist(), strict=True)
                bounds[block.kind].update(found)
        both = sorted(bounds["forward"].keys() & bounds["backward"].keys())
        if len(both) < 2:
            continue
        lower_I, upper_I = (
            torch.tensor([bound[image] for image in both], dtype=torch.float64)
            for bound in bounds.values()
        )
        temperature = nearest(tuning.betas, asked)
        gap = Gap(float(tuning.betas[temperature]), lower_I, upper_I)
        worst = int(gap.gap_I.argmax())
        result.append(
            {
                "beta": gap.beta,
                "asked": asked,
                "temperature": temperature,
                "of": "simulated images",
                "gap": gap.gap,
                "gap_standard_error": gap.standard_error,
                "gap_interval": list(gap.interval),
                "worst_image": both[worst],
                "worst_gap": float(gap.gap_I[worst]),
                "rate": _rate(points, gap.beta),
                "forward": lower_I.mean().item(),
                "backward": upper_I.mean().item(),
                "images": len(both),
                "by_image": [
                    {"image": image, "gap": one, "forward": low, "backward": high}
                    for image, one, low, high in zip(
                        both, gap.gap_I.tolist(), lower_I.tolist(), upper_I.tolist(), strict=True
                    )
                ],
            }
        )
    return result


def _rate(points: Sequence[Mapping[str, Any]], beta: float) -> float:
    """The rate of the measured curve at a beta, in nats."""
    betas = np.log([point["beta"] for point in points])
    return float(np.interp(math.log(beta), betas, [point["rate"] for point in points]))


def gap_warnings(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about gaps that are large against the rate or against their own errors."""
    sentences = []
    for one in found:
        gap, error, rate = one["gap"], one["gap_standard_error"], one["rate"]
        start = (
            f"at beta {one['beta']:.4g} the gap on simulated images is {gap:.3g} ± {error:.2g} nats"
        )
        if gap > LARGE_SHARE * rate:
            sentences.append(
                f"{start}, {gap / rate:.0%} of the curve's rate there ({rate:.4g} nats): the curve"
                " may be far too high; take more temperatures, leapfrog steps or chains"
            )
        elif gap > CLEAR * error:
            sentences.append(
                f"{start}, {gap / error:.1f} standard errors above 0: the curve is too high there,"
                " and that is no noise; more temperatures, leapfrog steps or chains make it smaller"
            )
        elif gap < -CLEAR * error:
            sentences.append(
                f"{start}, which cannot be negative in expectation: its images are too few, or"
                " something is wrong"
            )
    return sentences


def gaps_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The gaps on simulated images."""
    header = ["beta", "gap [nats]", "± s.e.", "95 %", "worst image", "of rate"]
    header += ["log Z at least", "at most", "simulated images"]
    return Table(
        header,
        [
            [
                f"{gap['beta']:.4g}",
                f"{gap['gap']:.3f}",
                f"{gap['gap_standard_error']:.3f}",
                "{:.3f} to {:.3f}".format(*gap["gap_interval"]),
                f"{gap['worst_gap']:.3f}",
                f"{gap['gap'] / gap['rate']:.1%}",
                f"{gap['forward']:.3f}",
                f"{gap['backward']:.3f}",
                str(gap["images"]),
            ]
            for gap in found
        ],
        "BDMC gap, on simulated images",
    )


def certificates(
    tables: Mapping[int, pa.Table],
    modes: Mapping[int, Sequence[int]],
    plan: Plan,
    tuning: Tuning,
) -> list[dict[str, Any]]:
    """What chains from modes say of the measured images, for each beta that has any.

    Args:
        tables: number of a block -> its part.
        modes: number of a certified block -> the number of modes of each of its images.
        plan: the plan.
        tuning: the frozen sampler.
    """
    asked = plan.settings.certify_betas
    result = []
    for one in asked:
        temperature = nearest_reported(tuning.betas, plan.reported, one)
        annealed, repeated = (
            _at(tables, plan, kind, temperature) for kind in ("measure", "repeat")
        )
        groups: dict[int, np.ndarray] = {}
        counts: dict[int, int] = {}
        rest: dict[str, list[float]] = defaultdict(list)
        for number, table in tables.items():
            block = plan.blocks[number]
            if block.kind == "certify" and block.beta == one:
                log_z_IR = table["log_z"].to_numpy().reshape(len(block.items), -1)
                groups |= dict(zip(block.items, log_z_IR, strict=True))
                counts |= dict(zip(block.items, modes[number], strict=True))
                for name in ("ess", "acceptance"):
                    rest[name] += table[name].to_pylist()
        rows = [row for row in plan.rows if row in groups and row in annealed]
        if not rows:
            continue
        log_z_IR = np.stack([groups[row] for row in rows])
        annealed_I = np.array([annealed[row] for row in rows])
        bounds = (plan, len(asked), log_z_IR, annealed_I)
        result.append(
            {
                "beta": float(tuning.betas[temperature]),
                "asked": one,
                "temperature": temperature,
                "of": "measured images",
                **_bounds(rows, *bounds),
                **_seeds(rows, annealed_I, repeated),
                "modes": float(np.mean([counts[row] for row in rows])),
                "ess": float(np.mean(rest["ess"])),
                "acceptance": float(np.mean(rest["acceptance"])),
                "by_image": _by_image(rows, *bounds, counts, repeated),
            }
        )
    return result


def _at(
    tables: Mapping[int, pa.Table], plan: Plan, kind: str, temperature: int
) -> dict[int, float]:
    """The log Z of each image of the blocks of a kind at a reported temperature."""
    found: dict[int, float] = {}
    place = plan.reported.index(temperature)
    for number, table in tables.items():
        block = plan.blocks[number]
        if block.kind == kind:
            log_z_IT = table["log_z"].to_numpy().reshape(len(block.items), -1)
            found |= dict(zip(block.items, log_z_IT[:, place].tolist(), strict=True))
    return found


def _of_images(plan: Plan, betas: int, log_z_IR: np.ndarray) -> np.ndarray:
    """The lower bound of log Z of each image, which stays the same when further images come."""
    return lower_bound(log_z_IR, ERROR_RATE / 2 / (len(plan.rows) * betas))


def _log_mean(log_z_IR: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(log_z_IR, axis=1) - math.log(log_z_IR.shape[1])


def _bounds(
    rows: Sequence[int], plan: Plan, betas: int, log_z_IR: np.ndarray, annealed_I: np.ndarray
) -> dict[str, Any]:
    """What the curve misses: estimates, and what it misses at least."""
    more_I = _log_mean(log_z_IR) - annealed_I
    least_I = _of_images(plan, betas, log_z_IR) - annealed_I
    # The mean over images is bounded by all groups of all images.
    mean = lower_bound(log_z_IR.reshape(1, -1), ERROR_RATE / 2 / betas)[0] - annealed_I.mean()
    worst = int(least_I.argmax())
    return {
        "images": len(rows),
        "log_z_annealed": float(annealed_I.mean()),
        "log_z_from_modes": float(_log_mean(log_z_IR).mean()),
        "missed": float(more_I.mean()),
        "missed_standard_error": _known(intervals.standard_error(more_I)),
        "missed_interval": intervals.of_mean(more_I),
        "missed_at_least": float(mean),
        "confidence": 1 - ERROR_RATE,
        "tolerance": TOLERANCE,
        "worst_image": rows[worst],
        "worst_missed_at_least": float(least_I[worst]),
        "flagged": [row for row, least in zip(rows, least_I, strict=True) if least > TOLERANCE],
        "silent": [row for row, more in zip(rows, more_I, strict=True) if more < -TOLERANCE],
    }


def _seeds(
    rows: Sequence[int], annealed_I: np.ndarray, repeated: Mapping[int, float]
) -> dict[str, Any]:
    """How far the annealed log Z of an image spreads over two seeds; empty without the second."""
    other_I = np.array([repeated.get(row, math.nan) for row in rows])
    apart_I = (other_I - annealed_I)[np.isfinite(other_I)]
    if not len(apart_I):
        return {}
    return {
        "spread_over_seeds": float(np.sqrt((apart_I**2).mean() / 2)),
        "greatest_difference_of_seeds": float(np.abs(apart_I).max()),
    }


def _by_image(
    rows: Sequence[int],
    plan: Plan,
    betas: int,
    log_z_IR: np.ndarray,
    annealed_I: np.ndarray,
    counts: Mapping[int, int],
    repeated: Mapping[int, float],
) -> list[dict[str, Any]]:
    least_I, from_modes_I = _of_images(plan, betas, log_z_IR), _log_mean(log_z_IR)
    return [
        {
            "image": row,
            "log_z_annealed": float(annealed_I[i]),
            "log_z_other_seed": repeated.get(row),
            "log_z_from_modes": float(from_modes_I[i]),
            "log_z_at_least": float(least_I[i]),
            "missed_at_least": float(least_I[i] - annealed_I[i]),
            "modes": counts[row],
        }
        for i, row in enumerate(rows)
    ]


def certificate_warnings(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences about measured images for which the curve is certainly wrong."""
    sentences = []
    for one in found:
        if not one["flagged"]:
            continue
        count, images = len(one["flagged"]), one["images"]
        sentences.append(
            f"at beta {one['beta']:.4g} chains from modes find what the curve has missed: for"
            f" {count} of {images} images rate + beta · distortion is too high by more than"
            f" {one['tolerance']:g} nat, by {one['worst_missed_at_least']:.4g} nats or more for"
            f" image {one['worst_image']}, and on average over all images by"
            f" {one['missed_at_least']:.4g} or more ({one['confidence']:.0%} confidence for all"
            " bounds together); a gap on simulated images cannot show this"
        )
    return sentences


def certificates_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What chains from modes say of the measured images."""
    header = ["beta", "missed [nats]", "± s.e.", "at least", "worst image at least", "flagged"]
    header += ["modes find less", "spread over seeds", "modes", "measured images"]
    rows = [
        [
            f"{one['beta']:.4g}",
            f"{one['missed']:.3f}",
            shown_error(one["missed_standard_error"], ".3f"),
            f"{one['missed_at_least']:.3f}",
            f"{one['worst_missed_at_least']:.3f}",
            str(len(one["flagged"])),
            str(len(one["silent"])),
            shown_error(one.get("spread_over_seeds"), ".3f"),
            f"{one['modes']:.1f}",
            str(one["images"]),
        ]
        for one in found
    ]
    return Table(header, rows, "Certificate by chains from modes, on the measured images")


def shown_error(value: float | None, form: str) -> str:
    """An error, or the word `unknown`."""
    return "unknown" if value is None else f"{value:{form}}"


def _known(value: float) -> float | None:
    """A number for JSON; None where it is unknown."""
    return value if math.isfinite(value) else None
