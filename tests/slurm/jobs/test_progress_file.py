"""What jobs say of themselves."""

from __future__ import annotations

from pathlib import Path

from slurm.jobs import progress_file
from slurm.jobs.progress_file import reporting


def test_an_attempt_that_lives_on_leaves_the_file_to_the_next_one(tmp_path: Path) -> None:
    """Slurm may lose a node whose job does not end, and start the job elsewhere."""
    path = progress_file.progress_path(tmp_path, "train-0")
    path.parent.mkdir()
    with reporting(path, "train-0", total=24) as predecessor:
        predecessor.began(0)
        with reporting(path, "train-0", total=24) as successor:
            successor.done = 8
            successor.write()
            predecessor.done = 16
            predecessor.write()
            found = progress_file.read(path)
            assert (found["attempt"], found["done"]) == (2, 8)
    found = progress_file.read(path)
    assert (found["attempt"], found["done"], found["ended"]) == (2, 8, "done")
