"""Tiny scripted networks that stand for Inception and LPIPS, as files."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

DIMENSION = 6


class Features(nn.Module):
    """Six features of uint8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, DIMENSION, 5, stride=4)
        self.coarse = nn.Conv2d(DIMENSION, DIMENSION, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.fine(images.float() / 127.5 - 1))
        return torch.tanh(self.coarse(hidden)).mean((2, 3))


class Perceptual(nn.Module):
    """Mean absolute difference of images on [−1, 1]."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3))


class NearestColour(nn.Module):
    """A score for each class: the closer a pixel is to its colour, the higher."""

    def __init__(self, colours_KC: Tensor) -> None:
        super().__init__()
        self.colours_KC = nn.Parameter(colours_KC.float())

    def forward(self, images: Tensor) -> Tensor:
        differences = images[:, None].float() - self.colours_KC[None, :, :, None, None]
        return -differences.square().sum(2)


class File(NamedTuple):
    path: Path
    sha256: str


def features(folder: Path, seed: int = 3) -> File:
    torch.manual_seed(seed)
    return _saved(Features(), folder / f"features{seed}.pt")


def nearest_colour(folder: Path, colours: list[list[int]]) -> File:
    return _saved(NearestColour(torch.tensor(colours)), folder / "nearest.pt")


def perceptual(folder: Path) -> File:
    return _saved(Perceptual(), folder / "perceptual.pt")


def _saved(module: nn.Module, path: Path) -> File:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return File(path, hashlib.sha256(path.read_bytes()).hexdigest())
