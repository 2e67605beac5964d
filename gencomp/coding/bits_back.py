"""Bits-back coding of images with a model of latents, chained over a set.

The sender holds a stack (`gencomp.coding.ans`). For each image it pops latents from their
posterior, top-down, which draws a sample and takes bits off the stack; then it pushes the image
given the latents, and the latents by their prior. A receiver does the inverse from the last image
to the first: it pops the latents by their prior and the image, and pushes the latents back by the
posterior, which the image tells, and so restores the bits that the sender had taken.

    stack of the sender               pop z_1 … z_L        push x           push z_L … z_1
                                      ~ q(z_l | x, z_<l)   ~ p(x | z)       ~ p(z_l | z_<l)
                                    ┌─────────────┐
    ┌─────────────┐                 │             │      ┌───────────┐      ┌───────────┐
    │  images     │                 └·············┘      │     x     │      │ z_1 … z_L │
    │  before     │      ──▶        ┌─────────────┐  ──▶ ├───────────┤  ──▶ ├───────────┤
    ├─────────────┤                 │  images     │      │  images   │      │     x     │
    │initial bits │                 │  before     │      │  before   │      ├───────────┤
    └─────────────┘                 ├─────────────┤      ├───────────┤      │  before   │
                                    │initial bits │      │  initial  │      │ & initial │
                                    └─────────────┘      └───────────┘      └───────────┘
     length                            + log2 q(z)         − log2 p(x|z)      − log2 p(z)

So an image adds −log2 p(x, z) + log2 q(z | x) bits, the negative ELBO on average (Townsend, Bird
and Barber, 2019; for layers HiLLoC: Townsend, Bird, Kunze and Barber, 2020). The first image pops
bits that nobody has pushed: these initial bits are part of the stream. An image can only be decoded
after all that follow it.

Latents take the values of bins of their priors (`gencomp.coding.latent_bins`). Finer bins cost less
for each image, but more initial bits: each layer has its own bins, which `planned` chooses by their
exact cost for the images at hand and which are pushed last.

**The opening.** Initial bits are lost only if they say nothing. So the first images of a set may be
coded by lossless WebP, and these codes are the initial bits, from which the latents of the next
images are drawn; as many images as it takes. A set then costs what WebP takes more than the model
for a few images, and not all of the first image's latents. A single image has nothing to gain from
bits-back coding, and its stream is WebP's; `opening=False` gives the method's own length.

Everything that a receiver must reproduce is computed from the rounded Gaussians of the model by
`gencomp.coding.portable` and rounded to integers. The coder is that of `constriction`, and no
Python runs for a single latent: most of the time beside the networks goes to the distribution
functions. A coder of many lanes in NumPy would need 32 initial bits or more for each lane.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gencomp.coding import latent_bins, logistic, webp
from gencomp.coding.ans import Stack, Words, pseudorandom_words
from gencomp.coding.latent_bins import LEAST_DEPTH, MOST_DEPTH, Bins, bins
from gencomp.coding.latent_model import Gaussian, LatentModel, State
from gencomp.coding.range_coder import damaged
from gencomp.coding.tables import frequencies
from gencomp.errors import InputError

# All depths are equally likely.
_DEPTH_FREQUENCIES = frequencies(np.zeros(MOST_DEPTH - LEAST_DEPTH + 1, np.int64))
_DEPTHS = list(range(LEAST_DEPTH, MOST_DEPTH + 1))
# The number of images of the opening is pushed in a byte.
MOST_OPENING = 255
_OPENING_FREQUENCIES = frequencies(np.zeros(MOST_OPENING + 1, np.int64))
_OPENING_KEY = (0x6F70656E, 0x696E6773)
# The initial bits are expected from a few images, so a little more is kept ready.
_OPENING_RESERVE = 0.02
# What WebP takes more than a model is about a quarter of what it takes.
_OPENING_WEIGHT = 0.25
_WORD_BYTES = 4
# The coder's rounding may save 2^-8 of a symbol's 2 bits or more.
_ROUNDING = 0.99
# The number of images and of latents of a layer that the choice of p looks at.
_TRIED_IMAGES = 4
_TRIED_LATENTS = 256


def encode(
    model: LatentModel[Any],
    images: Sequence[np.ndarray],
    depths: Sequence[int] | None = None,
    opening: bool = True,
) -> bytes:
    """The stream of images, with its initial bits.

    Args:
        model: the model of the images and their latents.
        images: uint8 images [H, W, 3]; they may differ in size.
        depths: p of each layer, 2 to 12; None for those that cost least.
        opening: whether the first images may be coded by lossless WebP.

    Raises:
        InputError: there are not as many depths as layers, or one is out of range.
    """
    plan = planned(model, images, depths, _OPENING_WEIGHT if opening else 1.0)
    codes = _opening(images, plan.initial_bits) if opening else []
    layers = [bins(depth) for depth in plan.depths]
    stack = Stack(_carried(codes))
    for image_HWC in images[len(codes) :]:
        _push_image(stack, model, image_HWC, layers)
    stack.push(np.array([len(codes)]), _OPENING_FREQUENCIES)
    stack.push(np.array(plan.depths, np.int64) - LEAST_DEPTH, _DEPTH_FREQUENCIES)
    return stack.data()


def decode(
    model: LatentModel[Any], sizes: Sequence[tuple[int, int]], data: bytes
) -> list[np.ndarray]:
    """The images of a stream, [H, W, 3] each; the inverse of `encode`.

    Args:
        model: the model that the images were encoded with.
        sizes: the height and the width of each image.
        data: what `encode` has returned.

    Raises:
        InputError: `encode` returns `data` for no images of these sizes.
    """
    return list(decode_backwards(model, sizes, data))[::-1]


def decode_backwards(
    model: LatentModel[Any], sizes: Sequence[tuple[int, int]], data: bytes
) -> Iterator[np.ndarray]:
    """The images of a stream from the last to the first, as `decode` returns them.

    A reader who wants one image can stop there. Only a reader who takes all of them is told of all
    damage, since what is left at the end tells.
    """
    stack = Stack.read(data)
    depths = stack.pop(_DEPTH_FREQUENCIES, count=model.layers) + LEAST_DEPTH
    opening = int(stack.pop(_OPENING_FREQUENCIES, count=1)[0])
    if opening > len(sizes):
        raise damaged()
    layers = [bins(int(depth)) for depth in depths]
    for height, width in reversed(sizes[opening:]):
        # A bin has at most 2^-p of the prior, so no network need run for a stack that is too short.
        dimensions = model.dimensions(height, width)
        least = sum(p * count for p, count in zip(depths, dimensions, strict=True))
        stack.require(_ROUNDING * float(least))
        yield _pop_image(stack, model, height, width, layers)
    codes, words = _codes(stack.remaining(), opening)
    stack.finish(words)
    for code, (height, width) in reversed(list(zip(codes, sizes[:opening], strict=True))):
        yield webp.decode(code, height, width)


class Plan(NamedTuple):
    """What is decided before the first image is coded.

    Attributes:
        depths: p of each layer.
        initial_bits: the bits that the first image is expected to pop.
    """

    depths: list[int]
    initial_bits: float


def planned(
    model: LatentModel[Any],
    images: Sequence[np.ndarray],
    depths: Sequence[int] | None = None,
    initial_weight: float = 1.0,
) -> Plan:
    """The depths that cost least for these images, by a few of them.

    The cost is that of the bins, for all images, and that of the initial bits, which are needed
    once.

    Args:
        model: the model of the images and their latents.
        images: the images.
        depths: p of each layer, where it is known.
        initial_weight: the part of the initial bits that is lost.

    Raises:
        InputError: there are not as many depths as layers, or one is out of range.
    """
    if depths is not None and len(depths) != model.layers:
        raise InputError(f"A model of {model.layers} layers has so many depths, not {len(depths)}.")
    allowed = [[depth] for depth in depths] if depths else [_DEPTHS] * model.layers
    losses = [np.zeros(len(one)) for one in allowed]
    taken = [np.zeros(len(one)) for one in allowed]
    tried = images[:: -(-len(images) // _TRIED_IMAGES) or 1]
    for image_HWC in tried:
        state = _start(model, image_HWC)
        for layer, choices in enumerate(allowed):
            posterior = model.posterior(state)
            standard = latent_bins.standardised(model.prior(state), posterior)
            every = -(-len(standard.mean_D) // _TRIED_LATENTS)
            some = Gaussian(standard.mean_D[::every], standard.scale_D[::every])
            share = len(standard.mean_D) / max(1, len(some.mean_D)) / len(tried)
            costs = share * np.array([latent_bins.costs(some, bins(depth)) for depth in choices])
            losses[layer] += costs[:, 0]
            taken[layer] += costs[:, 1]
            state = model.after(state, posterior.mean_D)
    best = [
        int((len(images) * loss + initial_weight * initial).argmin())
        for loss, initial in zip(losses, taken, strict=True)
    ]
    nats = sum(float(one[place]) for one, place in zip(taken, best, strict=True))
    chosen = [choices[place] for choices, place in zip(allowed, best, strict=True)]
    return Plan(chosen, nats / float(np.log(2)))


def _opening(images: Sequence[np.ndarray], bits: float) -> list[bytes]:
    """The codes of the first images by lossless WebP, of as many as have these bits together."""
    codes: list[bytes] = []
    wanted = (1 + _OPENING_RESERVE) * bits
    for image_HWC in images[:MOST_OPENING]:
        if sum(map(len, codes)) * 8 >= wanted or max(image_HWC.shape) > webp.MOST_PIXELS_A_SIDE:
            break
        codes.append(webp.encode(image_HWC))
    return codes


def _carried(codes: Sequence[bytes]) -> Words:
    """Codes as words that look random: a checksum, then the length of each code, and the code."""
    body = b"".join(
        len(code).to_bytes(_WORD_BYTES, "little") + code + bytes(-len(code) % _WORD_BYTES)
        for code in codes
    )
    data = zlib.crc32(body).to_bytes(_WORD_BYTES, "little") + body if codes else b""
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    return words ^ pseudorandom_words(_OPENING_KEY, 0, len(words))


def _codes(words: Words, count: int) -> tuple[list[bytes], int]:
    """The codes that words begin with, and the number of words that `_carried` makes of them.

    Raises:
        InputError: the words begin with no such codes.
    """
    if not count:
        return [], 0
    data = (words ^ pseudorandom_words(_OPENING_KEY, 0, len(words))).astype("<u4").tobytes()
    codes, at = [], _WORD_BYTES
    for _ in range(count):
        start = at + _WORD_BYTES
        length = int.from_bytes(data[at:start], "little")
        codes.append(data[start : start + length])
        at = start + length + -length % _WORD_BYTES
        if at > len(data):
            raise damaged()
    used = at // _WORD_BYTES
    if not np.array_equal(_carried(codes), words[:used]):
        raise damaged()
    return codes, used


def _push_image(
    stack: Stack, model: LatentModel[Any], image_HWC: np.ndarray, layers: Sequence[Bins]
) -> None:
    state = _start(model, image_HWC)
    found = []
    for bins_ in layers:
        prior = model.prior(state)
        found.append(
            latent_bins.pop(stack, latent_bins.standardised(prior, model.posterior(state)), bins_)
        )
        state = model.after(state, latent_bins.values(prior, found[-1], bins_))
    logistic.push(stack, model.likelihood(state), image_HWC.reshape(-1).astype(np.int64))
    for bins_, places_D in zip(reversed(layers), reversed(found), strict=True):
        stack.push(places_D, bins_.frequencies_L)


def _pop_image(
    stack: Stack, model: LatentModel[Any], height: int, width: int, layers: Sequence[Bins]
) -> np.ndarray:
    state = model.start(height, width)
    priors, found = [], []
    for bins_ in layers:
        priors.append(model.prior(state))
        count = len(priors[-1].mean_D)
        found.append(stack.pop(bins_.frequencies_L, count=count))
        state = model.after(state, latent_bins.values(priors[-1], found[-1], bins_))
    values_N = logistic.pop(stack, model.likelihood(state))
    image_HWC = values_N.astype(np.uint8).reshape(height, width, 3)

    state = _start(model, image_HWC)
    posteriors = []
    for prior, places_D, bins_ in zip(priors, found, layers, strict=True):
        posteriors.append(latent_bins.standardised(prior, model.posterior(state)))
        state = model.after(state, latent_bins.values(prior, places_D, bins_))
    for posterior, places_D, bins_ in list(zip(posteriors, found, layers, strict=True))[::-1]:
        latent_bins.push(stack, places_D, posterior, bins_)
    return image_HWC


def _start(model: LatentModel[State], image_HWC: np.ndarray) -> State:
    height, width, _ = image_HWC.shape
    return model.start(height, width, image_HWC)
