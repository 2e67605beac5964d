"""The parts of `gpu.py` about training: steps, compiled steps, waits, determinism, checkpoints."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_bench import (
    PRECISIONS,
    Bench,
    LeftOut,
    Measurement,
    Precision,
    Values,
    algorithms,
    float32_products,
    noted_warnings,
)
from gpu_systems import BY_NAME, CASES, Case, Training, training_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cluster.training.worker_info import WorkerInfo

FEW = [BY_NAME[name] for name in ("dplc_wae_celeba", "gan_cityscapes")]
# A compiler takes longer than all other parts of a test.
SOON_COMPILED = [BY_NAME["vae_conv_cifar10"]]


def measurements(bench: Bench, part: str) -> Iterator[Measurement]:
    """The measurements of one of the parts of this file."""
    for case in _cases(bench, part):
        group = f"{part} {case.name}"

        def one(name: str, work: Any, *more: Any, case: Case = case, group: str = group) -> Any:
            return Measurement(part, name, partial(work, bench, case, *more), group)

        match part:
            case "steps":
                for precision in PRECISIONS:
                    yield one(f"{case.name} {precision}", measure_steps, precision)
            case "compiled":
                for precision in bench.pick(("tf32", "bfloat16"), ("bfloat16",)):
                    yield one(f"{case.name} {precision}", measure_compiled, precision)
            case "waits":
                yield one(case.name, measure_waits)
            case "determinism":
                yield one(case.name, measure_determinism)
            case "checkpoint":
                for background in (True, False):
                    where = "in a thread" if background else "in the loop"
                    yield one(f"{case.name} {where}", measure_checkpoint, background)


def _cases(bench: Bench, part: str) -> Sequence[Case]:
    match part:
        case "steps":
            return CASES
        case "waits" | "determinism":
            return CASES if not bench.tiny else FEW
        case "compiled":
            return CASES if not bench.tiny else SOON_COMPILED
        case "checkpoint":
            return FEW
    return ()


def measure_steps(bench: Bench, case: Case, precision: Precision) -> Values:
    training = training_of(bench, case)
    with float32_products(precision), algorithms(training.recipe.training.deterministic):
        operations = flops_of_step(bench, case, training)
        training.use(precision)
        return timed_steps(bench, training, precision, operations)


def measure_compiled(bench: Bench, case: Case, precision: Precision) -> Values:
    training = training_of(bench, case)
    with float32_products(precision), algorithms(training.recipe.training.deterministic):
        operations = flops_of_step(bench, case, training)
        # A function is compiled a few times at most, and systems share functions.
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        training.use(precision, compiled=True)
        if not training.is_compiled():
            raise LeftOut("torch.compile does not work here")
        first = bench.seconds(training.turn)
        values = timed_steps(bench, training, precision, operations)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        return {**values, "first_s": first, "graphs": graphs}


def timed_steps(
    bench: Bench, training: Training, precision: Precision, operations: float
) -> Values:
    """Times of steps, each from an idle device to an idle device and in a row, and their memory.

    Args:
        bench: the settings.
        training: the training, whose steps are those to be measured.
        precision: their precision.
        operations: the operations of a step.
    """
    for _ in range(bench.pick(3, 1)):
        training.turn()
    bench.forget_peak()
    of_turn, turns = bench.median(training.turn)
    in_a_row = bench.seconds(training.turn, turns) / turns
    rate, peak = operations * training.cycle / of_turn / 1e12, bench.rates.get(precision)
    return {
        "ms": 1e3 * of_turn / training.cycle,
        "row_ms": 1e3 * in_a_row / training.cycle,
        "images_s": training.images_of_turn() / of_turn,
        "tflop": operations / 1e12,
        "tflop_s": rate,
        "of_product": None if peak is None else rate / peak,
        "peak_gb": bench.peak_gb(),
        "steps": turns * training.cycle,
    }


def flops_of_step(bench: Bench, case: Case, training: Training) -> float:
    """The operations of a step, which are counted once for each case, without compilation."""
    if case.name not in bench.flops:
        training.use("float32")
        counter: Any = FlopCounterMode(display=False)
        counter.mod_tracker = _WholeStep()
        with counter:
            training.turn()
        bench.flops[case.name] = counter.get_total_flops() / training.cycle
    return bench.flops[case.name]


class _WholeStep:
    """What a counter takes for its tracker of modules, whose hooks break gradient penalties."""

    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def measure_waits(bench: Bench, case: Case) -> Values:
    training = training_of(bench, case)
    turns = 2
    with float32_products("tf32"), algorithms(training.recipe.training.deterministic):
        training.turn()  # the first step makes the optimizers' state
        bench.synchronise()
        with noted_warnings() as found, bench.waits_are_told():
            for _ in range(turns):
                training.turn()
    places = Counter(one.place for one in found if "called a synchronizing" in one.text)
    waits = places.total() / (turns * training.cycle) if bench.on_gpu else None
    told = ", ".join(f"{place} ×{count}" for place, count in places.most_common(3))
    return {
        "steps": turns * training.cycle,
        "waits": waits,
        "note": told if bench.on_gpu else "a CPU has nothing to wait for",
        "places": dict(places),
    }


def measure_determinism(bench: Bench, case: Case) -> Values:
    training = training_of(bench, case)
    start, values = training.weights(), Values()
    turns = bench.pick(8, 1)
    for deterministic, name in ((True, "det"), (False, "free")):
        ends, told = [], Counter[str]()
        with float32_products("tf32"), algorithms(deterministic):
            for _ in range(2):
                training.restart(start)
                training.use("tf32")
                with noted_warnings() as found:
                    for _ in range(turns):
                        training.turn()
                ends.append(training.weights())
                told.update(one.text for one in found if "determinis" in one.text)
            seconds, _ = bench.median(training.turn)
        values |= {
            f"{name}_ms": 1e3 * seconds / training.cycle,
            f"{name}_same": same_bits(*ends),
            f"{name}_warned": told.total(),
        }
        if deterministic:
            values["note"], values["warnings"] = next(iter(told), "")[:80], dict(told)
    values["det_over_free"] = values["det_ms"] / values["free_ms"]
    return values


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal bit by bit; a NaN equals itself."""

    def bits(tensor: Tensor) -> Tensor:
        return tensor.contiguous().view(-1).view(torch.uint8)

    return all(torch.equal(bits(a[name]), bits(b[name])) for name in a)


