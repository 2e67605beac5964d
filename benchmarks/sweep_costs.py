"""What a trial of a sweep costs beside its training.

    python benchmarks/sweep_costs.py [--parts tune starts scale parent] [--trials 8] [--rounds 3]

tune: seconds a trial that does nothing but report once, one after the other, in our sweeps and in
plain Ray Tune, in turns on one cluster. Ours also keeps statuses, identities and the table.

starts: trials of a tiny recipe with 1 worker and with a gang of 2: seconds from Tune's start of a
trial to the first line of its loop, and from the end of its loop to the start of the next trial.

scale: 64 trials that report once on a cluster of 8 fake nodes with 8 CPUs each, 8 at a time: CPU
seconds of the sweep's own process a trial, in the first and in the last quarter of the trials.

parent: seconds to read and check the checkpoint of a frozen generator of the published width, which
every trial of a codec does once, before its own first checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
NODES, CPUS = 8, 8


def trivial(config: dict[str, Any], **attempt: Any) -> None:
    """A trial that reports once and is finished."""
    from ray import tune

    tune.report({"step": 1, "score": 0.5})
    if "trial" in config:
        (Path(config["trial"]["path"]) / "result.json").write_text("{}")


class Work:
    """Recipes and sweeps in a temporary directory."""

    def __init__(self, folder: Path) -> None:
        from shards.building.build import build
        from tests import tiny

        self.folder = folder
        build("photos", folder / "photos", options={"size": "64"}, shard_size=64, limit=48)
        tiny.trained(folder / "generator", tiny.generator(folder / "photos", {"training.steps": 2}))
        raw = tiny.codec(folder / "photos", folder / "generator", {"training.steps": 4})
        self._base = tiny.write(raw, folder / "codec.yaml")

    def sweep(self, name: str, trials: int, **parts: Any) -> tuple[Any, Any, Path]:
        """A sweep over λ, its trials and its directory."""
        from sweeps import plan
        from sweeps.sweep_file import Sweep
        from sweeps.trial_queue import TrialQueue

        space = {"loss.mmd_weight": {"grid": list(range(trials))}}
        sweep = Sweep.model_validate({"base": str(self._base), "space": space, **parts})
        planned = plan.make(sweep, self.folder / name)
        plan.write(sweep, planned, self.folder / name)
        return sweep, TrialQueue(sweep, planned, self.folder / name), self.folder / name


def run(made: tuple[Any, Any, Path], on_event: Callable[..., None], function: Any = None) -> None:
    """A sweep on the cluster of this process, with another function for its trials."""
    from sweeps import run as module

    with ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(module.ray_runtime, "cluster", lambda **_: nullcontext())
        )
        if function is not None:
            stack.enter_context(mock.patch.object(module, "run_trial", function))
        assert module.run(*made, on_event=on_event) == "complete"


def plain_tune(trials: int, folder: Path) -> None:
    from ray import tune

    tune.Tuner(
        tune.with_resources(trivial, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(metric="score", mode="min", max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()


# --- parts ----------------------------------------------------------------------------------------


def tune_part(work: Work, trials: int, rounds: int) -> None:
    seconds: dict[str, list[float]] = {"gencomp": [], "plain Tune": []}
    for number in range(rounds):
        sides = list(seconds)
        for side in sides if number % 2 else sides[::-1]:
            start = time.monotonic()
            if side == "gencomp":
                made = work.sweep(f"tune{number}", trials, concurrent=1)
                run(made, lambda *_: None, trivial)
            else:
                plain_tune(trials, work.folder / f"plain{number}")
            seconds[side].append((time.monotonic() - start) / trials)
    table(f"seconds a trial that does nothing, {trials} one after the other", seconds)


def starts_part(work: Work, trials: int, rounds: int) -> None:
    rows: dict[str, list[float]] = {}
    for number in range(rounds):
        for workers in (1, 2):
            begun: list[tuple[Path, float]] = []

            def note(trial: Any, event: str, values: Any, begun: Any = begun) -> None:
                if event == "started":
                    begun.append((trial.path, time.time()))

            run(work.sweep(f"w{workers}-{number}", trials, concurrent=1, workers=workers), note)
            loops = [loop(path) for path, _ in begun]
            to_first = [first - at for (_, at), (first, _) in zip(begun, loops, strict=True)]
            to_next = [at - end for (_, at), (_, end) in zip(begun[1:], loops, strict=False)]
            rows.setdefault(f"{workers} workers, start to first line", []).extend(to_first)
            rows.setdefault(f"{workers} workers, last line to next start", []).extend(to_next)
    table("seconds of trials that train", rows)


def loop(trial: Path) -> tuple[float, float]:
    """The times at which the loop of a trial's rank 0 began and ended, in seconds since 1970."""
    from cluster.logs import json_lines, process_log

    rows = json_lines.read(process_log.of_rank(trial, 0))
    at = {
        row["event"]: datetime.fromisoformat(row["time"]).timestamp()
        for row in rows
        if "event" in row
    }
    return at["start"], at["end"]


