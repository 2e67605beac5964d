"""Exponential moving averages of weights, which a run with `training.ema_decay` ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def warmed_up_decay(updates: int, decay: float) -> float:
    """The decay min(d, (1 + n)/(10 + n)) of an average that has been updated n times.

    It is 0.1 at first and reaches 0.999 at n = 8,990, so that the average soon forgets the start.
    """
    return min(decay, (1 + updates) / (10 + updates))


class Averages:
    """The moving averages of all weights and buffers of a system's networks.

    After step t: average ← decay · average + (1 − decay) · weights. The first update copies; with
    warm-up, it is one like the others, and the decay is `warmed_up_decay`.
    """

    def __init__(self, networks: nn.ModuleDict, decay: float, warm_up: bool = False) -> None:
        self._networks = networks
        self._averaged = AveragedModel(
            networks,
            multi_avg_fn=self._warming_up(decay) if warm_up else get_ema_multi_avg_fn(decay),
            use_buffers=True,
        )
        if warm_up:  # AveragedModel copies as long as it counts no update
            self._averaged.n_averaged += 1

    def update(self) -> None:
        """Update the averages with the weights after a step."""
        self._averaged.update_parameters(self._networks)

    def state(self) -> dict[str, Tensor]:
        return self._averaged.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._averaged.load_state_dict(state)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages in place of the weights while the body runs, for an evaluation."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def install(self) -> None:
        """Put the averages in place of the weights for good."""
        self._exchange()

    def _warming_up(self, decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
        """The update of averages whose count of updates has begun at 1."""

        def update(averages: Tensors, weights: Tensors, count: Tensor | int) -> None:
            # The count that torch hands over may lie on a GPU, for which reading it would wait.
            updates = int(self._averaged.n_averaged) - 1
            get_ema_multi_avg_fn(warmed_up_decay(updates, decay))(averages, weights, count)

        return update

    def _exchange(self) -> None:
        with torch.no_grad():
            for own, averaged in zip(
                _tensors(self._networks), _tensors(self._averaged.module), strict=True
            ):
                own.data, averaged.data = averaged.data, own.data


def _tensors(networks: nn.Module) -> Iterator[Tensor]:
    return chain(networks.parameters(), networks.buffers())
