"""`gencomp files`, which measures the size and the quality of real files of a run's codec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from cluster.evaluations.files.settings import FileOptions
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.console import show
from gencomp.cli.measuring import measure_here, require_processes


def files(
    run: Path,
    /,
    *,
    name: str = "files",
    checkpoint: Checkpoint = "last",
    file: Annotated[FileOptions, tyro.conf.OmitArgPrefixes],
    processes: int = 1,
    threads: int = 1,
) -> None:
    """Write and read a real file of each held-out picture, and measure bits, errors and seconds.

    The pictures are measured in blocks, and finished blocks are kept: the same command goes on
    after an interruption. `gencomp slurm files` does the same in jobs. The result is written to
    RUN/evaluations/NAME/rates.json.

    Args:
        run: Directory of a finished run that has a codec.
        name: Name of the evaluation, a directory in RUN/evaluations.
        file: The pictures that are measured.
        processes: How many processes of this machine share the blocks.
        threads: Threads of each process.
    """
    from cluster.evaluations.files import plan, results
    from cluster.evaluations.files.work import open_maker
    from cluster.runs import open_run

    require_processes(processes)
    opened = open_run(run, checkpoint)
    wanted = plan.make(opened, file, threads)
    evaluation = plan.Evaluation.find(opened, name, wanted).enter()

    def collect() -> None:
        show(results.shown(evaluation, results.collect(evaluation, require_all=True)))

    measure_here(evaluation, open_maker, processes, collect)
    print(f"wrote {evaluation.result}")
