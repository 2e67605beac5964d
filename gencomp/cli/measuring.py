"""Measuring in processes of this machine, for the evaluations that are made in blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gencomp.cli.console import bar
from gencomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.evaluations.evaluation import Evaluation
    from cluster.evaluations.work import MakePart

_BUSY = "{directory} is being worked on by {holder}"


def require_processes(processes: int) -> None:
    """Raise `InputError` unless the number of processes is at least 1."""
    if processes < 1:
        raise InputError(f"--processes {processes} must be at least 1")


def measure_here(
    evaluation: Evaluation,
    open_maker: Callable[[Path, int], MakePart],
    processes: int,
    collect: Callable[[], None],
) -> None:
    """Make the missing parts of an evaluation, show a bar, and merge the parts.

    A lock keeps other processes from working on the same evaluation.

    Args:
        evaluation: The evaluation, which must have been entered.
        open_maker: A function that can be pickled; from the directory of the evaluation and the
            number of a process, it gives the function that makes parts.
        processes: The number of processes of this machine.
        collect: The function that merges the parts.
    """
    from cluster.evaluations.processes import make_parts
    from cluster.files import locked

    with locked(evaluation.path, _BUSY):
        total, missing = len(evaluation.block_sizes), len(evaluation.missing())
        if missing < total:
            print(f"{evaluation.path}: {total - missing} of {total} blocks are there", flush=True)

        def text() -> tuple[str, float, str]:
            left = len(evaluation.missing())
            return evaluation.path.name, 1 - left / total, f"{total - left} of {total} blocks"

        with bar(text) as show_progress:
            maker = partial(open_maker, evaluation.path)
            make_parts(maker, evaluation.missing(), processes, lambda block: show_progress())
        collect()
