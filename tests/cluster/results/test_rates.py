"""Images of codecs rate by rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.results import pictures, rates
from cluster.runs import Run, open_run
from gencomp.errors import InputError


def test_columns_go_from_the_originals_by_way_of_the_prior_to_the_rates(codec_run: Path) -> None:
    run = open_run(codec_run)
    chosen = rates.choose([run], "test", 2)
    assert rates.choose([run], "test", 2, [5, 3, 1]).rows == (5, 3, 1)
    original, prior, coded = rates.along_the_rate([run], chosen, draws=3, seed=7)
    assert (original.heading, prior.heading, prior.remark) == ("original", "0 bpp", "prior")
    codec = run.system().codec()
    assert codec is not None
    stream = codec.compress_jointly(list(chosen.pictures(run.recipe())))
    bits = codec.code_bits(stream) / 2
    assert 0 < bits <= 32 + 8  # the code and the salt
    assert coded.heading == f"{bits / 64**2:.3g} bpp"
    assert coded.remark == f"{bits:.4g} bits in {len(stream) / 2:.3g} bytes"
    for column in (original, prior, coded):
        assert len(column.tiles) == 2 and all(len(row) == 3 for row in column.tiles)
    # A row is one image with several draws of the noise.
    again = pictures.reconstructions(run, run.system(), chosen, 7, 3)
    for image, row in enumerate(coded.tiles):
        for draw, tile in enumerate(row):
            assert tile is not None
            np.testing.assert_array_equal(tile, pictures.as_tiles(again[draw])[image])


def test_only_codecs_of_one_generator_have_a_rate_to_go_along(run: Run) -> None:
    with pytest.raises(InputError, match="has no frozen generator to share"):
        rates.choose([run], "test", 2)
