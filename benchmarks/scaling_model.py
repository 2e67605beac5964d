"""The scaling model of docs/scaling.md: what a run costs on many GPUs, and how it fails.

Sizes come from the code itself (networks are built without memory); what was measured stands in
`benchmarks/README.md`; the rest is assumed, in `Machine`. `scaling.py` prints its tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gencomp import recipes
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.recipes.schema import BaseRecipe
from gencomp.systems import build_system

FLOAT = 4  # bytes
DAY = 86_400.0  # seconds
_BUCKET, _FIRST_BUCKET = 25 * 2**20, 2**20  # of DistributedDataParallel, bytes
_CRITIC = 12  # forward passes that an update of a critic with gradient penalty amounts to


@dataclass(frozen=True)
class Machine:
    """What the model assumes of a cluster (A), or takes from benchmarks/README.md (M).

    Times are in seconds, rates in units a second.
    """

    nodes: int = 64
    gpus: int = 8  # a node
    # A: what the convolutions of these networks sustain on one GPU, in float32 or TF32.
    flops: float = 50e12
    launch: float = 0.003  # A: an update takes no less, however small its share of a batch
    bus: float = 200e9  # A: bytes a ring moves, eight 400 Gb/s adapters a node, half of their sum
    slow_bus: float = 10e9  # A: the same with one 100 Gb/s adapter a node
    storage: float = 20e9  # A: bytes that a shared file system reads, over all nodes
    opens: float = 50_000  # A: files that a shared file system opens
    write: float = 595e6  # M: bytes of a checkpoint, hashed and synchronised with the disk
    copy: float = 604e6 / 0.142  # M: bytes that the loop copies before it goes on
    png: float = 64 / 0.011  # M: 64×64 PNG files that a core decodes
    start: float = 14.6  # M: from the command to the first step, 2 workers
    hop: float = 0.0002  # M: a collective between two processes over gloo
    controller: float = 0.013  # M: of a core, Ray's controller whatever it asks
    poll: float = 0.00022  # M: of the CPU, asking one worker; both from 4 and 32 workers
    polls: float = 5.0  # a second: RAY_TRAIN_HEALTH_CHECK_INTERVAL_S is 0.2
    modules: int = 2_536  # M: files that a worker's imports open, 914 MB
    stall: float = 1800.0  # --stall-seconds
    hangs: float = 0.1  # A: share of failures that nobody notices before that
    gathers: tuple[float, float, float] = (3.6e-6, 0.85e-6, 2.7e-6)  # A: see `gather_latency`
    reduces: tuple[float, float, float] = (4.4e-6, 0.94e-6, 5.0e-6)  # A: see `reduce_latency`

    @property
    def world(self) -> int:
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Network:
    """One network, as the code builds it.

    Attributes:
        parameters: their number.
        state: bytes of parameters and buffers.
        channels: of each batch norm over the global batch.
        flops: of a forward pass of one image.
    """

    parameters: int
    state: int
    channels: tuple[int, ...]
    flops: float


class Update(NamedTuple):
    """How a stage makes one of its updates (`gencomp/systems/dplc/objectives.py`).

    Attributes:
        repeats: in a step; each takes a fresh batch.
        trains: whose gradients are summed over the ranks.
        graph: networks that run with a graph, so their batch norms exchange sums both ways.
        silent: those that run without one.
        through: frozen ones that gradients pass, and that exchange nothing.
        rows: whether latents and errors of the whole batch are gathered; else a few sums are.
    """

    phase: str
    repeats: int
    trains: tuple[str, ...]
    graph: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    rows: bool = False


_AUTOENCODER = ("encoder", "generator")
_CODER = ("code_encoder", "latent_mapper")
UPDATES: Mapping[str, tuple[Update, ...]] = {
    "wae": (Update("generator", 1, _AUTOENCODER, graph=_AUTOENCODER, rows=True),),
    "wgan_gp": (
        Update("critic", 5, ("critic",), silent=("generator",)),
        Update("generator", 1, ("generator",), graph=("generator",), through=("critic",)),
    ),
    "wasserstein_pp": (
        Update("critic", 5, ("critic",), silent=_AUTOENCODER),
        Update(
            "generator",
            1,
            _AUTOENCODER,
            graph=(*_AUTOENCODER, "generator"),  # G once more, for the critic
            through=("critic",),
            rows=True,
        ),
    ),
    "codec": (Update("codec", 1, _CODER, graph=_CODER, through=("generator",), rows=True),),
}


@dataclass(frozen=True)
class Case:
    """A recipe, with its networks.

    Attributes:
        batch: images in the global batch.
        latent_dim: of the generator.
        every: steps between checkpoints.
        averaged: whether moving averages are kept.
    """

    name: str
    stage: str
    batch: int
    latent_dim: int
    every: int
    averaged: bool
    networks: Mapping[str, Network] = field(repr=False)

    @property
    def updates(self) -> tuple[Update, ...]:
        return UPDATES[self.stage]

    @property
    def trained(self) -> int:
        """Parameters that have an optimizer."""
        names = {name for update in self.updates for name in update.trains}
        return sum(self.networks[name].parameters for name in names)

    @property
    def checkpoint(self) -> int:
        """Bytes: all networks, Adam's two moments, and the averages where there are some."""
        state = sum(network.state for network in self.networks.values())
        return state * (2 if self.averaged else 1) + 2 * FLOAT * self.trained


