"""`gencomp evaluate`: metrics of a finished run on held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from cluster.evaluations.metrics.settings import MetricOptions, parse_metrics
from cluster.evaluations.options import Options
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.console import show
from gencomp.cli.measuring import measure_here, require_processes

if TYPE_CHECKING:
    from cluster.evaluations.metrics.plan import Plan
    from cluster.runs import Run


class _Metrics(Options):
    """What to measure."""

    metrics: str | None = Field(
        None,
        description="Some of mse,psnr,ms_ssim,pv,fid,kid,lpips,rate0,mmd; by default mse, psnr and"
        " ms_ssim where the run reconstructs, fid and kid with --features, lpips with --lpips. pv"
        " is the variance over several reconstructions of an image, rate0 the point without any"
        " bits, mmd the distance of the latents from the prior.",
    )


class RunOptions(MetricOptions, _Metrics):
    """What to measure, and how."""

    features: Path | None = Field(
        None,
        description="TorchScript file of the network whose features fid and kid compare.",
    )
    features_sha256: str | None = Field(
        None, description="Its SHA-256; may be left out for the Inception of 2015-12-05."
    )
    lpips: Path | None = Field(
        None,
        description="TorchScript file of a network of two images on [-1, 1] for lpips.",
    )
    lpips_sha256: str | None = Field(None, description="Its SHA-256.")
    gpu: bool = Field(False, description="Measure on GPUs instead of CPUs.")
    name: str = Field(
        "metrics", description="Name of the evaluation, a directory in RUN/evaluations."
    )

    def plan(self, run: Run, threads: int) -> Plan:
        """The protocol of the measurement.

        Args:
            run: what is measured.
            threads: of each process.

        Raises:
            InputError: an option is out of range, or not for this run.
        """
        from cluster.evaluations.metrics import plan

        values = {name: value for name, value in self if name not in ("name", "gpu", "metrics")}
        return plan.make(
            run,
            metrics=None if self.metrics is None else parse_metrics(self.metrics),
            device="cuda" if self.gpu else "cpu",
            threads=threads,
            **values,
        )


def evaluate(
    run: Path,
    /,
    metric: Annotated[RunOptions, tyro.conf.OmitArgPrefixes],
    checkpoint: Checkpoint = "last",
    processes: int = 1,
    threads: int = 1,
) -> None:
    """Measure a finished run on held-out images, with intervals.

    Works through blocks of images and keeps what is finished: the same command goes on after an
    interruption, to the same numbers. `gencomp slurm evaluate` does it as jobs. The result is
    RUN/evaluations/NAME/metrics.json.

    Args:
        run: Directory of a finished run.
        metric: What to measure.
        processes: Processes of this machine that share the blocks, on the GPUs there are in turn.
        threads: Threads of each; the last bits of a result depend on them.
    """
    from cluster.evaluations.metrics import results
    from cluster.evaluations.metrics.plan import Evaluation
    from cluster.evaluations.metrics.work import open_maker
    from cluster.runs import open_run

    require_processes(processes)
    opened = open_run(run, checkpoint)
    evaluation = Evaluation.find(opened, metric.name, metric.plan(opened, threads)).enter()

    def collect() -> None:
        show(results.shown(evaluation, results.collect(evaluation, require_all=True)))

    measure_here(evaluation, open_maker, processes, collect)
    print(f"wrote {evaluation.result}")
