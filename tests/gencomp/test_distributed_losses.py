"""Losses, batch norm and whole phases give the single-process numbers on any number of ranks.

Real gloo processes, one start per world size; each runs every case under DDP and
writes what it got. This file is also the program that they run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gencomp
from gencomp.errors import InputError
from gencomp.losses import gradient_penalty, mmd, rmse
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.dplc import Critic, Encoder, Generator

M = 8
ROWS = (8, 7, 3)  # 7 gives unequal shares, 3 on four ranks leaves one without images
Result = dict[str, Tensor]


class RmsePhase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x_BCHW: Tensor, p_BM: Tensor) -> Tensor:
        return rmse(self.layer(x_BCHW), x_BCHW)


class MmdPhase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(M, M)

    def forward(self, x_BCHW: Tensor, p_BM: Tensor) -> Tensor:
        return mmd(self.layer(x_BCHW[:, 0, 0, :M] + x_BCHW[:, 1, 0, :M]), p_BM)


class BatchNormPhase(nn.Module):
    """A large mean beside a small spread, where E[x²] − E[x]² would cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 5, 4, stride=4), GlobalBatchNorm2d(5)
        self.last, self.latent_norm = nn.Conv2d(5, 4, 16), GlobalBatchNorm2d(4, momentum=None)

    def forward(self, x_BCHW: Tensor, p_BM: Tensor) -> Tensor:
        h_BCHW = torch.tanh(self.norm(self.first(x_BCHW) + 1e3))
        z_BM11 = self.latent_norm(self.last(h_BCHW))
        return rmse(z_BM11.pow(3), p_BM[:, :4, None, None])


class PenaltyPhase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.critic = Critic(width=1)

    def forward(self, x_BCHW: Tensor, p_BM: Tensor) -> Tensor:
        mix_B = torch.sigmoid(p_BM[:, 0])
        return gradient_penalty(self.critic, x_BCHW, -0.5 * x_BCHW, mix_B, "per_pixel")


class WaePhase(nn.Module):
    """The whole of stage 1 at a small width."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(width=2, latent_dim=M, residual_blocks=1)
        self.generator = Generator(width=2, latent_dim=M)

    def forward(self, x_BCHW: Tensor, p_BM: Tensor) -> Tensor:
        z_BM11 = self.encoder(x_BCHW)
        return rmse(self.generator(z_BM11), x_BCHW) + 10 * mmd(z_BM11, p_BM)


PHASES = (RmsePhase, MmdPhase, BatchNormPhase, PenaltyPhase, WaePhase)


def batch(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x_BCHW = 2 * torch.rand(rows, 3, 64, 64, generator=generator, dtype=torch.float64) - 1
    return x_BCHW, torch.randn(rows, M, generator=generator, dtype=torch.float64)


def run_phase(kind: type[nn.Module], rows: int, rank: int, world: int) -> Result:
    """Loss, gradients and buffers after one training step's backward pass on this rank's rows."""
    torch.manual_seed(0)
    phase = kind().double()
    model: nn.Module = phase
    if world > 1:
        model = DistributedDataParallel(phase)
    x_BCHW, p_BM = batch(rows)
    loss = model(x_BCHW[rank::world], p_BM[rank::world])
    loss.backward()
    result = {"loss": loss.detach()}
    for name, parameter in phase.named_parameters():
        if parameter.grad is not None:
            result[f"gradient {name}"] = parameter.grad
    return result | {f"buffer {name}": b for name, b in phase.named_buffers()}


def run_all(rank: int, world: int) -> dict[str, Result]:
    return {
        f"{kind.__name__} {rows}": run_phase(kind, rows, rank, world)
        for kind in PHASES
        for rows in ROWS
    }


def float32_norm(rank: int, world: int) -> Result:
    """Batch norm in float32 and bfloat16 on the same values."""
    x_BCHW, _ = batch(7)
    result = {}
    for dtype in (torch.float32, torch.bfloat16):
        norm = GlobalBatchNorm2d(3)
        y_BCHW = norm(x_BCHW[rank::world].to(dtype))
        assert y_BCHW.dtype == dtype
        result[f"{dtype} values"] = y_BCHW.detach().double()
        result[f"{dtype} mean"] = norm.running_mean.double()
    return result


def single_value_is_refused(rank: int, world: int) -> bool:
    x_BCHW = torch.zeros(1, 2, 1, 1)[rank::world]
    try:
        GlobalBatchNorm2d(2)(x_BCHW)
    except InputError as error:
        return "holds 1" in str(error)
    return False


def start(world: int, folder: Path) -> list[dict[str, object]]:
    root = str(Path(gencomp.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def expected() -> dict[str, Result]:
    return run_all(0, 1)


@pytest.fixture(scope="module", params=[1, 2, 4])
def ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    return start(request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", PHASES)
def test_every_rank_gets_the_single_process_step(
    kind: type[nn.Module],
    rows: int,
    ranks: list[dict[str, dict[str, Result]]],
    expected: dict[str, Result],
) -> None:
    name = f"{kind.__name__} {rows}"
    for rank, results in enumerate(ranks):
        got = results["phases"][name]
        assert got.keys() == expected[name].keys()
        for key, value in expected[name].items():
            # Gradients of biases that a norm cancels are rounding errors about 0.
            torch.testing.assert_close(
                got[key], value, rtol=1e-6, atol=1e-9, msg=lambda m, k=key, r=rank: f"{r} {k}: {m}"
            )
            assert torch.equal(got[key], ranks[0]["phases"][name][key]), f"{key} differs by rank"


def test_lower_precision(ranks: list[dict[str, Result]]) -> None:
    expected = float32_norm(0, 1)
    for rank, results in enumerate(ranks):
        for key, value in expected.items():
            share = value[rank :: len(ranks)] if "values" in key else value
            tolerance = 1e-5 if "float32" in key else 2e-2
            torch.testing.assert_close(
                results["float32"][key], share, rtol=tolerance, atol=tolerance
            )


def test_a_single_value_is_refused_on_every_rank(ranks: list[dict[str, bool]]) -> None:
    if len(ranks) > 1:  # one process raises torch's own error
        assert all(results["refused"] for results in ranks)


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    results = {
        "phases": run_all(rank, world),
        "float32": float32_norm(rank, world),
        "refused": single_value_is_refused(rank, world) if world > 1 else None,
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
