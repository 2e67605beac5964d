"""`gencomp train`, which trains or resumes one stage of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cluster.tracking import choice
from gencomp import recipes
from gencomp.cli import recipe_words
from gencomp.cli.console import TrainingLines
from gencomp.errors import InputError
from gencomp.exit_codes import DONE, STOPPED
from gencomp.recipes import key_help
from gencomp.recipes.schema import BaseRecipe

if TYPE_CHECKING:
    from cluster.one_process.process import WorkerProcess
    from cluster.supervision import Supervision


@dataclass(frozen=True)
class Options:
    """How a stage is trained, here or in a job.

    Attributes:
        name: Name of the run, a directory in --runs; by default the recipe's name.
        runs: Directory of the runs, which all nodes must see.
        workers: How many worker processes share each batch. With MIN..MAX there are as many as the
            cluster has room for; their number changes when nodes leave or join.
        gpu: Give every worker a GPU instead of a CPU.
        max_failures: How often the workers are started again after one of them has died.
        stall_seconds: A worker that makes no progress for so many seconds is ended and counts as
            dead.
        copy_to: Place to which every checkpoint is copied as well: a directory or a URI with s3://,
            gs://, hdfs:// or file://. A run without checkpoints goes on from the newest copy.
        ray: Let Ray start the worker even if there is only one and RAY_ADDRESS names no cluster.
        track: Experiment tracker that gets what is logged, beside TensorBoard: mlflow, on the
            server that MLFLOW_TRACKING_URI names, wandb, or trackio.
        prometheus: File *.prom that is rewritten every 15 s, for the textfile collector of
            Prometheus's node_exporter.
    """

    name: str | None = None
    runs: Path = Path("runs")
    workers: str = "1"
    gpu: bool = False
    max_failures: int = 3
    stall_seconds: float = 1800.0
    copy_to: str | None = None
    ray: bool = False
    track: choice.Name | None = None
    prometheus: Path | None = None

    def path(self, recipe: str) -> Path:
        """The run's directory."""
        return self.runs / (self.name or Path(recipe).stem)

    def require_watchers(self) -> None:
        """Raise `InputError` for a tracker or a file for Prometheus that cannot be had."""
        if self.track is not None:
            choice.require(self.track)
        if self.prometheus is not None:
            from cluster.logs import prometheus

            prometheus.require(self.prometheus)

    def supervision(self) -> Supervision:
        from cluster.supervision import Supervision

        workers = worker_range(self.workers)
        return Supervision(
            workers, self.gpu, self.max_failures, self.stall_seconds, self.copy_to, self.ray
        )


def train(words: Sequence[str]) -> int:
    """Run the command on words among which values of the recipe may stand."""
    own, overrides = recipes.split_overrides(words)

    def train(
        recipe: tyro.conf.Positional[str],
        /,
        training: Annotated[Options, tyro.conf.OmitArgPrefixes],
    ) -> int:
        """Train one stage of a recipe; an existing run goes on from its newest checkpoint.

        Any value of the recipe can be set by --section.field VALUE, for example
        --loss.mmd_weight 30 --training.epochs 2; gencomp train RECIPE --help lists them. SIGINT and
        SIGTERM save a checkpoint and stop.

        Args:
            recipe: A recipe file, or the name of a recipe that ships with gencomp.
            training: How the stage is trained.
        """
        from cluster.supervision import early_worker

        training.require_watchers()
        supervision = training.supervision()
        with early_worker(supervision) as early:
            checked = recipes.load(recipe, overrides)
            return _train(checked, training.path(recipe), training, supervision, early)

    return recipe_words.call(train, own, "gencomp train", keys)


def keys(source: str, width: int) -> key_help.KeyHelp:
    """The help on the keys that can be set in a recipe, on a terminal of `width` columns."""
    recipe = recipes.load(source)
    title = f"Keys of {source} ({recipe.system}/{recipe.stage}), each set by --KEY VALUE:"
    return key_help.describe(recipe, title, width)


def _train(
    recipe: BaseRecipe,
    path: Path,
    options: Options,
    supervision: Supervision,
    early: WorkerProcess | None,
) -> int:
    from cluster.run_entry import enter

    run = enter(path, recipe)
    if (result := run.result()) is not None:
        print(f"run {path} is finished: {metrics_line(result)}")
        if options.track is not None:
            from cluster.tracking import keeping

            keeping.catch_up(run, options.track)
        return DONE
    from cluster.logs import prometheus
    from cluster.logs.process_log import Row, readable
    from cluster.train import fit

    fewest, most = supervision.workers
    workers = f"{most} worker{'s' * (most != 1)}"

    def show(row: Row) -> None:
        print(f"  {readable(row)}", flush=True)

    print(
        f"run {path}: {recipe.system}/{recipe.stage},"
        f" {workers if fewest == most else f'{fewest} to {workers}'}",
        flush=True,
    )
    with (
        prometheus.written(run.path, options.prometheus),
        TrainingLines(recipe, path) as lines,
    ):
        finished = fit(run, supervision, lines.show, show, early, options.track)
    if not finished:
        print(f"run {path} stopped at a checkpoint; the same command goes on")
        return STOPPED
    print(f"run {path} is finished: {metrics_line(run.result() or {})}")
    return DONE


def worker_range(text: str) -> tuple[int, int]:
    """The fewest and the most workers that `N` or `MIN..MAX` stands for."""
    fewest, dots, most = text.partition("..")
    try:
        found = int(fewest), int(most if dots else fewest)
    except ValueError:
        raise InputError(f"--workers INT or INT..INT: {text!r} is neither") from None
    if found[0] > found[1]:
        raise InputError(f"--workers {text}: the first number must not be above the second")
    return found


def metrics_line(metrics: dict[str, Any]) -> str:
    """The numbers among the values of a result, on one line."""
    shown = (f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float | int))
    return ", ".join(shown)
