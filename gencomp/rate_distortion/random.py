"""Random numbers as a function of (seed, image id, temperature index, purpose) and of the chain.

Every block of numbers is one stream of Philox-4x64 (Salmon et al.: Parallel Random Numbers: As
Easy as 1, 2, 3, 2011) with key (seed, image id) and counter (0, 0, temperature index, purpose). So
nothing depends on how images are batched, ordered or split into jobs, nor on what was drawn
before. The upper 52 bits of a raw word become a uniform number, and the inverse normal distribution
function turns it into a normal one. Each number takes one word, so the protocol needs no particular
version of numpy. Chain m has its own words, whatever the number of chains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gencomp.errors import InputError

PURPOSE_START = 0
PURPOSE_TRANSITION = 1
PURPOSE_REVERSE = 2
PURPOSE_SIMULATION = 3

_LARGEST = 2**63  # keys also travel in int64 tensors


class TransitionNumbers(NamedTuple):
    """The random numbers that one transition uses, float64."""

    resample_I: np.ndarray  # uniform
    momentum_IMK: np.ndarray  # standard normal
    jitter_IM: np.ndarray  # uniform
    accept_IM: np.ndarray  # uniform


def check_keys(seed: int, image_ids: Sequence[int]) -> tuple[int, ...]:
    """The image ids as a tuple of integers.

    Raises:
        InputError: the seed or an id lies outside [0, 2^63), or an id appears twice (the chains of
            its two images would use the same numbers).
    """
    ids = tuple(int(image_id) for image_id in image_ids)
    for name, value in [("seed", seed), *(("image id", image_id) for image_id in ids)]:
        if not 0 <= value < _LARGEST:
            raise InputError(f"{name} {value} is outside [0, 2^63).")
    if len(set(ids)) < len(ids):
        twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise InputError(f"image id {twice} appears twice; every image needs an id of its own.")
    return ids


def derived_seed(seed: int, purpose: str) -> int:
    """Another seed, for a purpose whose numbers must not be those of the seed itself."""
    digest = hashlib.blake2b(repr((purpose, seed)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def start_uniforms(seed: int, image_ids: Sequence[int], chains: int, width: int) -> np.ndarray:
    """The uniforms for the first states, [I, M, width]."""
    uniforms = _uniforms(seed, image_ids, 0, PURPOSE_START, chains * width)
    return uniforms.reshape(len(image_ids), chains, width)


def start_words(seed: int, image_ids: Sequence[int], chains: int) -> np.ndarray:
    """The 64-bit words that seed another generator, one for each first state, [I, M]."""
    return _words(seed, image_ids, 0, PURPOSE_START, chains)


def simulation_normals(seed: int, image_ids: Sequence[int], values: int) -> np.ndarray:
    """The standard normals for the noise of simulated images, [I, N]."""
    return normals(_uniforms(seed, image_ids, 0, PURPOSE_SIMULATION, values))


def transition_numbers(
    seed: int,
    image_ids: Sequence[int],
    transition: int,
    chains: int,
    latent_dim: int,
    purpose: int = PURPOSE_TRANSITION,
) -> TransitionNumbers:
    """The numbers of one transition, counted along its path."""
    width = latent_dim + 2
    uniforms = _uniforms(seed, image_ids, transition, purpose, 1 + chains * width)
    chain_numbers = uniforms[:, 1:].reshape(len(image_ids), chains, width)
    return TransitionNumbers(
        resample_I=uniforms[:, 0],
        momentum_IMK=normals(chain_numbers[:, :, :latent_dim]),
        jitter_IM=chain_numbers[:, :, latent_dim],
        accept_IM=chain_numbers[:, :, latent_dim + 1],
    )


def normals(uniforms: np.ndarray) -> np.ndarray:
    """The standard normals of the same shape, one for each uniform number."""
    # Imported by those that draw: importing scipy takes as long as decoding some images, and
    # whatever decodes them knows its prior too.
    from scipy.special import ndtri

    return ndtri(uniforms)


def _uniforms(
    seed: int, image_ids: Sequence[int], temperature: int, purpose: int, count: int
) -> np.ndarray:
    """Uniforms on the open interval (0, 1), [I, count]; they are multiples of 2^-53."""
    words = _words(seed, image_ids, temperature, purpose, count)
    return ((words >> np.uint64(12)) + 0.5) * 2.0**-52


def _words(
    seed: int, image_ids: Sequence[int], temperature: int, purpose: int, count: int
) -> np.ndarray:
    """The raw 64-bit words, [I, count]."""
    # One generator gets each key in turn, since making one for each image takes three times as
    # long. It advances the first counter word only, so blocks cannot overlap.
    generator = np.random.Philox(counter=[0, 0, temperature, purpose], key=[seed, 0])
    state: Any = generator.state
    words = np.empty((len(image_ids), count), dtype=np.uint64)
    for row, image_id in enumerate(image_ids):
        state["state"]["key"][1] = image_id
        generator.state = state
        words[row] = generator.random_raw(count)
    return words
