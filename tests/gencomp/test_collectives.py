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
    assert collectives.gather_columns(5, x, x) == (x, x)
    assert torch.equal(collectives.all_gather(x), x[None])
    assert collectives.global_count(7) == 7
    assert collectives.collective_device() == torch.device("cpu")


def test_mean_alone_is_the_mean_with_its_gradient() -> None:
    x_B = torch.randn(5, dtype=torch.float64, requires_grad=True)
    mean = collectives.global_mean(x_B)
    mean.backward()
    assert mean.item() == x_B.mean().item()
    torch.testing.assert_close(x_B.grad, torch.full_like(x_B, 0.2))


def test_means_alone_have_the_bits_of_each_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    quantities = [torch.randn(67, generator=generator) for _ in range(3)]
    found = collectives.global_means(*quantities)
    assert [m.item() for m in found] == [x_B.mean().item() for x_B in quantities]