def scale_part(work: Work, trials: int) -> None:
    made = work.sweep("scale", trials, concurrent=8)
    spent = [time.process_time()]

    def note(trial: Any, event: str, values: Any) -> None:
        if event == "finished":
            spent.append(time.process_time())

    with fake_nodes():
        start = time.monotonic()
        run(made, note, trivial)
        seconds = time.monotonic() - start
    costs = [after - before for before, after in itertools.pairwise(spent)]
    quarter = trials // 4
    table(
        f"CPU seconds of the driver a trial; {trials} trials on {NODES} nodes in {seconds:.0f} s",
        # The first eight carry Tune's own start.
        {"first quarter": costs[8 : 8 + quarter], "last quarter": costs[-quarter:]},
    )
    ratio = statistics.mean(costs[-quarter:]) / statistics.mean(costs[8 : 8 + quarter])
    print(f"mean of the last quarter / mean of the first: {ratio:.2f}", flush=True)


def parent_part(work: Work, rounds: int) -> None:
    from tests import tiny

    path = work.folder / "published"
    raw = tiny.generator(
        work.folder / "photos",
        {
            "networks.width": 64,
            "networks.latent_dim": 128,
            "training.steps": 1,
            "evaluation.limit": 8,
        },
    )
    parent, _ = tiny.trained(path, raw)
    found = parent.final_checkpoint().path
    size = sum(file.stat().st_size for file in found.iterdir())
    seconds = []
    for _ in range(rounds):
        start = time.monotonic()
        parent.final_checkpoint().networks()
        seconds.append(time.monotonic() - start)
    table(f"seconds to check and read a generator ({size / 1e6:.0f} MB)", {"generator": seconds})


# --- around them ----------------------------------------------------------------------------------


@contextmanager
def fake_nodes() -> Iterator[None]:
    """This process on a cluster of many nodes that are all this machine."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        for _ in range(NODES):
            nodes.add_node(num_cpus=CPUS)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def table(title: str, rows: dict[str, list[float]]) -> None:
    print(f"\n{title}\n{'':40}{'median':>8}{'least':>8}{'most':>8}{'n':>5}")
    for name, values in rows.items():
        shown = f"{statistics.median(values):8.3f}{min(values):8.3f}{max(values):8.3f}"
        print(f"{name:40}{shown}{len(values):5}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["tune", "starts", "scale", "parent"])
    parser.add_argument("--trials", type=int, default=8, help="of each sweep of tune and starts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=int, default=64, help="trials on the fake nodes")
    given = parser.parse_args()

    from cluster import ray_runtime

    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        if "parent" in given.parts:
            parent_part(work, given.rounds)
        # Also sets up this process for Ray, which the fake nodes need.
        with ray_runtime.cluster(cpus=2):
            if "tune" in given.parts:
                tune_part(work, given.trials, given.rounds)
            if "starts" in given.parts:
                starts_part(work, given.trials, given.rounds)
        if "scale" in given.parts:
            scale_part(work, given.scale)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
