"""`gencomp files`, which measures the size and the quality of real files of a run's codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from cluster.evaluations.files.settings import FileOptions
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.console import show
from gencomp.cli.measuring import measure_here, require_processes
from gencomp.errors import InputError
from gencomp.exit_codes import DONE


def files(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def files(
        runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
        /,
        *,
        name: str = "files",
        checkpoint: Checkpoint = "last",
        file: Annotated[FileOptions, tyro.conf.OmitArgPrefixes],
        processes: int = 1,
        threads: int = 1,
    ) -> int:
        """Write and read a real file of each held-out picture; measure bits, errors and seconds.

        The same pictures are then put into joint containers, as small images should be, and their
        bits and bytes are measured too. `gencomp figure curves` and `gencomp report` take their
        rates from here. The pictures are measured in blocks, and finished blocks are kept: the same
        command goes on after an interruption. `gencomp slurm files` does the same in jobs. The
        result is written to RUN/evaluations/NAME/rates.json.

        Where a codec can write files in several ways, --codec.KEY VALUE chooses one, and gencomp
        files RUN --help lists the keys.

        Args:
            runs: Directories of finished runs that have a codec; a sweep stands for its finished
                trials.
            name: Name of the evaluation, a directory in RUN/evaluations.
            file: The pictures that are measured.
            processes: How many processes of this machine share the blocks.
            threads: Threads of each process.
        """
        from cluster.evaluations.files import plan, results
        from cluster.evaluations.files.work import open_maker
        from cluster.runs import open_run
        from sweeps.operating_points import runs_of

        require_processes(processes)
        if not runs:
            raise InputError("gencomp files needs one run or more")
        found = []
        for path in (run for word in runs for run in runs_of(word)):
            opened = open_run(path, checkpoint, writing)
            found.append(plan.Evaluation.find(opened, name, plan.make(opened, file, threads)))
        for evaluation in found:
            evaluation.enter()

            def collect(evaluation: plan.Evaluation = evaluation) -> None:
                show(results.shown(evaluation, results.collect(evaluation, require_all=True)))

            measure_here(evaluation, open_maker, processes, collect)
            print(f"wrote {evaluation.result}")
        return DONE

    return recipe_words.call(files, own, "gencomp files", recipe_words.writing_keys)
