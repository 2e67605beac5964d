"""Label maps as planes, boundaries of instances, and the regions that training keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gencomp.errors import InputError
from gencomp.systems.gan_compression import labels
from gencomp.systems.gan_compression.recipe import LabelsSection
from tests.gencomp import gan_cases


def settings(**values: Any) -> LabelsSection:
    return LabelsSection(mode="selective", **{"classes": gan_cases.CLASSES, **values})


class TestPlanes:
    def test_classes_sum_to_1_and_ids_beyond_count_as_the_last(self):
        ids = torch.tensor([[[0, 1, 2, 3], [4, 200, 255, 0]]], dtype=torch.uint8)
        found = labels.planes({"label": ids}, settings())
        assert found.shape == (1, 4, 2, 4) and bool((found.sum(1) == 1).all())
        assert found.argmax(1).tolist() == [[[0, 1, 2, 3], [3, 3, 3, 0]]]

    def test_boundaries_lie_on_both_sides(self):
        ids = torch.tensor([[[1, 1, 2], [1, 1, 2], [1, 1, 1]]], dtype=torch.int32)
        assert labels.boundaries(ids).int().tolist() == [[[0, 1, 1], [0, 1, 1], [0, 0, 1]]]
        maps = {"label": torch.zeros_like(ids), "instance": ids}
        found = labels.planes(maps, settings(instances="instance"))
        assert found.shape[1] == 5 and torch.equal(found[:, 4].bool(), labels.boundaries(ids))

    def test_a_missing_map_is_named(self):
        with pytest.raises(InputError, match="no map label; they have instance"):
            labels.planes({"instance": torch.zeros(1, 2, 2)}, settings())


class TestRegions:
    def test_a_latent_is_kept_with_any_of_its_pixels(self):
        kept = torch.zeros(1, 16, 24, dtype=torch.bool)
        kept[0, 7, 8] = kept[0, 15, 23] = True
        cells = labels.cells(kept, 8)
        assert cells.tolist() == [[[[0, 1, 0], [0, 0, 1]]]]
        assert labels.pixels_of_cells(cells, 8).shape == (1, 1, 16, 24)
        assert labels.pixels_of_cells(cells, 8).sum() == 2 * 64

    def test_a_quarter_of_the_instances_is_kept_whole(self):
        ids = torch.arange(16, dtype=torch.int32).repeat_interleave(4).expand(5, 8, 64)
        maps = {"label": torch.zeros_like(ids), "instance": ids}
        found = labels.drawn_regions(
            maps, settings(instances="instance"), gan_cases.draws(n=5), 8, 64
        )
        assert found.shape == (5, 8, 64)
        assert found.float().mean((1, 2)).tolist() == [0.25] * 5
        for mask, one in zip(found, ids, strict=True):
            assert not set(one[mask].tolist()) & set(one[~mask].tolist())
        assert len({mask.numpy().tobytes() for mask in found}) == 5

    def test_every_instance_is_kept_about_as_often(self):
        """1,000 images of 8 instances: each is kept in 250 ± 14, so within 70 of 250."""
        ids = torch.arange(8).expand(1000, 1, 8)
        found = labels.drawn_regions({"label": ids}, settings(), gan_cases.draws(n=1000), 1, 8)
        assert (found.sum(0).float() - 250).abs().max() < 70

    def test_boxes_are_rectangles_of_any_size_and_place(self):
        n, height, width = 4000, 5, 7
        found = labels.drawn_regions({}, settings(kept="box"), gan_cases.draws(n=n), height, width)
        assert found.shape == (n, height, width) and bool(found.any(2).any(1).all())
        rows, columns = found.any(2), found.any(1)
        assert torch.equal(found, rows[:, :, None] & columns[:, None])
        sides = {(int(a), int(b)) for a, b in zip(rows.sum(1), columns.sum(1), strict=True)}
        assert len(sides) == height * width  # 4,000 draws miss one of 35 with probability 2e-49
        # Each size is as likely: the mean height is 3, with a standard error of 0.022.
        assert float(rows.sum(1).float().mean()) == pytest.approx(3, abs=0.12)

    def test_the_same_draws_keep_the_same_regions_on_two_ranks(self):
        batch = gan_cases.batch(4)
        whole = labels.drawn_regions(batch.maps, settings(), gan_cases.draws(n=4), 64, 64)
        for rank in range(2):
            share = {name: one[rank::2] for name, one in batch.maps.items()}
            draws = gan_cases.Draws(1, ("train", 0, 0), 4, rank, 2)
            found = labels.drawn_regions(share, settings(), draws, 64, 64)
            assert torch.equal(found, whole[rank::2])
