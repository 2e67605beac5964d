"""`gencomp evaluate`, which measures a finished run on held-out images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from cluster.evaluations.metrics.settings import MetricOptions, parse_metrics
from cluster.evaluations.options import Options
from cluster.tracking import choice
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint, Json
from gencomp.cli.console import only_json, show
from gencomp.cli.measuring import measure_here, require_processes
from gencomp.exit_codes import DONE

if TYPE_CHECKING:
    from cluster.evaluations.metrics.plan import Plan
    from cluster.runs import Run


class _Metrics(Options):
    """The metrics to measure."""

    metrics: str | None = Field(
        None,
        description="Some of mse,psnr,ms_ssim,pv,fid,kid,swd,lpips,dists,rate0,mmd,miou; by default"
        " mse, psnr and ms_ssim if the run reconstructs images, fid and kid with --features, lpips"
        " with --lpips and dists with --dists. pv is the variance over several reconstructions of"
        " an image, rate0 the point without any bits, mmd the distance of the latents from the"
        " prior, and miou how well a segmentation network still finds the label map in"
        " reconstructions. Results call fid and kid so for the Inception network alone; for any"
        " other they are fd and kd, the Fréchet and the kernel distance of its features.",
    )


class RunOptions(MetricOptions, _Metrics):
    """The metrics to measure, and how they are measured."""

    features: Path | None = Field(
        None,
        description="TorchScript file of the network whose features fid and kid compare, or"
        " efficientnet-lite0 for the one of gencomp[features].",
    )
    features_sha256: str | None = Field(
        None,
        description="SHA-256 of the file of --features; may be left out for the Inception network"
        " of 2015-12-05.",
    )
    lpips: Path | None = Field(
        None,
        description="TorchScript file of the network for lpips, which takes two images on [-1, 1].",
    )
    lpips_sha256: str | None = Field(None, description="SHA-256 of the file of --lpips.")
    dists: Path | None = Field(
        None,
        description="TorchScript file of the network for dists, which takes two images on [0, 1].",
    )
    dists_sha256: str | None = Field(None, description="SHA-256 of the file of --dists.")
    segmentation: Path | None = Field(
        None,
        description="TorchScript file of the network for miou, which maps uint8 images to a score"
        " for each class and pixel.",
    )
    segmentation_sha256: str | None = Field(
        None, description="SHA-256 of the file of --segmentation."
    )
    toward: Path | None = Field(
        None,
        description="Another run whose decoder reads the same files, to measure images between"
        " those of the two decoders; with --reconstructions files.",
    )
    share: float | None = Field(
        None, ge=0, le=1, description="With --toward: the share of the other run's image."
    )
    gpu: bool = Field(False, description="Measure on GPUs instead of CPUs.")
    name: str = Field(
        "metrics", description="Name of the evaluation, a directory in RUN/evaluations."
    )

    def plan(self, run: Run, threads: int) -> Plan:
        """The protocol of the measurement.

        Args:
            run: The run that is measured.
            threads: The number of threads of each process.

        Raises:
            InputError: An option is out of range, or does not fit this run.
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


def evaluate(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def evaluate(
        run: Path,
        /,
        metric: Annotated[RunOptions, tyro.conf.OmitArgPrefixes],
        checkpoint: Checkpoint = "last",
        processes: int = 1,
        threads: int = 1,
        track: choice.Name | None = None,
        as_json: Json = False,
    ) -> int:
        """Measure a finished run on held-out images, with intervals.

        The images are measured in blocks, and finished blocks are kept: after an interruption the
        same command goes on and gives the same numbers. `gencomp slurm evaluate` does the same in
        jobs. The result is written to RUN/evaluations/NAME/metrics.json.

        Args:
            run: Directory of a finished run.
            metric: The metrics to measure, and how they are measured.
            processes: How many processes of this machine share the blocks; with --gpu they are
                assigned to the GPUs in turn.
            threads: Threads of each process; the last bits of a result depend on their number.
            track: Experiment tracker in which the result joins the run: mlflow, on the server that
                MLFLOW_TRACKING_URI names, wandb, or trackio.
        """
        from cluster.evaluations.metrics import results
        from cluster.evaluations.metrics.plan import Evaluation
        from cluster.evaluations.metrics.work import open_maker
        from cluster.runs import open_run

        require_processes(processes)
        if track is not None:
            choice.require(track)
        opened = open_run(run, checkpoint, writing)
        evaluation = Evaluation.find(opened, metric.name, metric.plan(opened, threads)).enter()

        def collect() -> None:
            show(results.shown(evaluation, results.collect(evaluation, require_all=True)))

        with only_json(as_json) as answer:
            measure_here(evaluation, open_maker, processes, collect)
            print(f"wrote {evaluation.result}")
            if track is not None:
                from cluster.tracking.results import send_evaluation

                send_evaluation(evaluation.run, track, evaluation.result)
            answer(json.loads(evaluation.result.read_bytes()))
        return DONE

    return recipe_words.call(evaluate, own, "gencomp evaluate", recipe_words.writing_keys)
