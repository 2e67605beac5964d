"""Patches of images: where they lie, how many there are, and what is left out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gencomp.evaluation import patches


@given(st.integers(4, 40), st.integers(4, 40), st.sampled_from([4, 5, 8]))
def test_they_are_those_of_both_grids(height: int, width: int, side: int) -> None:
    image_HW = torch.arange(height * width).reshape(height, width)
    images_BCHW = torch.stack([image_HW, -image_HW])[:, None]
    expected = [
        image_HW[top : top + side, left : left + side]
        for begin in (0, side // 2)
        for top in range(begin, height // side * side - side + 1, side)
        for left in range(begin, width // side * side - side + 1, side)
    ]
    assert patches.count(height, width, side) == len(expected)
    if not expected:
        with pytest.raises(ValueError, match=f"{width}x{height} pixels has no patch"):
            patches.cut(images_BCHW, side)
        return
    found_BMCPP = patches.cut(images_BCHW, side)
    assert torch.equal(found_BMCPP[0, :, 0], torch.stack(expected))
    assert torch.equal(found_BMCPP[1], -found_BMCPP[0])


def test_kodak_has_the_published_number_of_patches() -> None:
    """⌊512/256⌋·⌊768/256⌋ and (2 − 1)·(3 − 1) of each photograph, upright or not."""
    assert patches.count(512, 768, 256) == patches.count(768, 512, 256) == 8
