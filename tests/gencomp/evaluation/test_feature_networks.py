"""Networks from files: what they are given, and what is refused."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gencomp.draws import CPU
from gencomp.errors import InputError
from gencomp.evaluation import networks
from tests.processes import ENVIRONMENT


class ByBytes(nn.Module):
    """Answers classes, or with `return_features` the mean of each channel as it was given."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        if return_features:
            return images.float().mean((2, 3))
        return torch.zeros(len(images), 10)


class Shape(nn.Module):
    """Answers size, least and largest value of what it is given."""

    def forward(self, images: Tensor) -> Tensor:
        size = torch.tensor([images.shape[2], images.shape[3]], dtype=images.dtype)
        ends = torch.stack([images.amin((1, 2, 3)), images.amax((1, 2, 3))], 1)
        return torch.cat([size.expand(len(images), 2), ends], 1)


class Far(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


class One(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean()


class Endless(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3)) / 0


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def features(module: nn.Module, path: Path, given: networks.Input = "uint8") -> Tensor:
    network = networks.load(scripted(module, path), CPU)
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    return networks.FeatureNetwork(network, given, path.name)(images)


def test_a_network_that_can_is_asked_for_features(tmp_path: Path) -> None:
    found = features(ByBytes(), tmp_path / "n.pt")
    assert found.dtype == torch.float32
    assert found[0].tolist() == [7.5, 23.5, 39.5]


def test_the_signed_input_has_its_size_and_range(tmp_path: Path) -> None:
    height, width, low, high = features(Shape(), tmp_path / "n.pt", "signed-299")[0].tolist()
    assert (height, width) == (299, 299)
    assert (low, high) == pytest.approx((-1, 47 / 127.5 - 1))


def test_a_hash_must_be_known_or_stated(tmp_path: Path) -> None:
    path = scripted(ByBytes(), tmp_path / "n.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert networks.checked_sha256(path, digest.upper(), "features") == digest
    with pytest.raises(InputError, match=f"add --features-sha256 {digest}"):
        networks.checked_sha256(path, None, "features")
    with pytest.raises(InputError, match=f"has the SHA-256 {digest}, not {'0' * 64}"):
        networks.checked_sha256(path, "0" * 64, "lpips")
    with pytest.raises(InputError, match=r"--lpips .*nowhere cannot be read"):
        networks.checked_sha256(tmp_path / "nowhere", None, "lpips")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.pt").write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"n\.pt is not a TorchScript network"):
        networks.load(tmp_path / "n.pt", CPU)


def test_wrong_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"answers \[\] for 2 images"):
        features(One(), tmp_path / "one.pt")
    with pytest.raises(InputError, match="not finite"):
        features(Endless(), tmp_path / "endless.pt")
    with pytest.raises(InputError, match=r"refuses torch.uint8 images"):
        features(nn.Conv2d(3, 4, 3), tmp_path / "conv.pt")
    with pytest.raises(InputError, match=r"refuses torch.uint8 images"):
        features(Far(), tmp_path / "two.pt")


def test_pairs_are_given_on_the_signed_scale_or_on_that_of_the_unit(tmp_path: Path) -> None:
    network = networks.load(scripted(Far(), tmp_path / "n.pt"), CPU)
    black = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    found = networks.PerceptualNetwork(network, "n.pt")(black, black + 255)
    assert found.tolist() == [2, 2, 2]
    assert found.dtype == torch.float64
    unit = networks.PerceptualNetwork(network, "n.pt", signed=False)
    assert unit(black, black + 255).tolist() == [1, 1, 1]


class Constant(nn.Module):
    """Has constants of several kinds, whose order TorchScript takes from a set."""

    __constants__ = ("alpha", "beta", "gamma", "delta", "word")

    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.beta, self.gamma, self.delta = 1, 2.5, True, (3, 4)
        self.word = "a\n  z : Final[int] = 1"
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        assert self.gamma and self.word
        scaled = images.float() * self.alpha + self.beta + self.delta[1]
        return self.layers(scaled).flatten(1)


_WRITE = """
import sys, torch
from gencomp.evaluation import networks
from tests.gencomp.evaluation.test_feature_networks import Constant
torch.manual_seed(0)
sys.stdout.buffer.write(networks.to_file(Constant().eval()))
"""


def test_a_file_does_not_depend_on_the_hash_seed() -> None:
    files = []
    for seed in ("0", "1", "2"):
        environment = {**ENVIRONMENT, "PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", _WRITE]
        done = subprocess.run(words, env=environment, capture_output=True, check=True)
        files.append(done.stdout)
    assert len(set(files)) == 1
    torch.manual_seed(0)
    images = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(1, 3, 8, 8)
    assert torch.equal(torch.jit.load(io.BytesIO(files[0]))(images), Constant().eval()(images))
