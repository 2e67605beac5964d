"""A tracker that keeps what it is given in memory; a run whose log tests write; and its record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.logs import json_lines
from cluster.logs.metrics_log import Row, place
from cluster.runs import Run
from cluster.tracking.choice import Name
from cluster.tracking.tracker import NOWHERE, Described, Held, Outcome, Tracker


class Dies(BaseException):
    """Stands for the death of the process."""


@dataclass
class Server:
    """What runs were given, over all connections.

    Attributes:
        answers: whether the server can be asked what it holds, as MLflow can and W&B cannot.
        tells: whether it says which row is the last that it has, as the offline files of W&B do.
        fault: raised by the next call that logs, before it or after it has taken what it was given.
    """

    answers: bool = True
    tells: bool = False
    fault: tuple[str, BaseException] | None = None
    rows: list[Row] = field(default_factory=list)
    grids: list[tuple[str, int]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    runs: list[Described] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)

    def connect(self, name: Name, run: Described) -> Tracker:
        self.runs.append(run)
        return _Connection(self)

    def fails(self, when: str) -> None:
        if self.fault is not None and self.fault[0] == when:
            _, error = self.fault
            self.fault = None
            raise error

    def steps(self) -> list[tuple[int, bool]]:
        """The step of each row, and whether it is an evaluation."""
        return [(row["step"], "samples_per_second" not in row) for row in self.rows]


@dataclass
class _Connection:
    server: Server
    where: str = "in memory"

    def held(self) -> Held | None:
        if not self.server.tells:
            return None
        rows = [NOWHERE, *map(place, self.server.rows)]
        return Held(max(rows), max(["", *(name for name, _ in self.server.grids)]))

    def has_row(self, row: Row) -> bool:
        same = {name for name in row if name != "time"}
        known = any(one["step"] == row["step"] and set(one) >= same for one in self.server.rows)
        return known or not self.server.answers

    def has_grid(self, path: Path) -> bool:
        known = any(name == path.name for name, _ in self.server.grids)
        return known or not self.server.answers

    def log_rows(self, rows: Sequence[Row], number: int) -> None:
        self.server.fails("before")
        self.server.rows += rows
        self.server.numbers += range(number, number + len(rows))
        self.server.fails("after")

    def log_grid(self, path: Path, step: int, number: int) -> None:
        self.server.fails("before a grid")
        self.server.grids.append((path.name, step))
        self.server.numbers.append(number)
        self.server.fails("after a grid")

    def log_result(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        self.server.fails("before")
        self.server.values |= values

    def attach(self, path: Path, folder: str) -> None:
        self.server.files[f"{folder}/{path.name}"] = path.read_bytes()

    def end(self, outcome: Outcome) -> None:
        self.server.ends.append(outcome)


def new_run(path: Path) -> Run:
    """A run that no loop trains."""
    path.mkdir(parents=True)
    (path / "identity.json").write_text(json.dumps({"system": "dplc", "training.steps": 9}))
    return Run(path)


def log(run: Run, steps: Sequence[int], attempt: int = 1, every: int = 4) -> None:
    """Append rows of training, and after each so many steps one of an evaluation."""
    for step in steps:
        stamp = {"step": step, "attempt": attempt, "epoch": step / 8, "time": attempt * 1e6 + step}
        row = {**stamp, "generator/loss": 1 / step, "samples_per_second": 100.0 + attempt}
        json_lines.append(run.metrics, row)
        if step % every == 0:
            json_lines.append(run.metrics, {**stamp, "test/mse": 1 / step, "test/psnr": None})


def grid(run: Run, step: int) -> None:
    path = run.path / "samples" / f"step-{step:09d}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG of step %d" % step)


def step_sent(run: Run, name: Name) -> int:
    """The last step that a run has sent to a tracker, by its record; -1 if there is none."""
    path = run.path / "tracking.json"
    return int(json.loads(path.read_text())[name]["sent"][0]) if path.exists() else -1
