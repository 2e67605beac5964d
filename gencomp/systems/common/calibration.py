"""Training batches from which batch statistics are estimated once weights are final."""

from __future__ import annotations

from gencomp.draws import Draws
from gencomp.system import Batch, Supply

CALIBRATION_SAMPLES = 2048


def calibration_batches(supply: Supply) -> list[tuple[Batch, Draws]]:
    """Global batches of the supply, with `CALIBRATION_SAMPLES` images or a few more in all."""
    batches = []
    samples = 0
    while samples < CALIBRATION_SAMPLES:
        batches.append(next(supply))
        samples += batches[-1][1].batch_size
    return batches
