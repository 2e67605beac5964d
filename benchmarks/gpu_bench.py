"""What the measurements of `gpu.py` share: a device, its clock and memory, and torch's switches.

Every call that only a GPU has stands in this file, behind the type of the device, or in
`gpu_parts.allreduce`.
"""

from __future__ import annotations

import gc
import os
import platform
import shutil
import statistics
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

ROOT = Path(__file__).resolve().parents[1]

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Values = dict[str, Any]


class LeftOut(Exception):
    """A measurement that this machine cannot make; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """One row of the result.

    Attributes:
        part, name: what is measured.
        work: the function that measures.
        group: measurements of one group follow each other and share what `Bench.shared` holds.
    """

    part: str
    name: str
    work: Callable[[], Values]
    group: str


@dataclass
class Bench:
    """The settings of all measurements, and what later ones need of earlier ones.

    Attributes:
        device: the device that is measured.
        tiny: whether sizes are those of a test.
        rates: the TFLOP/s of a matrix product, by precision.
        flops: the operations of a step, by the name of its recipe.
        shared: what the measurements of a group share.
    """

    device: torch.device
    tiny: bool
    rates: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, full: Any, tiny: Any) -> Any:
        """A size, which is another one in a test."""
        return tiny if self.tiny else full

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """The seconds of some work, done so many times, from an idle device to an idle device."""
        self.synchronise()
        begin = time.perf_counter()
        for _ in range(times):
            work()
        self.synchronise()
        return time.perf_counter() - begin

    def median(self, work: Callable[[], object], times: int = 1) -> tuple[float, int]:
        """The median of `seconds`, and the number of them.

        There are at least ten, and up to a hundred while they take less than a second together.
        """
        found: list[float] = []
        least, most = self.pick((10, 100), (1, 1))
        while len(found) < least or (sum(found) < 1 and len(found) < most):
            found.append(self.seconds(work, times))
        return statistics.median(found), len(found)

    def synchronise(self) -> None:
        """Wait until the device is idle."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Give back what a group has shared, and all memory that nothing uses."""
        self.shared.clear()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def forget_peak(self) -> None:
        """Begin to observe the peak of memory."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gb(self) -> float | None:
        """The most memory of tensors since `forget_peak`, in GB; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.on_gpu else None

    @contextmanager
    def waits_are_told(self) -> Iterator[None]:
        """Let torch warn where the host waits for the device; a CPU has nothing to wait for."""
        if not self.on_gpu:
            yield
            return
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def float32_products(precision: Precision) -> Iterator[None]:
    """Compute products and convolutions of float32 as such, or else by TF32."""
    from gencomp.float32_products import set_precision, switches

    there = switches("cuda")
    before = [switch.fp32_precision for switch in there]
    set_precision("ieee" if precision == "float32" else "tf32")
    try:
        yield
    finally:
        for switch, value in zip(there, before, strict=True):
            switch.fp32_precision = value


@contextmanager
def algorithms(deterministic: bool) -> Iterator[None]:
    """Choose algorithms as `cluster.worker` does; what torch warns of stays unsaid."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)


class Warned(NamedTuple):
    """A warning: its first line, and the innermost line of this project that led to it."""

    text: str
    place: str


@contextmanager
def noted_warnings() -> Iterator[list[Warned]]:
    """All warnings inside the body, also those that Python would show once."""
    found: list[Warned] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        found.append(Warned(str(message).strip().partition("\n")[0], _place()))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield found


def _place() -> str:
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "gencomp") or path.is_relative_to(ROOT / "cluster"):
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "outside the project"


def described(device: torch.device) -> Values:
    """The machine, its software and the state of both."""
    found: Values = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "commit": _answer("git", "-C", str(ROOT), "rev-parse", "HEAD"),
    }
    if device.type == "cuda":
        seen = torch.cuda.get_device_properties(device)
        asked = ("nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit")
        found |= {
            "device": seen.name,
            "capability": f"{seen.major}.{seen.minor}",
            "memory_gb": round(seen.total_memory / 1e9, 1),
            "multiprocessors": seen.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver, clocks, power": _answer(*asked, "--format=csv,noheader"),
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return found


def _answer(*words: str) -> str | None:
    """The first line that a program prints; None where it is missing, hangs or fails."""
    if shutil.which(words[0]) is None:
        return None
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
