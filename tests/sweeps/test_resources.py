"""How many trials a cluster holds at once."""

from __future__ import annotations

from typing import Any

import pytest

from gencomp.errors import InputError
from sweeps.resources import capacity

NODES: list[dict[str, Any]] = [
    {"Alive": True, "Resources": {"CPU": 5.0, "GPU": 2.0, "memory": 9.0}},
    {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 4.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {"memory": 9.0}},
]


@pytest.mark.parametrize(
    ("workers", "gpu", "most"), [(1, False, 6), (2, False, 3), (4, False, 1), (3, True, 1)]
)
def test_trials_that_fit_whole(workers: int, gpu: bool, most: int) -> None:
    assert capacity(NODES, workers, gpu) == most


def test_a_trial_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="wants 7 CPUs, but the cluster has 6"):
        capacity(NODES, 7, False)
    with pytest.raises(InputError, match=r"wants 4 GPUs \(each with a CPU\), but .* has 3"):
        capacity(NODES, 4, True)
