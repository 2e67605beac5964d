"""The table of the gaps of several curves by bidirectional Monte Carlo (BDMC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gencomp.cli.console import print_table

if TYPE_CHECKING:
    from cluster.results.curves import MeasuredCurve


def print_gaps(measured: Sequence[MeasuredCurve]) -> None:
    """Print a table of all gaps, for which a figure of many curves has no room."""
    rows = [
        [one.label, f"{gap.beta:.4g}", f"{gap.value:.4f}", f"{gap.standard_error:.4f}"]
        + ["{:.4f} to {:.4f}".format(*gap.interval)]
        for one in measured
        for gap in one.gaps
    ]
    if rows:
        header = ["evaluation", "beta", "gap", "± s.e.", "95 %"]
        print_table("BDMC gap, nats", header, rows)
