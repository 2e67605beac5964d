"""One training step: the updates that a system asks for, each a forward, a backward and an
optimizer step.

Precision, compilation and gradient accumulation are dealt with here, so that the loop of
`worker.py` shows only the order of things.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cluster.training.worker_info import WorkerInfo
from gencomp.draws import Draws
from gencomp.recipes.schema import BaseRecipe
from gencomp.system import Batch, Phase, Progress, System

log = logging.getLogger(__name__)

# The name of the option from torch 2.13 on, or else its earlier name.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class Updated(NamedTuple):
    """The outcome of an update: its phase, loss and named terms, averaged over its batches."""

    phase: str
    loss: Tensor
    terms: Mapping[str, Tensor]


class Steps:
    """Makes the training steps of one process.

    Args:
        system: the system with its weights in place, on the worker's device.
        optimizers: the optimizer of each phase.
    """

    def __init__(
        self,
        recipe: BaseRecipe,
        system: System,
        optimizers: Mapping[str, torch.optim.Optimizer],
        worker: WorkerInfo,
    ) -> None:
        self._recipe, self._system, self._optimizers, self._seat = (
            recipe,
            system,
            optimizers,
            worker,
        )
        if recipe.training.compile and _compiler_works(worker.device):
            _compile(system)
        self._phases = {name: _distributed(phase, worker) for name, phase in system.phases.items()}
        self._batches: list[Batch] = []

    def samples(self, progress: Progress) -> int:
        """The number of images that the next step takes from the training stream, on all ranks."""
        fresh = sum(update.fresh_batch for update in self._system.updates(progress))
        return fresh * self._recipe.training.accumulate * self._recipe.data.batch_size

    def step(self, progress: Progress, next_batch: Callable[[], Batch]) -> Iterator[Updated]:
        """Make the updates of one step in turn."""
        for number, update in enumerate(self._system.updates(progress)):
            if update.fresh_batch:
                self._batches = [next_batch() for _ in range(self._recipe.training.accumulate)]
            if not self._batches:
                raise RuntimeError("the first update after a start must take a fresh batch")
            yield self._update(update.phase, progress, number)

    def _update(self, name: str, progress: Progress, number: int) -> Updated:
        phase, optimizer = self._system.phases[name], self._optimizers[name]
        rates = self._system.learning_rates(name, progress)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        phase.take_over()
        optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        terms: list[Mapping[str, Tensor]] = []
        for part, batch in enumerate(self._batches):
            last = part == len(self._batches) - 1
            with self._synchronised(name, last):
                with self._precision(phase):
                    loss, found = self._phases[name](
                        batch, self._draws(progress, number, part), progress
                    )
                (loss / len(self._batches)).backward()
            losses.append(loss.detach())
            terms.append(found)
        named = {key: _mean([one[key] for one in terms]) for key in terms[0]}
        if phase.logs_gradients:
            named |= _gradient_norms(phase)
        optimizer.step()
        return Updated(name, _mean(losses), named)

    def _draws(self, progress: Progress, number: int, part: int) -> Draws:
        worker = self._seat
        return Draws(
            self._recipe.training.seed,
            ("train", progress.step, number, part),
            self._recipe.data.batch_size,
            worker.rank,
            worker.world,
            worker.device,
        )

    def _precision(self, phase: Phase) -> AbstractContextManager[object]:
        wanted = self._recipe.training.precision == "bfloat16" and not phase.second_order
        return torch.autocast(self._seat.device.type, dtype=torch.bfloat16, enabled=wanted)

    def _synchronised(self, name: str, last: bool) -> AbstractContextManager[object]:
        """Let the ranks exchange gradients only once, with the last accumulated batch."""
        phase = self._phases[name]
        return nullcontext() if last or phase is self._system.phases[name] else phase.no_sync()  # type: ignore[operator]


def _gradient_norms(phase: Phase) -> dict[str, Tensor]:
    """The Euclidean norm of each trained network's gradient, which ranks have averaged before."""
    found = {}
    for name in phase.trains:
        parameters = phase.networks[name].parameters()
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            found[f"gradient_norm_{name}"] = nn.utils.get_total_norm(gradients)
    return found


def _mean(values: Sequence[Tensor]) -> Tensor:
    return values[0].detach() if len(values) == 1 else torch.stack(list(values)).detach().mean(0)


def _distributed(phase: Phase, worker: WorkerInfo) -> nn.Module:
    """Wrap a phase so that its gradients are averaged over the ranks."""
    if worker.world == 1:
        return phase
    phase.take_over()
    options: dict[str, Any] = {
        # Our batch norms already keep the buffers equal on every rank.
        _SYNC_BUFFERS: False,
        # Without this, buckets are rebuilt after the first backward pass of a process; from three
        # ranks on, a resumed run would then sum its first gradients in another order than an
        # uninterrupted one.
        "find_unused_parameters": True,
        # Gradients are stored where they are summed, instead of being copied there and back.
        "gradient_as_bucket_view": True,
    }
    return DistributedDataParallel(
        phase,
        device_ids=[worker.device] if worker.device.type == "cuda" else None,
        **options,
    )


def _compile(system: System) -> None:
    """Compile all networks but those whose gradients are differentiated again."""
    excluded = {
        name for phase in system.phases.values() if phase.second_order for name in phase.trains
    }
    # Code that cannot be compiled runs as it is.
    torch._dynamo.config.suppress_errors = True
    for name, network in system.networks.items():
        if name not in excluded:
            network.compile()


def _compiler_works(device: torch.device) -> bool:
    """Whether torch.compile can build code here; if it cannot, the reason is logged."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler, Triton or headers may be missing, or anything else
        reason = str(error).strip().splitlines()[0]
        log.warning("training.compile is on, but torch.compile fails here (%s): not used", reason)
        return False
    return True
