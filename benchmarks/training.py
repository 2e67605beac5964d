"""Training under Ray Train against the same loop under torchrun, and seconds to the first step.

    python benchmarks/training.py [--pairs 5] [--steps 120] [--workers 2]

Throughput: the demo's generator recipe, 2 workers, both with the environment that gencomp gives
its workers, alternating runs; images per second between the
first and the last logged row, so start-up does not count. Start: from the start of the process to
the end of the first step, `gencomp train` against a bare `TorchTrainer.fit()` that trains the same
networks on random images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.logs import metrics_log
from cluster.ray_runtime import WORKER_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": str(ROOT),
}
RECIPE = "dplc_wae_photos"

BARE = """
import sys, time
import numpy as np, ray, torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

def loop(config):
    import ray.train
    from gencomp.losses import rmse
    from gencomp.networks.dplc import Encoder, Generator
    model = prepare_model(torch.nn.Sequential(Encoder(16, 32), Generator(16, 32)))
    optimizer = torch.optim.Adam(model.parameters())
    x = torch.rand(32, 3, 64, 64)
    rmse(model(x), x).backward()
    optimizer.step()
    if ray.train.get_context().get_world_rank() == 0:
        open(config["out"], "w").write(str(time.time()))

if __name__ == "__main__":
    out, storage, workers = sys.argv[1:]
    TorchTrainer(loop, train_loop_config={"out": out},
                 scaling_config=ScalingConfig(num_workers=int(workers)),
                 run_config=RunConfig(storage_path=storage, name="bare")).fit()
"""

TORCHRUN = """
import os, sys, torch, torch.distributed as dist
from cluster.runs import open_run
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host, train
if __name__ == "__main__":
    torch.set_num_threads(1)
    worker = WorkerInfo()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        worker = WorkerInfo(dist.get_rank(), dist.get_world_size())
    train(open_run(sys.argv[1]), worker, Host())
    if dist.is_initialized():
        dist.destroy_process_group()
"""


def overrides(shards: Path, steps: int, log_every: int) -> list[str]:
    values = {
        "data.shards": shards,
        "training.epochs": "null",
        "training.steps": steps,
        "training.log_every": log_every,
        "training.checkpoint_every": 10**6,
        "training.sample_every": 10**6,
        "evaluation.every": 10**6,
        "evaluation.limit": 64,
    }
    return [f"--{key}={value}" for key, value in values.items()]


def gencomp(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "gencomp.cli", *words],
        check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def images_per_second(run: Path, batch_size: int) -> float:
    rows = [row for row in metrics_log.read(run / "metrics.jsonl") if "samples_per_second" in row]
    first, last = rows[0], rows[-1]
    return (last["step"] - first["step"]) * batch_size / (last["time"] - first["time"])


def throughput_ray(work: Path, shards: Path, steps: int, workers: int, name: str) -> float:
    gencomp("train", RECIPE, "--runs", str(work), "--name", name, "--workers", str(workers),
            *overrides(shards, steps, 10), "--data.batch_size=64")  # fmt: skip
    return images_per_second(work / name, 64)


def throughput_torchrun(
    work: Path,
    shards: Path,
    steps: int,
    workers: int,
    name: str,
    more: Sequence[str] = (),
    batch_size: int = 64,
) -> float:
    from cluster.run_entry import enter
    from gencomp import recipes

    words = [*overrides(shards, steps, 10), f"--data.batch_size={batch_size}", *more]
    _, values = recipes.split_overrides(words)
    enter(work / name, recipes.load(RECIPE, values))
    script = work / "worker.py"
    script.write_text(TORCHRUN)
    # Alone without torchrun, of which several at a time would race for a port.
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    subprocess.run(
        [sys.executable, *(launcher if workers > 1 else []), str(script), str(work / name)],
        check=True, env=ENVIRONMENT | WORKER_ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return images_per_second(work / name, batch_size)


def start_gencomp(work: Path, shards: Path, workers: int, name: str) -> float:
    start = time.time()
    gencomp("train", RECIPE, "--runs", str(work), "--name", name, "--workers", str(workers),
            *overrides(shards, 1, 1))  # fmt: skip
    return float(metrics_log.read(work / name / "metrics.jsonl")[0]["time"]) - start


def start_bare(work: Path, workers: int, name: str) -> float:
    script, out = work / "bare.py", work / name
    script.write_text(BARE)
    start = time.time()
    subprocess.run(
        [sys.executable, str(script), str(out), str(work / "storage" / name), str(workers)],
        check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return float(out.read_text(encoding="utf-8")) - start


def report(
    title: str, names: tuple[str, str], pairs: list[tuple[float, float]], unit: str
) -> dict[str, object]:
    ratios = [a / b for a, b in pairs]
    print(f"\n{title} ({unit}), {len(pairs)} pairs in turn")
    for name, values in zip(names, zip(*pairs, strict=True), strict=True):
        listed = " ".join(f"{value:.1f}" for value in values)
        print(f"  {name:<22} median {statistics.median(values):7.1f}   {listed}")
    print(
        f"  ratio                  median {statistics.median(ratios):7.3f}"
        f"   min {min(ratios):.3f} max {max(ratios):.3f}"
    )
    return {
        "title": title,
        "unit": unit,
        "names": names,
        "pairs": pairs,
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gencomp-bench-") as name:
        work = Path(name)
        shards = work / "photos"
        gencomp("shards", "build", "photos", "--out", str(shards))
        workers = arguments.workers
        rates, starts = [], []
        for i in range(arguments.pairs):
            rates.append(
                (
                    throughput_ray(work, shards, arguments.steps, workers, f"ray{i}"),
                    throughput_torchrun(work, shards, arguments.steps, workers, f"torchrun{i}"),
                )
            )
            starts.append(
                (
                    start_gencomp(work, shards, workers, f"start{i}"),
                    start_bare(work, workers, f"bare{i}"),
                )
            )
    figures = [
        report("throughput", ("gencomp on Ray Train", "same loop, torchrun"), rates, "images/s"),
        report(
            "to the end of the first step",
            ("gencomp train", "bare TorchTrainer.fit()"),
            starts,
            "s",
        ),
    ]
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
