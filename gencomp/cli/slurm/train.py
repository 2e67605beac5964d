"""`gencomp slurm train`, which trains a run as one Slurm job that is requeued until it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gencomp import recipes
from gencomp.cli import recipe_words
from gencomp.cli.slurm.allocation import Allocation, AllocationOptions, require_slurm
from gencomp.cli.train import Options, keys, metrics_line
from gencomp.exit_codes import DONE
from gencomp.recipes.schema import BaseRecipe


def train(words: Sequence[str]) -> int:
    """Run the command on words among which values of the recipe may stand."""
    own, overrides = recipes.split_overrides(words)

    def train(
        recipe: tyro.conf.Positional[str],
        /,
        *,
        training: Annotated[Options, tyro.conf.OmitArgPrefixes],
        allocation: AllocationOptions,
    ) -> int:
        """Submit the training of one stage as one job.

        The recipe and its data are checked here, before anything is submitted. At a time limit, and
        when it is preempted, the job saves a checkpoint, waits in the queue again and goes on by
        itself. A run that has ended early is submitted again by the same command, which may ask for
        other nodes or other workers. The command returns after submission, unless --wait is given.
        GPUs are asked for by --gres.

        Any value of the recipe can be set by --section.field VALUE, as for gencomp train; gencomp
        slurm train RECIPE --help lists them.

        Args:
            recipe: A recipe file, or the name of a recipe that ships with gencomp.
            training: How the stage is trained, as by gencomp train.
            allocation: The resources that are asked of Slurm.
        """
        checked = recipes.load(recipe, overrides)
        return _train(checked, training.path(recipe), training, allocation.completed())

    return recipe_words.call(train, own, "gencomp slurm train", keys)


def _train(recipe: BaseRecipe, path: Path, options: Options, allocation: Allocation) -> int:
    from cluster import run_entry
    from cluster.runs import Run
    from cluster.train import require_sensible
    from slurm.sessions.session import session
    from slurm.sessions.session_jobs import SessionJobs

    options.require_watchers()
    supervision = options.supervision()
    require_sensible(supervision, Run(path), recipe)
    home = path.resolve()
    words = _driver(home, options)
    order = allocation.order("train", words, *supervision.workers, options.gpu)
    found = SessionJobs(session(home, order))
    if allocation.dry_run:
        run_entry.Identities().of(recipe)
        run_entry.require_fitting(recipe)
        return allocation.show(found)
    require_slurm("gencomp train")
    if (result := run_entry.enter(path, recipe).result()) is not None:
        print(f"run {path} is finished: {metrics_line(result)}")
        return DONE
    return allocation.submit(found)


def _driver(home: Path, options: Options) -> list[str]:
    """The words of the `gencomp train` command that the job runs."""
    # The job reads the run's own copy of the recipe, so the user may change the file meanwhile.
    words = ["train", str(home / "recipe.yaml"), "--runs", str(home.parent), "--name", home.name]
    words += ["--workers", options.workers, *["--gpu"] * options.gpu, *["--ray"] * options.ray]
    words += ["--max-failures", str(options.max_failures)]
    words += ["--stall-seconds", str(options.stall_seconds)]
    if options.track is not None:
        words += ["--track", options.track]
    if options.prometheus is not None:
        words += ["--prometheus", str(options.prometheus.resolve())]
    return words if options.copy_to is None else [*words, "--copy-to", options.copy_to]
