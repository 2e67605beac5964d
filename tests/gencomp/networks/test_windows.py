"""Local networks give in windows what they give of the whole image."""

from __future__ import annotations

import pytest
import torch

from gencomp.networks.float64 import in_float64
from gencomp.networks.gan_compression import autoencoder as networks
from gencomp.networks.windows import in_windows

CELLS = (7, 9)
LAYERS = [networks.Layers("channel", padding) for padding in ("symmetric", "tf_same")]


def up(layers: networks.Layers) -> torch.nn.Module:
    return in_float64(networks.Decoder(4, 2, 0, layers).last)


def down(layers: networks.Layers, halvings: int) -> torch.nn.Module:
    return in_float64(networks.glorot_(layers.analysis(3, 2, halvings)))


@pytest.mark.parametrize("layers", LAYERS, ids=["symmetric", "tf_same"])
@pytest.mark.parametrize("halvings", [3, 4])
def test_downwards(layers: networks.Layers, halvings: int) -> None:
    torch.manual_seed(0)
    network, scale = down(layers, halvings), 16 >> halvings
    x_BCHW = torch.randn(1, 3, 16 * CELLS[0], 16 * CELLS[1], dtype=torch.float64)

    def function(rows: slice, columns: slice) -> torch.Tensor:
        part_BCHW = x_BCHW[
            :, :, 16 * rows.start : 16 * rows.stop, 16 * columns.start : 16 * columns.stop
        ]
        found: torch.Tensor = network(part_BCHW)
        return found

    whole_BCHW = network(x_BCHW)
    for side, reach in ((2, 3), (3, 3), (100, 0), (None, 0)):
        found_BCHW = in_windows(function, *CELLS, scale, side, reach)
        torch.testing.assert_close(found_BCHW, whole_BCHW, rtol=0, atol=1e-11)
    # Without what lies around, the parts do not fit.
    assert (in_windows(function, *CELLS, scale, 2, 0) - whole_BCHW).abs().max() > 1e-3


@pytest.mark.parametrize("layers", LAYERS, ids=["symmetric", "tf_same"])
def test_upwards(layers: networks.Layers) -> None:
    torch.manual_seed(0)
    network = up(layers)
    h_BCHW = torch.randn(1, 32, *CELLS, dtype=torch.float64)

    def function(rows: slice, columns: slice) -> torch.Tensor:
        found: torch.Tensor = network(h_BCHW[:, :, rows, columns])
        return found

    whole_BCHW = network(h_BCHW)
    for side in (2, 5):
        found_BCHW = in_windows(function, *CELLS, 16, side, 3)
        torch.testing.assert_close(found_BCHW, whole_BCHW, rtol=0, atol=1e-11)
    assert (in_windows(function, *CELLS, 16, 2, 1) - whole_BCHW).abs().max() > 1e-6