WIDE = {
    "networks.width": 512,
    "networks.latent_dim": 512,
    "data.batch_size": 8192,
    "training.ema_decay": 0.9999,
}


@cache
def cases() -> tuple[Case, ...]:
    """The published recipes at 64×64 (those of LSUN have the same networks), and a wide one."""
    return (
        case("WAE", "dplc_wae_celeba"),
        case("WGAN-GP", "dplc_wgan_gp_celeba"),
        case("Wasserstein++", "dplc_wasserstein_pp_celeba"),
        case("codec, n = 8", "dplc_codec_celeba", parent="dplc_wasserstein_pp_celeba"),
        case("Wasserstein++, wide", "dplc_wasserstein_pp_lsun", WIDE),
    )


def case(
    title: str, name: str, overrides: Mapping[str, object] | None = None, parent: str | None = None
) -> Case:
    """A recipe that ships with gencomp, its networks built on the meta device."""
    recipe = recipes.load(name, dict(overrides or {}))
    parents = {} if parent is None else {"generator": recipes.load(parent)}
    latent_dim = (parents.get("generator") or recipe).networks.latent_dim  # type: ignore[attr-defined]
    with torch.device("meta"):
        nets = build_system(recipe, parents).networks
        described = {
            key: _described(network, inputs(key, recipe, latent_dim))
            for key, network in nets.items()
            if key != "code_tables"
        }
    return Case(
        title,
        recipe.stage,
        recipe.data.batch_size,
        latent_dim,
        recipe.training.checkpoint_every,
        recipe.training.ema_decay is not None,
        described,
    )


def inputs(network: str, recipe: BaseRecipe, latent_dim: int) -> tuple[torch.Tensor, ...]:
    """What one image is to a network; two of them, as batch norms ask for."""
    if network == "generator":
        return (torch.empty(2, latent_dim, 1, 1),)
    if network == "latent_mapper":
        channels = recipe.networks.code_channels  # type: ignore[attr-defined]
        return torch.empty(2, channels, 4, 4), torch.empty(2, math.ceil(latent_dim / 16), 4, 4)
    return (torch.empty(2, 3, 64, 64),)


def _described(network: nn.Module, arguments: tuple[torch.Tensor, ...]) -> Network:
    with FlopCounterMode(display=False) as counter:
        network(*arguments)
    return Network(
        sum(p.numel() for p in network.parameters()),
        sum(t.nbytes for t in network.state_dict().values()),
        tuple(m.num_features for m in network.modules() if isinstance(m, GlobalBatchNorm2d)),
        counter.get_total_flops() / 2,
    )


