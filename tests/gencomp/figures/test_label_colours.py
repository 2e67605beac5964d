"""Ids have colours that tell them apart, the same in every map."""

from __future__ import annotations

import numpy as np

from gencomp.figures.label_colours import coloured


def test_an_id_has_one_colour() -> None:
    generator = np.random.default_rng(0)
    maps = [generator.integers(0, 40, (9, 11)) for _ in range(2)]
    colours: dict[int, set[tuple[int, ...]]] = {}
    for map_HW in maps:
        found_HWC = coloured(map_HW)
        assert found_HWC.shape == (9, 11, 3) and found_HWC.dtype == np.uint8
        for one, colour in zip(map_HW.ravel().tolist(), found_HWC.reshape(-1, 3), strict=True):
            colours.setdefault(one, set()).add(tuple(colour.tolist()))
    assert all(len(found) == 1 for found in colours.values())
    every = np.array([colour for found in colours.values() for colour in found])
    distances = np.abs(every[:, None].astype(int) - every).sum(-1)
    assert distances[~np.eye(len(every), dtype=bool)].min() > 8
