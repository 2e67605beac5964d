"""Losses, batch norm and every phase give the single-process numbers on any number of ranks.

Real gloo processes, one start per world size; each runs every case under DDP and
writes what it got. This file is also the program that they run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import gencomp
from gencomp import recipes
from gencomp.collectives import gather_rows, global_mean
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.losses import gradient_penalties, mmd, rmse
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.networks.dplc import Critic
from gencomp.system import Batch, Progress, System, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.urdp.system import UrdpSystem
from gencomp.systems.vae.system import Vae
from tests.gencomp import gan_cases, irec_cases, urdp_cases, vae_cases
from tests.gencomp.dplc_cases import ADVERSARIAL, made
from tests.waiting import PATIENCE

M = 8
ROWS = (8, 7, 3)  # 7 gives unequal shares, 3 on four ranks leaves one without images
SYSTEM_ROWS = (8, 3)
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
        fakes_BCHW = -0.5 * x_BCHW
        return global_mean(gradient_penalties(self.critic, x_BCHW, fakes_BCHW, mix_B, "per_pixel"))


PHASES = (RmsePhase, MmdPhase, BatchNormPhase, PenaltyPhase)

# Stage -> what its recipe overrides; every phase of each is run.
_DZ = ADVERSARIAL
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "wae": ("wae", {}),
    "wae, latent discriminator": ("wae", _DZ),
    "wae, its trick": ("wae", _DZ | {"latent_discriminator.avb_trick": True}),
    "wgan_gp": ("wgan_gp", {}),
    "wgan_gp, per image": ("wgan_gp", {"critic.penalty_norm": "per_image"}),
    "wasserstein_pp": ("wasserstein_pp", {"loss.adversarial_weight": 0.1}),
    "wasserstein_pp, to the encoder": (
        "wasserstein_pp",
        {"loss.gen_latents": "interp", "loss.adversarial_to_encoder": True},
    ),
    "codec": ("codec", {}),
    "codec, batch statistics": ("codec", {"networks.bn_mode": "batch"}),
    "codec, latent discriminator": ("codec", _DZ),
    "cae": ("cae", {}),
    "gc": ("gc", {"loss.adversarial_weight": 0.1}),
}
# Decoder -> what its recipe overrides, for images of 64×64, or the part of them that it takes.
VAES: dict[str, dict[str, Any]] = {
    "deep": {"networks.image_size": [64, 64], "networks.channels": 3},
    "dcgan": {"likelihood.variance": "fixed"},
}
# Systems of generative compression -> their case and what their recipes override.
GAN: dict[str, tuple[str, dict[str, Any]]] = {
    "distortion": ("distortion", {"loss.rate.weight": 0.1, "networks.norm": "instance"}),
    "global": ("global", {"loss.gan": "wgan_gp", "networks.noise_channels": 2}),
    "global_plus": ("global_plus", {"loss.gan": "hinge", "discriminator.r1_weight": 1.0}),
    "conditional": ("conditional", {"code.centres": "learnt", "loss.gan": "vanilla"}),
    "selective": ("selective", {"labels.kept": "box", "discriminator.latent_features": 2}),
    "spectral": ("global", {"discriminator.norm": "none", "discriminator.spectral_norm": True}),
}
# Stages of irec -> what their recipes override, for images of any size.
IREC: dict[str, tuple[str, dict[str, Any]]] = {
    "rvae": ("rvae", {"loss.free_bits": 20}),
    "two_level": ("two_level", {}),
    "one_level": ("one_level", {"networks.posterior": "uniform", "loss.distortion": "ms_ssim"}),
}
# Stages of urdp, for the part of the images that they take.
URDP = ("end_to_end", "universal", "refinement", "critic")


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


def run_system(system: System, rows: int, rank: int, world: int) -> dict[str, Result]:
    """Every phase of a system, one after the other on the same weights, and its evaluation."""
    system.networks.double()
    system.frozen.double()
    x_BCHW = batch(rows)[0]
    if isinstance(system, Vae | UrdpSystem):
        x_BCHW = x_BCHW[:, :, : system.pixels.height, : system.pixels.width]
    index = torch.arange(rows)[rank::world]
    maps = {name: ids_BHW[rank::world] for name, ids_BHW in gan_cases.batch(rows).maps.items()}
    share = Batch((x_BCHW[rank::world] + 1) / 2, index, index, index, maps)
    draws = Draws(1, ("train", 0, 0), rows, rank, world)
    results = {}
    for phase_name, phase in system.phases.items():
        phase.take_over()
        # As the loop wraps it.
        model = (
            DistributedDataParallel(
                phase,
                broadcast_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
            if world > 1
            else phase
        )
        system.networks.zero_grad(set_to_none=True)
        loss, terms = model(share, draws, Progress(0, 0, 64))
        loss.backward()
        found = {"loss": loss.detach(), **{f"term {k}": v for k, v in terms.items()}}
        for key, parameter in phase.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {key}"] = parameter.grad.clone()
        found |= {f"buffer {key}": value.clone() for key, value in phase.named_buffers()}
        results[phase_name] = found
    with evaluation_mode(system.networks):
        metrics = system.summary(system.evaluate(share, draws).all_reduced())
        if rank == 0:  # a sample grid, on one rank alone
            whole = Batch((x_BCHW + 1) / 2, *[torch.arange(rows)] * 3, gan_cases.batch(rows).maps)
            system.pictures(whole, Draws(1, ("p",), rows))
    results["evaluation"] = {k: torch.tensor(v, dtype=torch.float64) for k, v in metrics.items()}
    return results


def all_systems() -> dict[tuple[str, int], System]:
    """Made outside the process group, where starting weights do not see other ranks."""
    dplc = {
        (name, rows): made(stage, **overrides)
        for name, (stage, overrides) in SYSTEMS.items()
        for rows in SYSTEM_ROWS
    }
    vaes = {
        (f"vae, {decoder}", rows): vae_cases.made(decoder, **overrides)
        for decoder, overrides in VAES.items()
        for rows in SYSTEM_ROWS
    }
    classifiers = {("classifier", rows): made_classifier() for rows in SYSTEM_ROWS}
    pixel_classifiers = {
        ("pixel classifier", rows): made_pixel_classifier() for rows in SYSTEM_ROWS
    }
    colour = urdp_cases.recipe(**{"networks.channels": 3})
    urdp = {
        (f"urdp, {stage}", rows): urdp_cases.made(stage, parent=colour)
        for stage in URDP
        for rows in SYSTEM_ROWS
    }
    gan = {
        (f"gan, {name}", rows): gan_cases.made(case, **overrides)
        for name, (case, overrides) in GAN.items()
        for rows in SYSTEM_ROWS
    }
    irec = {
        (f"irec, {name}", rows): irec_cases.made(stage, **overrides)
        for name, (stage, overrides) in IREC.items()
        for rows in SYSTEM_ROWS
    }
    return {**dplc, **vaes, **classifiers, **pixel_classifiers, **urdp, **gan, **irec}


def made_classifier() -> System:
    """A narrow classifier with a class for each image of a batch, since row i has the label i."""
    torch.manual_seed(0)
    sizes = {"networks.widths": [8, 8], "networks.classes": max(SYSTEM_ROWS)}
    return build_system(recipes.load("classifier_mnist", sizes), {})


def made_pixel_classifier() -> System:
    """A narrow segmentation network on the label map of the batches of gan_compression."""
    torch.manual_seed(0)
    sizes = {"networks.widths": [8, 8], "networks.classes": gan_cases.CLASSES}
    return build_system(recipes.load("pixel_classifier_narrow", sizes), {})


def run_systems(
    systems: dict[tuple[str, int], System], rank: int, world: int
) -> dict[str, dict[str, Result]]:
    return {
        f"{name} {rows}": run_system(system, rows, rank, world)
        for (name, rows), system in systems.items()
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


def counted_collectives() -> dict[str, list[int]]:
    """Calls in the forward and in the backward pass of each phase, without those of DDP."""
    counts = {}
    for stage in ("wae", "wgan_gp"):
        for name, phase in made(stage).phases.items():
            phase.take_over()
            x_BCHW, _ = batch(4)
            index = torch.arange(4)[dist.get_rank() :: dist.get_world_size()]
            share = Batch((x_BCHW[index].float() + 1) / 2, index, index, index)
            draws = Draws(1, ("count",), 4, dist.get_rank(), dist.get_world_size())
            with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduce:
                with mock.patch.object(dist, "all_gather", wraps=dist.all_gather) as gather:
                    loss, _ = phase(share, draws, Progress(0, 0, 64))
                    forward = reduce.call_count + gather.call_count
                    loss.backward()
                    both = reduce.call_count + gather.call_count
            counts[f"{stage}, {name}"] = [forward, both - forward]
    return counts


def missing_rows_are_refused() -> bool:
    try:
        gather_rows(torch.zeros(3, 2), total=100)
    except ValueError as error:
        return "3 rows of 100" in str(error)
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
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


@pytest.fixture(scope="module")
def expected() -> dict[str, Result]:
    return run_all(0, 1)


@pytest.fixture(scope="module")
def expected_of_systems() -> dict[str, dict[str, Result]]:
    return run_systems(all_systems(), 0, 1)


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


@pytest.mark.parametrize("rows", SYSTEM_ROWS)
@pytest.mark.parametrize(
    "name",
    [
        *SYSTEMS,
        *(f"vae, {decoder}" for decoder in VAES),
        "classifier",
        "pixel classifier",
        *(f"urdp, {stage}" for stage in URDP),
        *(f"gan, {name}" for name in GAN),
        *(f"irec, {name}" for name in IREC),
    ],
)
def test_every_phase_makes_the_single_process_step(
    name: str,
    rows: int,
    ranks: list[dict[str, dict[str, dict[str, Result]]]],
    expected_of_systems: dict[str, dict[str, Result]],
) -> None:
    """Loss, terms, gradients and running statistics of each phase, and the metrics."""
    phases = expected_of_systems[f"{name} {rows}"]
    for rank, results in enumerate(ranks):
        got = results["systems"][f"{name} {rows}"]
        assert got.keys() == phases.keys()
        for phase, values in phases.items():
            assert got[phase].keys() == values.keys()
            for key, value in values.items():
                # Draws are float32 numbers, and gradients that a norm cancels are rounding errors.
                torch.testing.assert_close(
                    got[phase][key],
                    value,
                    rtol=1e-6,
                    atol=1e-9,
                    msg=lambda m, k=key, p=phase, r=rank: f"rank {r}, {p}, {k}: {m}",
                )


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


def test_collective_calls_of_a_step(ranks: list[dict[str, dict[str, list[int]]]]) -> None:
    """One for each batch norm, forward and backward, and one for all terms of a loss."""
    if len(ranks) > 1:
        for results in ranks:
            assert results["collectives"] == {
                "wae, generator": [4 + 5 + 1, 5 + 4],
                "wgan_gp, critic": [5 + 1, 0],
                "wgan_gp, generator": [5 + 1, 5],
            }


def test_rows_that_are_no_share_are_refused(ranks: list[dict[str, bool]]) -> None:
    if len(ranks) > 1:
        assert all(results["shares"] for results in ranks)


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    systems = all_systems()
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    results = {
        "phases": run_all(rank, world),
        "systems": run_systems(systems, rank, world),
        "float32": float32_norm(rank, world),
        "refused": single_value_is_refused(rank, world) if world > 1 else None,
        "collectives": counted_collectives() if world > 1 else None,
        "shares": missing_rows_are_refused() if world > 1 else None,
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
