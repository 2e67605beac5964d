"""The tables of a run: counted from final weights, alike on all ranks, whole in a checkpoint.

This file is also the program that the ranks run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gencomp import quantizer
from gencomp.coding import tables
from gencomp.systems.common import pixels
from gencomp.systems.common.code_tables import CodeTables
from tests.gencomp.dplc_cases import batch, finalised, made
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BATCHES = (9, 8, 1)  # unequal shares, and ranks without a row


def symbols() -> list[torch.Tensor]:
    """Global batches of codes in which the second channel repeats the first."""
    first = torch.randint(0, 3, (sum(BATCHES), 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return list(torch.cat([first, first], dim=1).split(BATCHES))


def rank_main(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    counted = CodeTables(32, 3)
    counted.count(codes[rank::world] for codes in symbols())
    torch.save(counted.state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_every_rank_counts_all_rows(tmp_path: Path) -> None:
    world = 2
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for rank in range(world)
    ]
    assert [process.wait(timeout=PATIENCE) for process in processes] == [0] * world
    alone = CodeTables(32, 3)
    alone.count(symbols())
    assert (alone.back[16:] == torch.tensor([0, 16])).all()
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(found[name], value) for name, value in alone.state_dict().items())


@pytest.mark.parametrize("stage", ["codec", "cae", "gc"])
def test_finalise_counts_with_the_final_encoder(stage: str) -> None:
    system = made(stage)
    found = system.networks["code_tables"]
    assert isinstance(found, CodeTables) and not found.counts.any()
    finalised(system, 16)
    with torch.no_grad():
        codes = [
            quantizer.quantize_hard(
                system.networks["code_encoder"](pixels.to_signed(batch(seed=i).images_BCHW)),
                quantizer.cells(2),
            )
            for i in range(2)
        ]
    expected = tables.fit(torch.cat(codes).flatten(1).numpy(), 2)
    assert np.array_equal(found.tables().counts_NCL, expected.counts_NCL)
    assert np.array_equal(found.tables().back_NP, expected.back_NP)


def test_a_state_can_be_loaded_and_converted() -> None:
    counted = CodeTables(32, 3)
    counted.count(symbols())
    again = CodeTables(32, 3).double()
    again.load_state_dict(counted.state_dict())
    for one, other in zip(counted.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other) and other.dtype == torch.int64


def test_moving_averages_leave_what_nobody_counted_empty() -> None:
    """Averaged tables must stay tables until `finalise` fills them."""
    network = CodeTables(32, 2)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    for _ in range(5):
        averaged.update_parameters(network)
    assert not any(buffer.any() for buffer in averaged.module.buffers())


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