def measure_checkpoint(bench: Bench, case: Case, background: bool) -> Values:
    from cluster.checkpoints.writer import Saver
    from cluster.runs import Run
    from cluster.training.state import State

    training = training_of(bench, case)
    with (
        tempfile.TemporaryDirectory(prefix="gencomp-gpu-") as name,
        algorithms(training.recipe.training.deterministic),
    ):
        run = Run(Path(name))
        saver = Saver(run.checkpoints, lambda steps: {max(steps)}, background)
        state = State(
            *(run, training.recipe, WorkerInfo(device=bench.device), training.system),
            *(training.optimizers, training.averages, training.progress, 0, saver, None),
        )

        def saved() -> tuple[float, float]:
            """The seconds that the loop stands still, and those until all is on the disk."""
            training.turn()
            state.progress = training.progress
            pause = bench.seconds(state.save)
            return pause, pause + bench.seconds(training.turn) + bench.seconds(state.flush)

        first, *others = [saved() for _ in range(3)]
        (newest,) = run.checkpoints.iterdir()
        size = sum(path.stat().st_size for path in newest.iterdir())
        state.close()
    pauses, ends = zip(*others, strict=True)
    return {
        "mb": size / 1e6,
        "pause_ms": 1e3 * min(pauses),
        "first_pause_ms": 1e3 * first[0],
        "on_disk_s": min(ends),
    }
