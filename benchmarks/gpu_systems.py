"""The systems that `gpu.py` trains: their recipes, and their training on a synthetic batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_bench import Bench, Precision
from torch import Tensor

from cluster.training.ema import Averages
from cluster.training.steps import Steps
from cluster.training.worker_info import WorkerInfo
from gencomp import recipes
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Progress, Supply, System
from gencomp.systems import build_system

# An epoch so long that no learning rate falls.
EPOCH = 10**9


@dataclass(frozen=True)
class Case:
    """A recipe with the images that it is trained on.

    Attributes:
        name: the name of the recipe.
        size: the height and width of its images.
        tiny: the keys that make it tiny.
        tiny_size: the height and width of the images of a tiny one.
        parents: the recipes of the runs that it starts from, by role.
    """

    name: str
    size: tuple[int, int]
    tiny: Mapping[str, Any]
    tiny_size: tuple[int, int] | None = None
    parents: Mapping[str, str] = field(default_factory=dict)

    def recipe(self, tiny: bool) -> BaseRecipe:
        return recipes.load(self.name, self.tiny if tiny else {})

    def image_size(self, tiny: bool) -> tuple[int, int]:
        return self.tiny_size if tiny and self.tiny_size else self.size


_DPLC = {"networks.width": 2, "networks.latent_dim": 8, "data.batch_size": 2}
_URDP = {"networks.width": 0.05, "networks.decoder_width": 0.05, "data.batch_size": 2}
_GAN = {
    "networks.width": 3,
    "networks.residual_blocks": 1,
    "discriminator.width": 4,
    "data.transforms.resize": [64, 64],
}
# The most telling systems first, as time may end before the last one.
CASES = [
    Case("dplc_wae_celeba", (64, 64), _DPLC),
    Case("gan_cityscapes", (512, 1024), _GAN, (64, 64)),
    Case("urdp_svhn", (32, 32), _URDP),
    Case(
        "irec_two_level_clic",
        (256, 256),
        {
            "networks.filters": 8,
            "networks.hyper_filters": 4,
            "data.batch_size": 2,
            "data.transforms.crop": [128, 128],
        },
        (128, 128),
    ),
    Case(
        "irec_rvae_imagenet32",
        (32, 32),
        {
            "networks.blocks": 2,
            "networks.deterministic": 8,
            "networks.stochastic": 4,
            "data.batch_size": 2,
        },
    ),
    Case("dplc_wasserstein_pp_celeba", (64, 64), _DPLC | {"critic.steps": 2}),
    Case(
        "dplc_codec_celeba",
        (64, 64),
        {"networks.width": 2, "networks.residual_blocks": 1, "data.batch_size": 2},
        parents={"generator": "dplc_wasserstein_pp_celeba"},
    ),
    Case(
        "vae_conv_cifar10",
        (32, 32),
        {"networks.decoder": "linear", "networks.widths": [], "data.batch_size": 4},
    ),
    Case("dplc_wgan_gp_celeba", (64, 64), _DPLC | {"critic.steps": 2}),
    Case("gan_conditional_cityscapes", (512, 1024), _GAN, (64, 64)),
    Case("urdp_universal_svhn", (32, 32), {"data.batch_size": 2}, parents={"encoder": "urdp_svhn"}),
]
BY_NAME = {case.name: case for case in CASES}


class Training:
    """A system under training as `cluster.worker` trains it, on one synthetic batch.

    Attributes:
        recipe: the recipe, at the sizes that are measured.
        system: the system, on the device.
        batch: the batch that every step takes.
        cycle: the number of steps after which the updates repeat: a system may train its critic in
            one step and its decoder in the next. Such a cycle is a *turn*.
    """

    def __init__(self, case: Case, bench: Bench) -> None:
        self.recipe, self._worker = case.recipe(bench.tiny), WorkerInfo(device=bench.device)
        parents = {role: BY_NAME[name].recipe(bench.tiny) for role, name in case.parents.items()}
        torch.manual_seed(self.recipe.training.seed)
        states = {
            role: build_system(one, {}).networks.state_dict() for role, one in parents.items()
        }
        self.system: System = build_system(self.recipe, parents)
        self.system.load_frozen(states)
        self.system.to(bench.device)
        self.batch = self.images(self.recipe.data.batch_size, *case.image_size(bench.tiny))
        self.system.initialise(states, self.supply("initialise", self.batch))
        self.restart()
        self.use("float32")
        self.cycle = self._cycle()

    def restart(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Begin again, from given weights or the present ones; `use` must follow."""
        if weights is not None:
            self.system.networks.load_state_dict(weights)
        settings = self.recipe.training
        self.optimizers = {name: self.system.optimizer(name) for name in self.system.phases}
        self.averages = (
            None
            if settings.ema_decay is None
            else Averages(self.system.networks, settings.ema_decay, settings.ema_warm_up)
        )
        self.progress = Progress(0, 0, EPOCH)

    def use(self, precision: Precision, compiled: bool = False) -> None:
        """Make the next steps in a precision; `float32_products` says what float32 means."""
        kind = "bfloat16" if precision == "bfloat16" else "float32"
        section = self.recipe.training.model_copy(update={"precision": kind, "compile": compiled})
        recipe = self.recipe.model_copy(update={"training": section})
        self._steps = Steps(recipe, self.system, self.optimizers, self._worker)

    def turn(self) -> None:
        """Make the steps of one cycle, each with the moving averages if the recipe has them."""
        for _ in range(self.cycle):
            for _ in self._steps.step(self.progress, lambda: self.batch):
                pass
            if self.averages is not None:
                self.averages.update()
            self.progress = self._after(self.progress)

    def images_of_turn(self) -> int:
        """The number of images that a turn takes."""
        progress = self.progress
        for _ in range(self.cycle):
            progress = self._after(progress)
        return progress.samples - self.progress.samples

    def weights(self) -> dict[str, Tensor]:
        """A copy of everything that a step may change in the networks, on the device."""
        return {name: one.clone() for name, one in self.system.networks.state_dict().items()}

    def is_compiled(self) -> bool:
        networks = self.system.networks.values()
        return any(one._compiled_call_impl is not None for one in networks)

    def images(self, count: int, height: int, width: int) -> Batch:
        """Random images in the layout of the reader's, with maps of ids if the recipe reads any."""
        device, generator = self._worker.device, torch.Generator().manual_seed(1)

        def random(high: int, dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator).to(device, dtype)

        images_BHWC = random(256, torch.uint8, count, height, width, 3)
        rows = torch.arange(count, device=device)
        maps = {
            name: random(35, torch.uint8 if name == "label" else torch.int32, count, height, width)
            for name in self.recipe.data.maps
        }
        return Batch(images_BHWC.permute(0, 3, 1, 2), rows, rows, torch.full_like(rows, -1), maps)

    def supply(self, purpose: str, batch: Batch) -> Supply:
        """The same batch again and again, each time with draws of its own."""
        number, size = 0, len(batch.images_BCHW)
        while True:
            draws = Draws(
                self.recipe.training.seed, (purpose, number), size, device=self._worker.device
            )
            yield batch, draws
            number += 1

    def _after(self, progress: Progress) -> Progress:
        samples = progress.samples + self._steps.samples(progress)
        return Progress(progress.step + 1, samples, progress.epoch_length)

    def _cycle(self) -> int:
        seen, progress = [], self.progress
        for _ in range(16):
            seen.append(tuple(self.system.updates(progress)))
            progress = self._after(progress)
        return next(n for n in range(1, len(seen) + 1) if seen[n:] == seen[:-n])


def training_of(bench: Bench, case: Case) -> Training:
    """The training of a case, which the measurements of a group share."""
    if "training" not in bench.shared:
        bench.shared["training"] = Training(case, bench)
    found = bench.shared["training"]
    assert isinstance(found, Training)
    return found
