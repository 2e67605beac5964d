"""One self-contained HTML page from numbers, arrays and images.

This package renders and knows nothing of runs, shard sets or clusters: fill a `Report` and call
`render`. It needs matplotlib and Pillow beside numpy.
"""

from __future__ import annotations

from gencomp.report.content import Best, Curve, Generator, History, PictureRow, Report, Sweep, Trial
from gencomp.report.page import render

__all__ = [
    "Best",
    "Curve",
    "Generator",
    "History",
    "PictureRow",
    "Report",
    "Sweep",
    "Trial",
    "render",
]
