"""`gencomp slurm files`, which measures real files of a run's codec in many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from cluster.evaluations.files.settings import FileOptions
from gencomp.cli import recipe_words
from gencomp.cli.arguments import Checkpoint
from gencomp.cli.slurm.submission import SubmissionOptions


def files(words: Sequence[str]) -> int:
    """Run the command on words among which values of how files are written may stand."""
    own, writing = recipe_words.split_writing(words)

    def files(
        run: Path,
        /,
        *,
        name: str = "files",
        checkpoint: Checkpoint = "last",
        file: Annotated[FileOptions, tyro.conf.OmitArgPrefixes],
        submission: SubmissionOptions,
    ) -> int:
        """Write and read a real file of each held-out picture, as `gencomp files` does, in jobs.

        When the same command is given again, it submits only what is missing. On Slurm the command
        returns after submission, unless --wait is given; on this machine it always waits. `gencomp
        slurm collect` writes rates.json.

        Args:
            run: Directory of a finished run that has a codec.
            name: Name of the evaluation, a directory in RUN/evaluations.
            file: The pictures that are measured.
            submission: How the jobs run.
        """
        from cluster.evaluations.files import plan
        from cluster.runs import open_run
        from slurm.kinds.files import FileJobs

        submission = submission.completed()
        opened = open_run(run, checkpoint, writing)
        wanted = plan.make(opened, file, submission.cpus)
        jobs = FileJobs(plan.Evaluation.find(opened, name, wanted))
        return submission.show(jobs) if submission.dry_run else submission.submit(jobs)

    return recipe_words.call(files, own, "gencomp slurm files", recipe_words.writing_keys)
