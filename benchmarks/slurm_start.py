"""Seconds from the command to the first step, on Slurm and directly.

    python benchmarks/slurm_start.py [--rounds 3]

One run of a tiny recipe with two workers by `gencomp train`, by `gencomp slurm train` on one node
and on two, in alternating order. Slurm is the private one of the tests (see docs/slurm.md),
so nothing waits for other jobs. The columns: from the start of the command until it returns or the
job runs, until the loop of rank 0 starts, and until the first step is logged.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WAYS = {
    "gencomp train": ["train"],
    "slurm train, 1 node": ["slurm", "train", "--wait"],
    "slurm train, 2 nodes": ["slurm", "train", "--wait", "--nodes", "2"],
}
COLUMNS = ("job runs", "loop starts", "first step")


def measured(way: str, recipe: Path, folder: Path, environment: dict[str, str]) -> list[float]:
    """Seconds from the start of a command, as `COLUMNS`."""
    from cluster import files
    from cluster.logs import json_lines, metrics_log, process_log
    from cluster.run_status import seconds

    words = [*WAYS[way], str(recipe), "--runs", str(folder), "--workers", "2"]
    began = time.time()
    subprocess.run(
        [sys.executable, "-m", "gencomp.cli", *words],
        env=environment,
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    run = folder / recipe.stem
    job = files.read_json(run / "slurm" / "progress" / "train-0.json")
    loop = next(row for row in json_lines.read(process_log.of_rank(run, 0)) if row.get("event"))
    first = metrics_log.read(run / "metrics.jsonl")[0]
    return [
        (job["started"] if job else began) - began,
        seconds(loop) - began,
        first["time"] - began,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds

    from shards.building.build import build
    from tests import tiny
    from tests.slurm_cluster import MEND, Cluster, missing_programs
    from tests.slurm_cluster.cluster import short_directory

    if missing := missing_programs():
        sys.exit(f"there is no {', '.join(missing)} here: {MEND}")
    cluster = Cluster(short_directory(f"gencomp-slurm-bench-{os.getpid()}"))
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        build("photos", place / "photos", options={"size": "64"}, shard_size=16, limit=48)
        raw = tiny.generator(place / "photos", {"training.steps": 2})
        recipe = tiny.write(raw, place / "tiny.yaml")
        cluster.up()
        try:
            environment = {**cluster.environment(), "PYTHONPATH": str(ROOT)}
            for number in range(rounds):
                for way in list(WAYS)[:: -1 if number % 2 else 1]:
                    runs = place / f"{number}-{len(WAYS[way])}"
                    found[way].append(measured(way, recipe, runs, environment))
        finally:
            cluster.down()
    print(f"seconds from the command, median (range) of {rounds}")
    print(" " * 24 + "".join(f"{name:>20}" for name in COLUMNS))
    for way, rows in found.items():
        cells = [
            f"{statistics.median(column):.1f} ({min(column):.1f}-{max(column):.1f})"
            for column in zip(*rows, strict=True)
        ]
        print(f"{way:<24}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
