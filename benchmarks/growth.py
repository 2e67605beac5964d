"""CPU seconds of what must not grow faster than the work: sweeps, status, collecting, opening.

    python benchmarks/growth.py [--parts sweep table search slurm collect open small] [--factor 10]

Each figure is taken at a size and at `--factor` times that size; the exponent is log(ratio) /
log(factor), so 1 means that the cost follows the work. Directories and files are real and made by
the code that is measured; trials and parts are filled in without training. What another command
does in a process of its own is counted with its start.

sweep    planning the trials of a grid, at the start and at a restart; the command `gencomp sweep`
         on a finished sweep; `gencomp status` of it
table    both events of every trial, with three objectives
search   all proposals of a random search up to the last point of a finite grid
slurm    `gencomp slurm status`: two blocks a job
collect  the curve of a set of images, two in a Parquet file
open     a set of rows, in a process of its own
small    a recipe's YAML; MS-SSIM of 256×256 pixels in float64
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
SIZES = {"sweep": 100, "table": 100, "search": 10, "slurm": 250, "collect": 1000, "open": 1000}


@contextmanager
def cpu() -> Iterator[Callable[[], float]]:
    """The CPU seconds that the body has taken, with those of the processes it has waited for."""

    def now() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))

    start, taken = now(), 0.0
    yield lambda: taken
    taken = now() - start


def timed(work: Callable[[], Any]) -> float:
    with cpu() as seconds:
        work()
    return seconds()


def command(*words: str, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gencomp.cli", *words], cwd=cwd, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"gencomp {' '.join(words)}: {done.stdout}{done.stderr}")


def photos(folder: Path) -> Path:
    from shards.building.build import build

    if not (folder / "photos").exists():
        build("photos", folder / "photos", options={"size": "64"}, shard_size=64, limit=48)
    return folder / "photos"


def sweep_of(folder: Path, trials: int, **parts: Any) -> Any:
    """A sweep over `trials` values of λ."""
    from sweeps.sweep_file import Sweep
    from tests import tiny

    base = tiny.write(tiny.generator(photos(folder)), folder / "base.yaml")
    space = {"loss.mmd_weight": {"grid": [float(value) for value in range(trials)]}}
    return Sweep.model_validate({"base": str(base), "space": space, **parts})


def finish(trial: Any, number: int) -> None:
    """A trial as training leaves it."""
    row = {"step": 12, "epoch": 2.0, "time": 1.0, "test/mse": 1.0 / (1 + number)}
    row |= {"test/mmd": float(number), "test/psnr": float(number % 7), "test/images": 12}
    (trial.path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (trial.path / "result.json").write_text(json.dumps({"step": 12, "samples": 96}))
    trial.set_status("finished")


def measure_sweep(folder: Path, size: int) -> dict[str, float]:
    from sweeps import plan
    from sweeps.results import ResultsTable

    sweep, runs = sweep_of(folder, size), folder / "runs"
    directory = runs / f"grid{size}"
    found: list[Any] = []

    def start() -> None:
        found[:] = plan.make(sweep, directory)
        plan.write(sweep, found, directory)

    figures = {"plan": timed(start)}
    for number, trial in enumerate(found):
        finish(trial, number)
    figures["plan again"] = timed(start)
    ResultsTable(found, sweep.objective, directory, lambda: None)
    file = folder / f"grid{size}.yaml"
    shutil.copy(directory / "sweep.yaml", file)
    words = ("sweep", str(file), "--runs", str(runs))
    figures["finished sweep, command"] = timed(lambda: command(*words, cwd=folder))
    figures["status, command"] = timed(lambda: command("status", str(directory), cwd=folder))
    return figures


def measure_table(folder: Path, size: int) -> dict[str, float]:
    from sweeps import plan
    from sweeps.results import ResultsTable

    objective = {"minimise": "mse", "against": ["mmd", "psnr"]}
    sweep = sweep_of(folder, size, objective=objective)
    directory = folder / f"table{size}"
    trials = plan.make(sweep, directory)
    plan.write(sweep, trials, directory)
    table = ResultsTable(trials, sweep.objective, directory, lambda: None)

    def events() -> None:
        for number, trial in enumerate(trials):
            for _ in ("started", "finished"):
                table.note(trial)
                table.write_when_due()
                finish(trial, number)
        table.write()

    return {"table, all events": timed(events)}


def measure_search(folder: Path, size: int) -> dict[str, float]:
    from sweeps import plan
    from sweeps.trial_queue import TrialQueue

    sweep = sweep_of(folder, size, search={"sampler": "random"}, budget={"trials": 2 * size})
    directory = folder / f"search{size}"
    trials = plan.make(sweep, directory)
    plan.write(sweep, trials, directory)
    queue = TrialQueue(sweep, trials, directory)

    def propose() -> None:
        number = 0
        while (trial := queue.next()) is not None:
            finish(trial, number)
            number += 1
        if number != size:
            raise RuntimeError(f"{number} of {size} points were proposed")

    return {"search, all points": timed(propose)}


def curve(folder: Path, images: int) -> Any:
    """An evaluation of a curve with parts of two images each, as jobs leave it."""
    import numpy as np
    import torch

    from cluster.evaluations.curve import parts
    from cluster.evaluations.curve.context import protocol
    from cluster.evaluations.curve.pilot import open_tuner
    from cluster.evaluations.curve.plan import Evaluation, make
    from cluster.evaluations.curve.settings import settings
    from gencomp.rate_distortion.tuning import Tuning
    from tests import tiny
    from tests.curves import SMALL

    run = tiny.trained(folder / "g", tiny.generator(photos(folder)))[0]
    small = make(run, settings(**{**SMALL, "points": 12}))
    tuner = open_tuner(Evaluation.find(run, f"small{images}", small).enter())
    while not tuner.done:
        tuner.advance()
    tuner.finish()
    chosen = small.settings.model_copy(update={"images": images, "block": 2})
    rows = tuple(range(images))
    plan = small.model_copy(update={"settings": chosen, "rows": rows})
    evaluation = Evaluation.find(run, f"curve{images}", plan).enter()
    shutil.copy(run.path / "evaluations" / f"small{images}" / "tuning.npz", evaluation.tuning)
    tuning = Tuning.load(evaluation.tuning)
    shared = protocol(plan, tuning)
    values = torch.ones(len(plan.reported), 2, len(parts.COLUMNS), dtype=torch.float64)
    betas = np.asarray(tuning.betas)[plan.reported].tolist()
    for number, block in enumerate(plan.blocks):
        said = {**shared, "block": str(number), "kind": block.kind, "gencomp": plan.gencomp}
        path = evaluation.part(number)
        path.parent.mkdir(exist_ok=True)
        parts.write(path, block.kind, block.items, plan.reported, betas, values, said)
    return evaluation


def measure_slurm(folder: Path, size: int) -> dict[str, float]:
    from slurm.jobs import ledger
    from slurm.jobs.job import Job
    from slurm.jobs.status import rows
    from slurm.kinds.curve import CurveJobs

    jobs = CurveJobs(curve(folder, 4 * size)).enter()
    ledger.record(
        jobs,
        [
            Job(
                name=f"measure-{number:05d}",
                stage="measure",
                blocks=(2 * number, 2 * number + 1),
                executor="local",
                id=str(10**7 + number),
                host=platform.node(),
            )
            for number in range(size)
        ],
    )
    return {"slurm status": timed(lambda: rows(jobs))}


def measure_collect(folder: Path, size: int) -> dict[str, float]:
    from cluster.evaluations.curve.results import collect

    evaluation = curve(folder, size)
    return {"collect": timed(lambda: collect(evaluation))}


def measure_open(folder: Path, size: int) -> dict[str, float]:
    import numpy as np
    from PIL import Image

    from shards.building.build import build

    images = folder / f"images{size}"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(size):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:06d}.png")
    build("folder", folder / f"set{size}", path=images)
    opening = "import shards, sys; s = shards.open_set(sys.argv[1]); s.split('train')"

    def start(code: str) -> float:
        words = [sys.executable, "-c", code, str(folder / f"set{size}")]
        return min(timed(lambda: subprocess.run(words, check=True)) for _ in range(5))

    start(opening)
    return {"open, without the imports": start(opening) - start("import shards, sys")}


def measure_small() -> None:
    import torch

    from gencomp import recipes
    from gencomp.evaluation.ssim import ms_ssim

    source = "dplc_wae_photos"
    recipes.read(source)
    print(f"recipe's YAML: {timed(lambda: [recipes.read(source) for _ in range(50)]) * 20:.2f} ms")
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(256, (8, 3, 256, 256), generator=generator).byte() for _ in range(2))
    times = [timed(lambda: ms_ssim(a, b)) / 8 for _ in range(5)]
    print(f"MS-SSIM, 256×256: {1000 * min(times):.1f} CPU-ms an image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=[*SIZES, "small"])
    parser.add_argument("--factor", type=int, default=10)
    options = parser.parse_args()
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")
    for part in options.parts:
        if part == "small":
            measure_small()
            continue
        sizes = (SIZES[part], SIZES[part] * options.factor)
        figures = []
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                figures.append(globals()[f"measure_{part}"](Path(folder), size))
        for name, small in figures[0].items():
            large = figures[1][name]
            exponent = math.log(large / small, options.factor)
            load = os.getloadavg()[0]
            print(
                f"{name}: {small:.2f} s at {sizes[0]}, {large:.2f} s at {sizes[1]},"
                f" exponent {exponent:.2f} (load {load:.1f})",
                flush=True,
            )


if __name__ == "__main__":
    start = time.time()
    main()
    print(f"{time.time() - start:.0f} s")