# --- communication --------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """What the ranks exchange in one update.

    Attributes:
        gradients: bytes that are summed over all ranks.
        buckets: collectives of DistributedDataParallel: its buckets and the map of used weights.
        gathers: collectives that bring each rank's moments or rows to all.
        gathered: bytes that one rank gives to them.
        reduces: collectives that sum a few numbers.
        reduced: bytes of those.
    """

    gradients: float
    buckets: int
    gathers: int
    gathered: float
    reduces: int
    reduced: float


def traffic(case: Case, update: Update, world: int) -> Traffic:
    """The traffic of one update; a rank holds `batch / world` images, rounded up."""
    both = [c for name in update.graph for c in case.networks[name].channels]
    norms = both + [c for name in update.silent for c in case.networks[name].channels]
    gathered, reduced = FLOAT * sum(2 * c + 1 for c in norms), FLOAT * sum(2 * c for c in both)
    if update.rows:  # an error, a latent and, with a critic, a score of each image
        row = 1 + case.latent_dim + ("critic" in update.through)
        gathered += FLOAT * row * math.ceil(case.batch / world)
    else:  # means, and the number of images behind them
        reduced += FLOAT * (4 if update.phase == "critic" else 2)
    gradients = FLOAT * sum(case.networks[name].parameters for name in update.trains)
    buckets = 1 + max(0, math.ceil((gradients - _FIRST_BUCKET) / _BUCKET))
    return Traffic(
        gradients,
        buckets + 1,
        len(norms) + update.rows,
        gathered,
        len(both) + (not update.rows),
        reduced,
    )


def gather_latency(machine: Machine) -> float:
    """A ring visits every rank: base + steps inside nodes + steps between nodes (NCCL's model)."""
    base, inside, between = machine.gathers
    steps, hops = machine.world - 1, machine.nodes - 1
    return base + (steps - hops) * inside + hops * between


def reduce_latency(machine: Machine) -> float:
    """A tree over nodes, a chain inside them, up and down (NCCL's model)."""
    base, inside, between = machine.reduces
    return base + 2 * ((machine.gpus - 1) * inside + math.log2(machine.nodes) * between)


def ring(size: float, world: int, bus: float) -> float:
    """Seconds to sum `size` bytes over all ranks: each sends 2 (W − 1) / W of them."""
    return 2 * (world - 1) / world * size / bus


class Seconds(NamedTuple):
    """The seconds of a step: computing, moving gradients, moving moments and rows, waiting."""

    compute: float
    gradients: float
    statistics: float
    latency: float

    @property
    def all(self) -> float:
        """Nothing hides behind anything else: an upper bound."""
        return sum(self)


def step(case: Case, machine: Machine, bus: float | None = None) -> Seconds:
    """Seconds of one training step on all GPUs of a machine."""
    bus, world = bus or machine.bus, machine.world
    share = math.ceil(case.batch / world)
    compute = gradients = statistics = latency = 0.0
    for update in case.updates:
        sent = traffic(case, update, world)
        flops = _flops(case, update) * share
        compute += update.repeats * max(flops / machine.flops, machine.launch)
        if world == 1:
            continue
        gradients += update.repeats * ring(sent.gradients, world, bus)
        statistics += update.repeats * (
            (world - 1) * sent.gathered / bus + ring(sent.reduced, world, bus)
        )
        latency += update.repeats * (
            sent.gathers * gather_latency(machine)
            + (sent.reduces + sent.buckets) * reduce_latency(machine)
        )
    return Seconds(compute, gradients, statistics, latency)


def _flops(case: Case, update: Update) -> float:
    """Operations an image: a pass with a graph costs three forward ones, a frozen network two."""
    nets = case.networks
    graph = 3 * sum(nets[name].flops for name in update.graph)
    silent = sum(nets[name].flops for name in update.silent)
    through = 2 * sum(nets[name].flops for name in update.through)
    critic = _CRITIC * nets["critic"].flops if update.phase == "critic" else 0.0
    return graph + silent + through + critic


def images(case: Case) -> int:
    """The number of fresh images of a step."""
    first = case.updates[0].repeats
    return case.batch * first


# --- failures -------------------------------------------------------------------------------------


class Outlook(NamedTuple):
    """Failures a day, seconds between checkpoints, and the share of time that makes progress."""

    failures: float
    interval: float
    goodput: float


def outlook(case: Case, machine: Machine, node_days: float) -> Outlook:
    """Young's interval, √(2·pause·mean time between failures), but no less than a write takes.

    What a failure costs: half an interval, a write that it cut, to notice it, and a start.
    """
    between = node_days * DAY / machine.nodes
    pause, write = case.checkpoint / machine.copy, case.checkpoint / machine.write
    interval = max(math.sqrt(2 * pause * between), write)
    lost = interval / 2 + write + machine.hangs * machine.stall + restart(case, machine)
    return Outlook(DAY / between, interval, (1 - pause / interval) * (1 - lost / between))


def restart(case: Case, machine: Machine) -> float:
    """A start; every node reads the checkpoint, rank 0 once more before."""
    read = (machine.nodes + 1) * case.checkpoint / machine.storage
    return machine.start + read
