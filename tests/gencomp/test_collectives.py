"""Outside a process group every collective is the identity.

Inside: test_distributed_losses.py.
"""

from __future__ import annotations

import torch

from gencomp import collectives


def test_alone() -> None:
    assert (collectives.world_size(), collectives.rank()) == (1, 0)
    x = torch.randn(5, 2, requires_grad=True)
    assert collectives.all_reduce_sum(x) is x
    assert collectives.gather_rows(x) is x
    assert collectives.global_count(7) == 7
    assert collectives.collective_device() == torch.device("cpu")


def test_mean_alone_is_the_mean_with_its_gradient() -> None:
    x_B = torch.randn(5, dtype=torch.float64, requires_grad=True)
    mean = collectives.global_mean(x_B)
    mean.backward()
    assert mean.item() == x_B.mean().item()
    torch.testing.assert_close(x_B.grad, torch.full_like(x_B, 0.2))
