"""`gencomp slurm sweep`, which runs a sweep as one Slurm job that is requeued until it is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from gencomp import recipes
from gencomp.cli import recipe_words
from gencomp.cli.slurm.allocation import Allocation, AllocationOptions, require_slurm
from gencomp.cli.sweep import Options, keys, load
from gencomp.exit_codes import DONE

_FILE = "sweep.yaml"


def sweep(words: Sequence[str]) -> int:
    """Run the command on words among which values of the recipe may stand."""
    own, overrides = recipes.split_overrides(words)

    def sweep(
        file: tyro.conf.Positional[str],
        /,
        *,
        search: Annotated[Options, tyro.conf.OmitArgPrefixes],
        allocation: AllocationOptions,
    ) -> int:
        """Submit a sweep as one job, whose nodes its trials share.

        The file and the recipes of its trials are checked here, before anything is submitted. At a
        time limit, and when the job is preempted, the trials save their checkpoints, the job waits
        in the queue again, and the sweep goes on by itself; no trial runs twice. A sweep that has
        ended early or has become larger is submitted again by the same command. Sweeps that the
        file names as parents run first, in the same job. The command returns
        after submission, unless --wait is given. gencomp slurm sweep SWEEP --help lists the keys
        that the sweep's space may name.

        Args:
            file: A sweep file, or the name of a sweep that ships with gencomp.
            search: The place of the sweep, and the number of its trials that run at once.
            allocation: The resources that are asked of Slurm.
        """
        search.require_tracker()
        return _sweep(file, overrides, search, allocation.completed())

    return recipe_words.call(sweep, own, "gencomp slurm sweep", keys)


def _sweep(
    file: str,
    overrides: dict[str, Any],
    search: Options,
    allocation: Allocation,
) -> int:
    from cluster.files import locked, write_text
    from slurm.sessions.session import FOLDER, SweepSession
    from slurm.sessions.session_jobs import SessionJobs
    from sweeps import parents, plan, sweep_file

    directory = search.path(file)
    loaded = load(file, overrides, search.concurrent)
    home = directory.resolve()
    plan.has_begun(directory)  # raises for a directory that is no sweep
    words = ["sweep", str(home / _FILE), "--runs", str(home.parent), "--name", home.name]
    if search.track is not None:
        words += ["--track", search.track]
    if loaded.parents:  # the file holds what is set in its own trials, not in those of the parents
        words += recipes.override_words(parents.shared(overrides))
    most = loaded.workers * (loaded.concurrent or 1)
    order = allocation.order("sweep", words, loaded.workers, most, loaded.gpu)
    found = SweepSession(home / FOLDER, order)
    for where, sweep in [*parents.before(loaded, home, overrides).items(), (home, loaded)]:
        if not sweep.parents:
            plan.make(sweep, where)  # raises for a sweep whose trials cannot be made
    if allocation.dry_run:
        return allocation.show(SessionJobs(found))
    require_slurm("gencomp sweep")
    text = sweep_file.dump(loaded)

    def is_finished() -> bool:
        return found.is_complete() and (home / _FILE).read_text(encoding="utf-8") == text

    def prepare() -> None:
        with locked(home):
            if not is_finished():
                found.reopen()
                write_text(home / _FILE, text)

    if is_finished():
        print(
            f"sweep {directory} is finished; "
            f"gencomp status {shlex.quote(str(directory))} shows its trials"
        )
        return DONE
    return allocation.submit(SessionJobs(found), prepare)
