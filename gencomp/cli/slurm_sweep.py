"""`gencomp slurm sweep`: run a sweep as one Slurm job that goes on over all of its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gencomp import recipes
from gencomp.cli.arguments import call
from gencomp.cli.slurm_session import ALLOCATION, Allocation, announce_living, require_slurm
from gencomp.errors import InputError

_FILE = "sweep.yaml"


def sweep(words: Sequence[str]) -> int:
    """Entry of the command table: recipe values may stand among the other words."""
    own, overrides = recipes.split_overrides(words)

    def sweep(
        file: tyro.conf.Positional[str],
        /,
        name: str | None = None,
        runs: Path = Path("runs"),
        concurrent: int | None = None,
        allocation: Annotated[Allocation, tyro.conf.OmitArgPrefixes] = ALLOCATION,
    ) -> int:
        """Submit a sweep as one job, whose nodes its trials share.

        The file and the recipes of its trials are checked here, before anything is submitted. At a
        time limit, and when it is preempted, trials save their checkpoints, the job waits in the
        queue again and the sweep goes on by itself; no trial runs twice. The same command submits a
        sweep again that has ended early or has become larger. It returns after submission unless
        --wait.

        Args:
            file: A sweep file, or the name of a sweep that ships with gencomp.
            name: Name of the sweep, a directory in --runs; by default the file's name.
            runs: Directory of runs and sweeps, which all nodes must see.
            concurrent: Trials at once, instead of what the file says.
            allocation: What is asked of Slurm.
        """
        directory = runs / (name or Path(file).stem)
        return _sweep(file, overrides, directory, concurrent, allocation.completed())

    return int(call(sweep, own, prog="gencomp slurm sweep"))


def _sweep(
    file: str,
    overrides: dict[str, Any],
    directory: Path,
    concurrent: int | None,
    allocation: Allocation,
) -> int:
    from cluster.files import locked, write_text
    from slurm import session
    from sweeps import space, trials

    loaded = space.load(file, overrides)
    home = directory.resolve()
    if home.exists() and any(home.iterdir()) and not (home / _FILE).exists():
        raise InputError(f"{directory} exists and is not a sweep; choose another --name")
    words = ["sweep", str(home / _FILE), "--runs", str(home.parent), "--name", home.name]
    words += [] if concurrent is None else ["--concurrent", str(concurrent)]
    found = session.SweepSession(
        home / session.FOLDER, allocation.order("sweep", words, loaded.workers, loaded.gpu)
    )
    trials.plan(loaded, home)
    if allocation.dry_run:
        return allocation.show(found)
    require_slurm("gencomp sweep")
    if announce_living(home):
        return allocation.submit(found)
    home.mkdir(parents=True, exist_ok=True)
    with locked(home):
        text = space.dump(loaded)
        if found.is_complete() and (home / _FILE).read_text() == text:
            print(f"sweep {directory} is finished; gencomp status {directory} shows its trials")
            return 0
        found.reopen()
        write_text(home / _FILE, text)
    return allocation.submit(found)
