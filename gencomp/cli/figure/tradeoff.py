"""`gencomp figure tradeoff`, which draws runs by their distortion and their perception."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.figure.drawing import FigureFile
from gencomp.cli.figure.options import Runs


def tradeoff(
    runs: Runs,
    /,
    file: Annotated[FigureFile, tyro.conf.OmitArgPrefixes],
    distortion: str = "mse_unit",
    perception: str = "critic_distance",
) -> None:
    """Draw distortion against perception, a point for each run.

    Metrics are those of the ends of trainings, and swd that of `gencomp evaluate`. A thin line
    joins a run to the run that it starts from, if both are drawn, and the run of a fresh critic
    adds its metrics to the run that it has judged. Perception by a critic that was trained with
    its decoder, by a fresh critic and by a distance without a network are different metrics, of
    which one figure shows one.

    Args:
        runs: Finished runs, or sweeps (their finished trials).
        file: The file that the figure is written to.
        distortion: Metric of the horizontal axis.
        perception: Metric of the vertical axis, such as critic_gap, critic_distance,
            fresh_critic_gap, fresh_critic_distance or swd.
    """
    from cluster.results.tradeoff import points
    from gencomp.figures import tradeoff
    from sweeps.operating_points import runs_of

    file.check()
    found = points([path for one in runs for path in runs_of(one)], distortion, perception)
    remarks = [f"{len(found)} runs; held-out images; bars: 95 % intervals where they are known"]
    file.write(tradeoff.draw(found, distortion, perception, "Distortion and perception", remarks))
