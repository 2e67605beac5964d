"""The tables of the certificates of several curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gencomp.cli.console import print_table

if TYPE_CHECKING:
    from cluster.results.curves import MeasuredCurve


def print_certificates(measured: Sequence[MeasuredCurve]) -> None:
    """Print all gaps, and all bounds for measured images, for which a figure has no room."""
    gaps = [
        [one.label, f"{gap.beta:.4g}", f"{gap.value:.4f}", f"{gap.standard_error:.4f}"]
        + ["{:.4f} to {:.4f}".format(*gap.interval)]
        + ["" if gap.worst is None else f"{gap.worst:.4f}"]
        for one in measured
        for gap in one.gaps
    ]
    if gaps:
        header = ["evaluation", "beta", "gap", "± s.e.", "95 %", "worst image"]
        print_table("BDMC gap on simulated images, nats", header, gaps)
    bounds = [
        [one.label, f"{found['beta']:.4g}", f"{found['missed_at_least']:.4f}"]
        + [f"{found['worst_missed_at_least']:.4f}"]
        + [f"{len(found['flagged'])} of {found['images']}"]
        for one in measured
        for found in one.means.get("certificate", ())
    ]
    if bounds:
        header = ["evaluation", "beta", "misses at least", "worst image at least", "flagged images"]
        print_table("Certificate of the measured images by chains from modes, nats", header, bounds)
