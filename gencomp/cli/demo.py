"""`gencomp demo`, which does the main job on this machine by the commands that a user types."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from gencomp.cli.console import print_table
from gencomp.exit_codes import DONE

_IMAGE = "photo.png"
_IMAGE_ROW = 410  # the row of a test crop with much detail


def demo(directory: Path = Path("demo")) -> int:
    """Make shards, train, sweep, measure a rate-distortion curve, write a real file and a report.

    The same command goes on where an earlier one was stopped.

    Args:
        directory: The directory to which everything is written.
    """
    from cluster.ray_runtime import usable_cpus

    directory.mkdir(parents=True, exist_ok=True)
    workers = str(min(2, usable_cpus()))
    seconds: list[tuple[str, float]] = []

    def step(title: str, *commands: str) -> None:
        print(f"\n== {len(seconds) + 1}. {title}", flush=True)
        start = time.monotonic()
        for command in commands:
            _gencomp(command, directory)
        seconds.append((title, time.monotonic() - start))

    step(
        "Photographs to WebDataset shards with a Parquet index",
        "shards build photos --out data/photos",
    )
    step(
        "Train the generative model (WAE-MMD) with Ray Train",
        f"train dplc_wae_photos --name generator --workers {workers}",
    )
    step(
        "Search MMD weight × code channels on the frozen generator with Ray Tune",
        "sweep dplc_rates_photos --name rates",
    )
    step(
        "Rate-distortion curve of the generator by AIS, as evaluation jobs",
        "slurm ais runs/generator --images 16 --jobs 4",
        "slurm collect runs/generator/evaluations/ais",
    )
    best = _best_trial(directory / "runs/rates")
    _write_image(directory)
    step(
        "One photograph to a file and back with the best codec",
        f"compress {best} {_IMAGE} photo.gc --overwrite",
        f"decompress {best} photo.gc decoded.png --overwrite",
    )
    _check_round_trip(directory, directory / best)
    step(
        "Report",
        "report --generator runs/generator --sweep runs/rates"
        " --curve runs/generator/evaluations/ais --out report.html",
    )
    total = sum(spent for _, spent in seconds)
    print()
    print_table(
        "seconds",
        ["step", "s"],
        [[title, f"{spent:.0f}"] for title, spent in [*seconds, ("all", total)]],
    )
    print(f"\nThe report: {(directory / 'report.html').absolute()}")
    return DONE


def _gencomp(command: str, directory: Path) -> None:
    """Run one command line in the demo's directory, in a process of its own as a user would."""
    print(f"$ gencomp {command}", flush=True)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    finished = subprocess.run(
        [sys.executable, "-m", "gencomp.cli", *shlex.split(command)], cwd=directory, env=environment
    )
    if finished.returncode != 0:
        # The command itself has said what is wrong.
        raise SystemExit(finished.returncode)


def _best_trial(sweep: Path) -> str:
    """The best codec of the highest rate, relative to the demo's directory."""
    from sweeps.results import read_results

    return f"runs/rates/trials/{read_results(sweep).best()[-1]['trial']}"


def _write_image(directory: Path) -> None:
    import shards

    sample = shards.open_set(directory / "data/photos").split("test").read(_IMAGE_ROW)
    Image.fromarray(sample.image).save(directory / _IMAGE)
    print(f"\n{_IMAGE}: test crop {sample.key}")


def _check_round_trip(directory: Path, trial: Path) -> None:
    """Check that the decoded image is the encoder's reconstruction."""
    from cluster.runs import open_run
    from gencomp.system import Picture

    codec = open_run(trial).system().codec()
    assert codec is not None
    image, decoded = (np.asarray(Image.open(directory / name)) for name in (_IMAGE, "decoded.png"))
    stream = (directory / "photo.gc").read_bytes()
    if not np.array_equal(decoded, codec.reconstruct(Picture(image))):
        raise RuntimeError("the decoded image is not the encoder's reconstruction")
    print(
        f"decoded.png equals the encoder's reconstruction; {codec.code_bits(stream) // 8} of the"
        f" {len(stream)} bytes of photo.gc are its code"
    )
