"""What gencomp's training, curves and codecs do on a GPU, beside what the GPU can do at most.

    python benchmarks/gpu.py [--device cuda|cpu] [--tiny] [--minutes 8] [--parts steps waits ...]
                             [--out gpu.json]

It needs no installation, no data, no network, no Ray and no webdataset: recipes have their
published sizes, weights are those of a fresh start, and batches are random bytes on the device. It
ends when its minutes are over and says what it left out; a measurement that fails is one line of
the table. The file holds the machine and all rows, and is written again after each of them.

yardstick         products of 8192×8192 matrices, convolutions of size 3 of 64 maps of 256×64×64,
                  and a copy: what the device can do. TF32 is a float32 product of rounded factors.
steps             a training step of each system, not compiled: its median from an idle device to an
                  idle device, the time of one in a row of many, images a second, the operations of
                  its products and convolutions, what that is of the yardstick's product in the same
                  precision, and the peak of memory. Algorithms are deterministic, as the recipes
                  say; moving averages are a part of the step, reading images is none. With bfloat16
                  what stays float32 (the critics) uses TF32.
waits             how often a step makes the host wait for the device; it should never. torch does
                  not see all of them.
determinism       steps with deterministic algorithms and without: their time, whether the same
                  steps from the same weights end in the same bits, and how often torch warned that
                  an operation has no deterministic form.
checkpoint        how long a save stops the loop, with and without the writing thread.
ais               transitions a second of 256 chains on the WAE's decoder, and the share of the time
                  that the gradients alone would take.
codec             codecs of weights that were trained on the device: the milliseconds of a picture
                  (codecs compute in float64 on the CPU), and whether the decoder shows the pixels
                  that the encoder saw.
relative_entropy  blocks a second of relative entropy coding, by numpy on the CPU of the machine.
allreduce         the sum over one rank, by NCCL on a GPU: what a call costs at least.
compiled          `steps` compiled by torch, and the seconds of the first turn, which compiles. A
                  turn is one step, or two where critic and decoder are trained in turns. This part
                  comes last, as compiling takes longest.

Times are on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Nothing needs to be installed. torch and the project are imported once time runs.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from gpu_bench import Bench, Measurement, Values

PARTS = (
    "yardstick",
    "steps",
    "waits",
    "determinism",
    "checkpoint",
    "ais",
    "codec",
    "relative_entropy",
    "allreduce",
    "compiled",
)
# What every system imports; what a single part needs is missed by its own rows.
NEEDED = ("numpy", "pydantic", "yaml", "constriction")
UNWANTED = ("ray", "pyarrow", "submitit", "webdataset")


class Report:
    """The table and the file, which a second thread may finish when time is over."""

    def __init__(self, path: Path, machine: Values, plan: Sequence[Measurement]) -> None:
        self._path, self._machine, self._left = path, machine, list(plan)
        self._rows: list[Values] = []
        self._heading: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def measured(self, values: Values, seconds: float) -> None:
        """Add the row of the first measurement that is left."""
        with self._lock:
            one = self._left.pop(0)
            shown = {key: value for key, value in values.items() if not isinstance(value, dict)}
            if "note" in shown:  # it may be long
                shown["note"] = shown.pop("note")
            if (heading := (one.part, *shown)) != self._heading:
                self._heading = heading
                print(f"\n{one.part:<38}" + "".join(f"{key:>15}" for key in shown))
            print(f"{one.name:<38}" + "".join(f"{text(value):>15}" for value in shown.values()))
            self._add(one, "measured", **values, seconds=seconds)

    def failed(self, status: str, reason: str) -> None:
        """Say why the first measurement that is left has no values."""
        with self._lock:
            one = self._left.pop(0)
            print(f"{one.part} {one.name}: {status}: {reason}")
            self._add(one, status, reason=reason)

    def over(self) -> None:
        """Say what is left out as time is over."""
        with self._lock:
            if not self._left:
                return
            print("\nThe time is over. Left out:")
            for part in dict.fromkeys(one.part for one in self._left):
                names = ", ".join(one.name for one in self._left if one.part == part)
                print(f"{part}: {names}")
            for one in self._left:
                self._add(one, "left out", reason="the time was over")
            self._left.clear()

    def _add(self, one: Measurement, status: str, **values: Any) -> None:
        self._rows.append({"part": one.part, "name": one.name, "status": status, **values})
        unwanted = [name for name in UNWANTED if name in sys.modules]
        content = {"machine": self._machine, "unwanted_imports": unwanted, "rows": self._rows}
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False))
        partial.replace(self._path)
        sys.stdout.flush()


def text(value: Any) -> str:
    """A value as a cell of the table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value) if isinstance(value, int) else f"  {value}"


def planned(bench: Bench, parts: Sequence[str]) -> Iterator[Measurement]:
    """The measurements of some parts, in the order in which they are worth most."""
    import gpu_parts
    import gpu_training

    for part in PARTS:
        if part in parts:
            yield from gpu_training.measurements(bench, part)
            yield from gpu_parts.measurements(bench, part)


def run(bench: Bench, plan: Sequence[Measurement], report: Report, deadline: float) -> None:
    """Make the measurements until the deadline of the monotonic clock."""
    from gpu_bench import LeftOut

    group = ""
    for one in plan:
        if time.monotonic() > deadline:
            break
        if one.group != group:
            bench.forget()
            group = one.group
        begin = time.monotonic()
        try:
            values = one.work()
        except LeftOut as reason:
            report.failed("left out", str(reason))
        except Exception as error:  # one measurement must not end the others
            told = str(error).strip().partition("\n")[0]
            report.failed("failed", f"{type(error).__name__}: {told}")
            group = ""  # what a group shares may be broken, or fill the memory
        else:
            report.measured(values, time.monotonic() - begin)


def end(report: Report) -> None:
    """End the process in the middle of a measurement, as a compiler or a kernel may not return."""
    report.over()
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the sizes of a test")
    parser.add_argument("--minutes", type=float, default=8.0, help="from start to end")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file of all rows")
    words = parser.parse_args()
    import torch
    from gpu_bench import Bench, described

    if words.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device, so nothing is measured (--device cpu measures the CPU).")
        return
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f"{', '.join(missing)} must be installed, as every system imports them.")
    deadline = began + 60 * words.minutes
    device = torch.device("cuda", 0) if words.device == "cuda" else torch.device("cpu")
    bench = Bench(device, words.tiny)
    machine = described(device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    plan = list(planned(bench, words.parts))
    report = Report(words.out, machine, plan)
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end, [report])
    timer.daemon = True
    timer.start()
    run(bench, plan, report, deadline)
    timer.cancel()
    report.over()
    load = os.getloadavg()[0]
    print(f"\n{time.monotonic() - began:.0f} s, load {load:.1f}; all rows are in {words.out}")


if __name__ == "__main__":
    main()
