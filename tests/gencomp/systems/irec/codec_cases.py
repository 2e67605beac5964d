"""Small codecs of every kind, pictures for them, and streams with their checksums made anew."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage import data

from gencomp.coding import container
from gencomp.system import Picture
from gencomp.systems.irec.codec import IrecCodec
from gencomp.systems.irec.system import IrecSystem
from gencomp.systems.irec.writing import CodecSection
from tests.gencomp import irec_cases

# Each kind of codec with its stage, and the keys of its recipe.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "relative_entropy": ("rvae", {}),
    "bits_back": ("rvae", {"codec.coder": "bits_back"}),
    "two_level": ("two_level", {}),
    "one_level": ("one_level", {}),
    "universal": ("two_level", {"networks.posterior": "uniform"}),
}
LOSSLESS = ("relative_entropy", "bits_back")
_STEPS = 60
LOSSY = ("two_level", "one_level", "universal")


# The systems by stage and posterior.
_systems: dict[tuple[str, str], IrecSystem] = {}


def system(stage: str, posterior: str = "gaussian") -> IrecSystem:
    """A system after some steps of training, with its table of expected divergences."""
    if (stage, posterior) not in _systems:
        found = _made(stage, posterior, start=True)
        phase = found.phases["model"]
        phase.take_over()
        optimizer = torch.optim.Adam(phase.trained_parameters(), lr=1e-2)
        for step in range(_STEPS):
            batch, draws = irec_cases.batch(seed=step), irec_cases.draws(step)
            optimizer.zero_grad()
            phase(batch, draws, irec_cases.START).loss.backward()
            optimizer.step()
        found.networks.eval()
        found.finalise(irec_cases.supply(128))
        _systems[stage, posterior] = found
    return _systems[stage, posterior]


def save(path: Path) -> None:
    """Write the weights of all systems to a file, for a process that computes otherwise."""
    for stage, keys in KINDS.values():
        system(stage, keys.get("networks.posterior", "gaussian"))
    torch.save({key: one.networks.state_dict() for key, one in _systems.items()}, path)


def load(path: Path) -> None:
    """Take the systems of another process from a file."""
    for key, state in torch.load(path).items():
        _systems[key] = _made(*key, start=False)
        _systems[key].networks.load_state_dict(state)


def _made(stage: str, posterior: str, start: bool) -> IrecSystem:
    more = {} if posterior == "gaussian" else {"networks.posterior": posterior}
    return irec_cases.made(stage, start, **more)


@cache
def codec(kind: str, **writing: Any) -> IrecCodec:
    stage, keys = KINDS[kind]
    chosen = {key.removeprefix("codec."): x for key, x in keys.items() if key.startswith("codec.")}
    found = system(stage, keys.get("networks.posterior", "gaussian"))
    return IrecCodec(found.coded(), CodecSection(**{**chosen, **writing}))


def crops(count: int, least: int = 4, most: int = 40, seed: int = 0) -> list[Picture]:
    """Crops of photographs, of random sizes at random places."""
    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    numbers = np.random.default_rng(seed)
    found = []
    for index in range(count):
        photo = photos[int(numbers.integers(len(photos)))]
        height, width = numbers.integers(least, most + 1, 2).tolist()
        top = int(numbers.integers(photo.shape[0] - height))
        left = int(numbers.integers(photo.shape[1] - width))
        image_HWC = photo[top : top + height, left : left + width]
        found.append(Picture(np.ascontiguousarray(image_HWC), index=index))
    return found


def body(stream: bytes) -> bytes:
    """A stream without its checksum."""
    return stream[: -2 if container.unpack(stream).is_exact else -4]
