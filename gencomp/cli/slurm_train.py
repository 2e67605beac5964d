"""`gencomp slurm train`: train a run as one Slurm job that goes on over all of its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gencomp import recipes
from gencomp.cli.arguments import call
from gencomp.cli.slurm_session import ALLOCATION, Allocation, require_slurm
from gencomp.cli.train import metrics_line, worker_range
from gencomp.errors import InputError
from gencomp.recipes.schema import BaseRecipe


def train(words: Sequence[str]) -> int:
    """Entry of the command table: recipe values may stand among the other words."""
    own, overrides = recipes.split_overrides(words)

    def train(
        recipe: tyro.conf.Positional[str],
        /,
        name: str | None = None,
        runs: Path = Path("runs"),
        workers: str = "1",
        gpu: bool = False,
        max_failures: int = 3,
        stall_seconds: float = 1800.0,
        copy_to: str | None = None,
        allocation: Annotated[Allocation, tyro.conf.OmitArgPrefixes] = ALLOCATION,
    ) -> int:
        """Submit the training of one stage as one job.

        The recipe and its data are checked here, before anything is submitted. At a time limit, and
        when it is preempted, the job saves a checkpoint, waits in the queue again and goes on by
        itself. The same command submits a run again that has ended early, perhaps on other nodes or
        with other workers. It returns after submission unless --wait.

        Any value of the recipe can be set by --section.field VALUE, as for gencomp train.

        Args:
            recipe: A recipe file, or the name of a recipe that ships with gencomp.
            name: Name of the run, a directory in --runs; by default the recipe's name.
            runs: Directory of the runs, which all nodes must see.
            workers: Processes that share each batch; MIN..MAX as for gencomp train.
            gpu: Give every worker a GPU; ask for them by --gres.
            max_failures: How often workers are started again after one has died.
            stall_seconds: A worker that makes no progress for so long is ended and counts as dead.
            copy_to: Copy every checkpoint there too, as gencomp train does.
            allocation: What is asked of Slurm.
        """
        checked = recipes.load(recipe, overrides)
        path = runs / (name or Path(recipe).stem)
        further: dict[str, object] = {
            "--max-failures": max_failures,
            "--stall-seconds": stall_seconds,
        }
        if copy_to is not None:
            further["--copy-to"] = copy_to
        _check(path, stall_seconds, copy_to)
        return _train(checked, path, workers, gpu, further, allocation.completed())

    return int(call(train, own, prog="gencomp slurm train"))


def _check(path: Path, stall_seconds: float, copy_to: str | None) -> None:
    """What else the job would refuse."""
    from cluster import copies
    from cluster.runs import Run

    if stall_seconds <= 0:
        raise InputError(f"--stall-seconds {stall_seconds:g} must be more than 0")
    if copy_to is not None:
        copies.place_of(Run(path), copy_to)


def _train(
    recipe: BaseRecipe,
    path: Path,
    workers: str,
    gpu: bool,
    further: dict[str, object],
    allocation: Allocation,
) -> int:
    from cluster import runs
    from cluster.worker import require_shares
    from slurm import session

    fewest, most = worker_range(workers)
    for count in (fewest, most):
        require_shares(recipe, count)
    home = path.resolve()
    # The run's own copy: what becomes of the user's file meanwhile does not matter.
    words = ["train", str(home / "recipe.yaml"), "--runs", str(home.parent), "--name", home.name]
    words += ["--workers", workers, *["--gpu"] * gpu]
    words += [word for option, value in further.items() for word in (option, str(value))]
    found = session.session(home, allocation.order("train", words, fewest, most, gpu))
    if allocation.dry_run:
        runs.identify(recipe)
        return allocation.show(found)
    require_slurm("gencomp train")
    if (result := runs.enter(path, recipe).result()) is not None:
        print(f"run {path} is finished: {metrics_line(result)}")
        return 0
    return allocation.submit(found)
