"""Exponential moving averages of weights, which a run with `training.ema_decay` ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averages:
    """The moving averages of all weights and buffers of a system's networks.

    After step t: average ← decay · average + (1 − decay) · weights. The first update copies.
    """

    def __init__(self, networks: nn.ModuleDict, decay: float) -> None:
        self._networks = networks
        self._averaged = AveragedModel(
            networks, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )

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

    def _exchange(self) -> None:
        with torch.no_grad():
            for own, averaged in zip(
                _tensors(self._networks), _tensors(self._averaged.module), strict=True
            ):
                own.data, averaged.data = averaged.data, own.data


def _tensors(networks: nn.Module) -> Iterator[Tensor]:
    return chain(networks.parameters(), networks.buffers())
