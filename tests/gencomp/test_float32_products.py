"""How float32 products are computed, on GPUs and on CPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gencomp import float32_products
from gencomp.rate_distortion.pullback import products
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    there = [*float32_products.switches("cuda"), *float32_products.switches("cpu")]
    before = [switch.fp32_precision for switch in there]
    yield
    for switch, value in zip(there, before, strict=True):
        switch.fp32_precision = value


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_body_has_its_own_and_leaves_the_others_as_they_were(kind: str) -> None:
    float32_products.set_precision("ieee", kind)
    with products("tf32", torch.device(kind)):
        assert precisions(kind) == {"tf32"}
        with products("float32", torch.device(kind)):
            assert precisions(kind) == {"ieee"}
        assert precisions(kind) == {"tf32"}
    assert precisions(kind) == {"ieee"}


def test_the_older_switches_are_used_nowhere() -> None:
    """Torch refuses to say what holds after a mixture of both."""
    found = [
        path
        for package in ("benchmarks", "cluster", "gencomp", "slurm", "sweeps")
        for path in (ROOT / package).rglob("*.py")
        if ".allow_tf32" in path.read_text(encoding="utf-8")
    ]
    assert found == []


def precisions(kind: str) -> set[str]:
    return {switch.fp32_precision for switch in float32_products.switches(kind)}
