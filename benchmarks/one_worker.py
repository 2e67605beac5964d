"""What a run with one worker costs before and beside its training: alone, under Ray, and bare.

    python benchmarks/one_worker.py [--pairs 3]

The demo's generator recipe, one step and its evaluation of 64 images, in turns: `gencomp train`,
`gencomp train --ray`, and `bare`, a process that only calls the training loop on a run that exists.
Seconds from the start of the command to the end of the first step, CPU seconds of all processes as
far as they were seen (ten times a second), the most processes at once, and the most memory at once,
in which pages that processes share count once a process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from training import ENVIRONMENT, RECIPE, TORCHRUN, gencomp, overrides  # noqa: E402

from cluster.logs import metrics_log  # noqa: E402
from cluster.ray_runtime import WORKER_ENVIRONMENT  # noqa: E402
from cluster.run_entry import enter  # noqa: E402
from gencomp import recipes  # noqa: E402
from tests.processes import descendants  # noqa: E402


class Cost(NamedTuple):
    """The cost of one command."""

    first_step: float  # seconds
    cpu: float  # seconds
    processes: int
    megabytes: float


def measured(words: Sequence[str], run: Path) -> Cost:
    begun = time.time()
    process = subprocess.Popen(
        [sys.executable, *words],
        env=ENVIRONMENT | WORKER_ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    most, megabytes = 1, 0.0
    seconds: dict[int, float] = {}  # of each process, as it was seen last
    while process.poll() is None:
        pids = [process.pid, *(found.pid for found in descendants(process.pid))]
        most, megabytes = max(most, len(pids)), max(megabytes, sum(map(_megabytes, pids)))
        seconds |= {pid: cpu for pid in pids if (cpu := _cpu(pid)) is not None}
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    first = float(metrics_log.read(run / "metrics.jsonl")[0]["time"])
    return Cost(first - begun, sum(seconds.values()), most, megabytes)


def _cpu(pid: int) -> float | None:
    """CPU seconds of a process so far; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _megabytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e6
    except (OSError, IndexError):  # the process has ended
        return 0.0


def sides(work: Path, number: int) -> dict[str, Cost]:
    """One turn of each side."""
    values = overrides(work / "photos", 1, 1)
    command = ["-m", "gencomp.cli", "train", RECIPE, "--runs", str(work), *values]
    found = {}
    for name, more in (("gencomp train", []), ("gencomp train --ray", ["--ray"])):
        run = work / f"{name[-3:]}{number}"
        found[name] = measured([*command, "--name", run.name, *more], run)
    script, run = work / "worker.py", work / f"bare{number}"
    script.write_text(TORCHRUN)
    enter(run, recipes.load(RECIPE, recipes.split_overrides(values)[1]))
    found["bare"] = measured([str(script), str(run)], run)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gencomp-bench-") as name:
        work = Path(name)
        gencomp("shards", "build", "photos", "--out", str(work / "photos"))
        turns = [sides(work, number) for number in range(options.pairs)]
    print(f"medians of {options.pairs} turns, load {os.getloadavg()[0]:.1f}")
    for side in turns[0]:
        costs = [turn[side] for turn in turns]
        first, cpu, processes, megabytes = map(statistics.median, zip(*costs, strict=True))
        least = min(cost.first_step for cost in costs)
        print(
            f"  {side:<20} first step after {first:5.1f} s (least {least:.1f}), {cpu:5.1f} CPU-s,"
            f" {processes:.0f} processes, {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
