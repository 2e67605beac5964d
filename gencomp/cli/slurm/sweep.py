"""`gencomp slurm sweep`, which runs a sweep as one Slurm job that is requeued until it is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import tyro

from gencomp import recipes
from gencomp.cli import recipe_words
from gencomp.cli.slurm.allocation import Allocation, AllocationOptions, require_slurm
from gencomp.cli.sweep import SWEEP_FILE, Files, Options, keys, load
from gencomp.exit_codes import DONE


def sweep(words: Sequence[str]) -> int:
    """Run the command on words among which values of the recipe may stand."""
    own, overrides = recipes.split_overrides(words)

    def sweep(
        files: Files,
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

        Several sweeps run in one job, one after the other, and what they start from runs once. The
        job is that of the last one, whose directory the other slurm commands take.

        Args:
            files: A sweep file, or the name of a sweep that ships with gencomp; or several.
            search: The place of the sweep, and the number of its trials that run at once.
            allocation: The resources that are asked of Slurm.
        """
        search.require_tracker()
        return _sweep(files, overrides, search, allocation.completed())

    return recipe_words.call(sweep, own, "gencomp slurm sweep", keys)


def _sweep(
    files: Sequence[str],
    overrides: dict[str, Any],
    search: Options,
    allocation: Allocation,
) -> int:
    from cluster.files import locked, write_text
    from slurm.sessions.session import FOLDER, SweepSession
    from slurm.sessions.session_jobs import SessionJobs
    from sweeps import parents, plan, sweep_file

    asked = {where.resolve(): one for where, one in load(files, overrides, search).items()}
    directory, home = search.path(files[-1]), list(asked)[-1]
    for where in asked:
        plan.has_begun(where)  # raises for a directory that is no sweep
    words = ["sweep", *(str(where / SWEEP_FILE) for where in asked), "--runs", str(home.parent)]
    if search.track is not None:
        words += ["--track", search.track]
    if any(one.parents for one in asked.values()):
        # A file holds what is set in its own trials, not in those that they start from.
        words += recipes.override_words(parents.shared(overrides))
    workers = max(one.workers for one in asked.values())
    most = max(one.workers * (one.concurrent or 1) for one in asked.values())
    gpu = any(one.gpu for one in asked.values())
    found = SweepSession(home / FOLDER, allocation.order("sweep", words, workers, most, gpu))
    for where, sweep in parents.chain(asked, overrides).items():
        if not sweep.parents:
            plan.make(sweep, where)  # raises for a sweep whose trials cannot be made
    if allocation.dry_run:
        return allocation.show(SessionJobs(found))
    require_slurm("gencomp sweep")
    texts = {where / SWEEP_FILE: sweep_file.dump(one) for where, one in asked.items()}

    def is_finished() -> bool:
        return found.is_complete() and all(
            file.is_file() and file.read_text(encoding="utf-8") == text
            for file, text in texts.items()
        )

    def prepare() -> None:
        with ExitStack() as locks:
            for where in asked:
                where.mkdir(parents=True, exist_ok=True)
                locks.enter_context(locked(where))
            if not is_finished():
                found.reopen()
                for file, text in texts.items():
                    write_text(file, text)

    if is_finished():
        print(
            f"sweep {directory} is finished; "
            f"gencomp status {shlex.quote(str(directory))} shows its trials"
        )
        return DONE
    return allocation.submit(SessionJobs(found), prepare)
