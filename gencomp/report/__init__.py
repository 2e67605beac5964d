"""A report is one self-contained HTML page made from numbers, arrays and images.

This package only renders and knows nothing of runs, shard sets or clusters: fill a `Report` and
call `render`. It needs numpy, matplotlib and Pillow.
"""

from __future__ import annotations

from gencomp.report.content import (
    Best,
    Curve,
    CurveFiles,
    EngineeredFiles,
    Files,
    Generator,
    History,
    Lossless,
    LosslessFiles,
    PictureRow,
    PublishedFiles,
    Report,
    Sweep,
    Tradeoff,
    TradeoffRun,
    Trial,
)
from gencomp.report.page import render

__all__ = [
    "Best",
    "Curve",
    "CurveFiles",
    "EngineeredFiles",
    "Files",
    "Generator",
    "History",
    "Lossless",
    "LosslessFiles",
    "PictureRow",
    "PublishedFiles",
    "Report",
    "Sweep",
    "Tradeoff",
    "TradeoffRun",
    "Trial",
    "render",
]
