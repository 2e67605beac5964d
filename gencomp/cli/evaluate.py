"""`gencomp evaluate`: metrics of a finished run on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from gencomp.cli.console import bar, show
from gencomp.errors import InputError

if TYPE_CHECKING:
    from cluster.evaluations.metrics.plan import Plan
    from cluster.runs import Run

_BUSY = "{directory} is being worked on by {holder}"


@dataclass(frozen=True)
class MetricOptions:
    """What to measure, and how.

    Attributes:
        metrics: Some of mse,psnr,ms_ssim,pv,fid,kid,lpips,rate0,mmd; by default mse, psnr and
            ms_ssim where the run reconstructs, fid and kid with --features, lpips with --lpips. pv
            is the variance over several reconstructions of an image, rate0 the point without any
            bits, mmd the distance of the latents from the prior.
        split: Split to measure on.
        images: How many, evenly spaced over the split; by default all.
        samples: Samples of the prior for sFID and sKID; by default as many as images, 0 for none.
        draws: Reconstructions of each image for pv, and samples for rate0.
        features: TorchScript file of the network whose features fid and kid compare.
        features_sha256: Its SHA-256; may be left out for the Inception of 2015-12-05.
        features_input: What it is given: uint8 of any size, or floats on [-1, 1] at 299×299.
        lpips: TorchScript file of a network of two images on [-1, 1] for lpips.
        lpips_sha256: Its SHA-256.
        batch_size: Images that go through the networks at once.
        block: Images of a part; what is killed loses a part at most.
        seed: Of noise, samples and intervals.
        gpu: Measure on GPUs instead of CPUs.
        checkpoint: Checkpoint of the run: last, best (by training.keep_best_metric) or a step.
        name: Name of the evaluation, a directory in RUN/evaluations.
    """

    metrics: str | None = None
    split: str = "test"
    images: int | None = None
    samples: int | None = None
    draws: int = 100
    features: Path | None = None
    features_sha256: str | None = None
    features_input: Literal["uint8", "signed-299"] = "uint8"
    lpips: Path | None = None
    lpips_sha256: str | None = None
    batch_size: int = 64
    block: int = 256
    seed: int = 7
    gpu: bool = False
    checkpoint: str = "last"
    name: str = "metrics"

    def open(self, run: Path) -> Run:
        """
        Raises:
            InputError: there is no such run, or the checkpoint is neither last nor best nor a step.
        """
        from cluster.checkpoints.store import parse_choice
        from cluster.runs import open_run

        return open_run(run, parse_choice(self.checkpoint))

    def plan(self, run: Run, threads: int) -> Plan:
        """
        Args:
            run: what is measured.
            threads: of each process.

        Raises:
            InputError: an option is out of range, or not for this run.
        """
        from cluster.evaluations.metrics import plan

        values: dict[str, Any] = {**vars(self), "threads": threads}
        del values["name"], values["checkpoint"]
        values["device"] = "cuda" if values.pop("gpu") else "cpu"
        asked = values.pop("metrics")
        chosen = None if asked is None else plan.parse_metrics(asked)
        return plan.make(run, metrics=chosen, **values)


def evaluate(
    run: Path,
    /,
    metric: Annotated[MetricOptions, tyro.conf.OmitArgPrefixes],
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
    from cluster.evaluations.processes import make_parts
    from cluster.files import locked

    if processes < 1:
        raise InputError(f"--processes {processes} must be at least 1")
    opened = metric.open(run)
    evaluation = Evaluation.find(opened, metric.name, metric.plan(opened, threads)).enter()
    with locked(evaluation.path, _BUSY):
        total, missing = len(evaluation.plan.blocks), len(evaluation.missing())
        if missing < total:
            print(f"{evaluation.path}: {total - missing} of {total} blocks are there", flush=True)

        def text() -> tuple[str, float, str]:
            left = len(evaluation.missing())
            return str(run), 1 - left / total, f"{total - left} of {total} blocks"

        with bar(text) as show_progress:
            make_parts(
                partial(open_maker, evaluation.path),
                evaluation.missing(),
                processes,
                lambda block: show_progress(),
            )
        result = results.collect(evaluation, require_all=True)
    show(results.shown(evaluation, result))
    print(f"wrote {evaluation.result}")
