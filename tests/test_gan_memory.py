"""The memory that is counted without memory is that of real tensors, and the document shows it."""

from __future__ import annotations

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import gan_memory
from benchmarks.scaling import table
from gencomp import recipes
from gencomp.system import System
from gencomp.systems import build_system
from tests.conftest import ROOT

NARROW = {
    "parents.distortion": None,
    "networks.width": 2,
    "networks.residual_blocks": 1,
    "discriminator.width": 2,
}


def system() -> System:
    return build_system(recipes.load("gan_conditional_cityscapes", NARROW), {})


def test_fake_tensors_are_kept_as_real_ones_are() -> None:
    """The type is float32: bfloat16 takes minutes on a processor without instructions for it."""
    real = {phase: gan_memory.kept(system(), phase, 1, "float32") for phase in system().phases}
    with FakeTensorMode(allow_non_fake_inputs=True):
        traced = system()
        counted = {phase: gan_memory.kept(traced, phase, 1, "float32") for phase in real}
    assert counted == real and min(real.values()) > 2**20


def test_a_step_is_the_sum_of_its_parts() -> None:
    memory = gan_memory.Memory(100, {"a": 10, "b": 1}, {"a": 0, "b": 5}, {"a": 7, "b": 9})
    assert memory.peak() == 117 and memory.peak(10) == 196
    assert memory.pictures(195) == 9 and memory.pictures(196) == 10


@pytest.mark.slow
def test_the_document_shows_what_is_counted() -> None:
    document = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert table(gan_memory.HEAD, gan_memory.rows()) in document
