"""Many files: processes start where the pixels that are left are worth it, and not before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from cluster.compressed_files import processes
from cluster.compressed_files.places import Job, image_jobs
from cluster.compressed_files.processes import Failed, Work, work_on, worth
from cluster.compressed_files.work import Done, Writer, compress_file


@pytest.mark.parametrize(
    ("starts", "cpus", "count"),
    [(0, 8, 1), (1.9, 8, 1), (2, 8, 2), (3.5, 8, 3), (100, 8, 8), (100, 1, 1)],
)
def test_each_process_works_as_long_as_it_takes_to_start(
    starts: float, cpus: int, count: int
) -> None:
    assert worth(starts * processes.START_SECONDS, cpus) == count


def jobs_of(root: Path, sides: Sequence[int]) -> list[Job]:
    for number, side in enumerate(sides):
        Image.new("RGB", (side, side)).save(root / f"{number:02}.png")
    return image_jobs(root, root / "out", {})


class Clock:
    """CPU seconds that pass only where work says so."""

    now = 0.0

    def process_time(self) -> float:
        return self.now


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The processes that are started, and how many files they take over."""
    found: list[tuple[int, int]] = []

    def note(work: Work, jobs: Sequence[Job], count: int) -> Iterator[Done | Failed]:
        found.append((count, len(jobs)))
        return (work(job) for job in jobs)

    monkeypatch.setattr(processes, "_in_processes", note)
    monkeypatch.setattr(processes, "usable_cpus", lambda: 4)
    return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Work]:
    """Work that takes so many seconds a file."""
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)

    def of(seconds: float) -> Work:
        def one(job: Job) -> Done:
            clock.now += seconds
            return Done(1, 1, None, False)

        return one

    return of


Started = list[tuple[int, int]]
WorkOf = Callable[[float], Work]


def test_few_small_images_start_nothing(tmp_path: Path, started: Started, work: WorkOf) -> None:
    jobs = jobs_of(tmp_path, [64] * 20)
    assert len(list(work_on(jobs, work(0.1), keep=True))) == 20 and not started


def test_the_pixels_that_are_left_decide(tmp_path: Path, started: Started, work: WorkOf) -> None:
    """Three files of 100 pixels took 3 s: one of 2,000 and two of 100 will take 22 s."""
    jobs = jobs_of(tmp_path, [10] * 6)
    Image.new("RGB", (50, 40)).save(jobs[4].source)
    assert len(list(work_on(jobs, work(1.0), keep=True))) == 6
    assert started == [(4, 3)]


def test_files_that_are_kept_are_no_work(tmp_path: Path, started: Started, work: WorkOf) -> None:
    jobs = jobs_of(tmp_path, [10] * 20)
    (tmp_path / "out").mkdir()
    for job in jobs[4:18]:
        job.target.touch()
    assert len(list(work_on(jobs, work(1.0), keep=True))) == 20
    assert started == [(1, 17)]
    started.clear()
    list(work_on(jobs, work(1.0), keep=False))
    assert started == [(4, 17)]


def test_a_number_that_is_asked_for(tmp_path: Path, started: Started, work: WorkOf) -> None:
    jobs = jobs_of(tmp_path, [10] * 3)
    list(work_on(jobs, work(0), True, processes=2))
    list(work_on(jobs, work(0), True, processes=8))
    assert started == [(2, 3), (3, 3)]


def test_processes_take_over(
    codec_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes start after the first file; results stay in order, and a bad file stops nothing."""
    monkeypatch.setattr(processes, "START_SECONDS", 1e-9)
    monkeypatch.setattr(processes, "usable_cpus", lambda: 2)
    jobs = jobs_of(tmp_path, [10, 70, 30, 40])
    jobs[2].source.write_text("no image")
    function = partial(compress_file, Writer(codec_run, "last"), True)
    results = list(work_on(jobs, function, keep=True))
    assert [getattr(one, "height", None) for one in results] == [10, 70, None, 40]
    assert (
        isinstance(results[2], Failed) and "02.png is not a readable image" in results[2].sentence
    )
