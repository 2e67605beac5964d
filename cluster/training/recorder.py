"""The records that rank 0 writes while a run trains: metrics log, TensorBoard, sample grids."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cluster.data import held_out_order, held_out_rows, to_batch
from cluster.files import write_bytes
from cluster.logs import evaluation_rows, json_lines, metrics_log, process_log
from cluster.runs import Run
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Progress, System, evaluation_mode
from shards.reading.reader import Split

_GRID_COLUMNS = 8


class Recorder:
    """Writes the records of a run on rank 0, and does nothing on the other ranks.

    Terms stay on the device between rows of the log, so that a step never waits for them.

    Args:
        may_write: a function that is called before each write, and raises an error if another
            process has taken the run over.
    """

    def __init__(
        self,
        run: Run,
        recipe: BaseRecipe,
        rank: int,
        progress: Progress,
        held_out: Split,
        may_write: Callable[[], None],
    ) -> None:
        self._run, self._recipe, self._held_out = run, recipe, held_out
        self._active, self._may_write = rank == 0, may_write
        # From this step on, TensorBoard drops what an interrupted attempt has written.
        self._first_step = progress.step + 1
        self._terms: dict[str, list[Tensor]] = {}
        self._last_time, self._last_samples = time.monotonic(), progress.samples
        self._board: Any = None
        if self._active:
            may_write()
            logged = json_lines.read(process_log.of_rank(run.path, 0))
            starts = sum(row.get("event") == "start" for row in logged)
            self._attempt = metrics_log.begin(run.metrics, progress.step, starts)
            (run.path / "samples").mkdir(exist_ok=True)

    def updated(self, phase: str, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Remember the loss and the terms of an update."""
        if self._active:
            for name, value in {"loss": loss, **terms}.items():
                self._terms.setdefault(f"{phase}/{name}", []).append(value.detach())

    def stepped(self, progress: Progress) -> None:
        """Write a row after a step, if one is due."""
        if self._active and progress.step % self._recipe.training.log_every == 0:
            self._write_row(progress)

    def sampled(self, progress: Progress, system: System) -> None:
        """Write a grid of samples."""
        if self._active:
            self._write_samples(progress, system)

    def evaluated(self, progress: Progress, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation as a row of its own, with the split as a prefix."""
        if self._active:
            self._append(progress, evaluation_rows.to_row(metrics, self._recipe.evaluation.split))

    def finished(self, progress: Progress, system: System) -> None:
        self.sampled(progress, system)
        if self._board is not None:
            self._board.close()

    def _write_row(self, progress: Progress) -> None:
        now = time.monotonic()
        # All means are fetched together, since each transfer waits for the device.
        means = [torch.stack(values).double().mean() for values in self._terms.values()]
        row = dict(zip(self._terms, torch.stack(means).tolist(), strict=True))
        row["samples_per_second"] = (progress.samples - self._last_samples) / (
            now - self._last_time
        )
        self._last_time, self._last_samples = now, progress.samples
        self._terms.clear()
        self._append(progress, row)

    def _append(self, progress: Progress, row: Mapping[str, float]) -> None:
        stamp = {
            "step": progress.step,
            "attempt": self._attempt,
            "epoch": round(progress.epoch, 6),
            "time": round(time.time(), 3),
        }
        self._may_write()
        json_lines.append(self._run.metrics, {**stamp, **row})
        for name, value in row.items():
            self._tensorboard().add_scalar(name, value, progress.step)

    def _write_samples(self, progress: Progress, system: System) -> None:
        count = min(_GRID_COLUMNS, len(self._held_out))
        first = held_out_order(self._recipe, self._held_out, count, count)[0]
        rows = held_out_rows(self._recipe, self._held_out, first.tolist())
        device = next(system.networks.parameters()).device
        batch = to_batch(rows, device)
        draws = Draws(self._recipe.training.seed, ("pictures",), len(rows.rows), device=device)
        with evaluation_mode(system.networks):
            grid_HWC = image_grid(list(system.pictures(batch, draws).values()))
        self._may_write()
        png = io.BytesIO()
        Image.fromarray(grid_HWC).save(png, "PNG")
        # A tracker that looks at the folder must find whole files only.
        write_bytes(self._run.grid(progress.step), png.getvalue(), durable=False)
        self._tensorboard().add_image("samples", grid_HWC, progress.step, dataformats="HWC")

    def _tensorboard(self) -> Any:
        if self._board is None:
            # This is imported late, because the import takes longer than many a first step.
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(
                str(self._run.path / "tensorboard"), purge_step=self._first_step
            )
        return self._board


def image_grid(rows: list[Tensor], gap: int = 2) -> np.ndarray:
    """Rows of uint8 images [n, 3, H, W] as one grid [H', W', 3] with white gaps."""
    columns = max(len(row) for row in rows)
    height, width = rows[0].shape[-2:]
    grid = np.full(
        (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row.permute(0, 2, 3, 1).cpu().numpy()):
            y, x = i * (height + gap), j * (width + gap)
            grid[y : y + height, x : x + width] = image
    return grid
