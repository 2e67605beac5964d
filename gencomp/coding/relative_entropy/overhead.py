"""What relative entropy coding costs and gives: rate, faithfulness and time for some settings.

A value is faithful if it is what a sample of the target is on average: ln q/p as large as the
relative entropy, residuals (x − m)/s of variance 1, and no residual along m, which would be a pull
to the prior. A search that sends too little misses all three.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gencomp.coding.coders import to_bytes
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy import auxiliary, beam_search, stream
from gencomp.coding.relative_entropy.auxiliary import Floats
from gencomp.coding.relative_entropy.codes import Key, Settings

_DEEPEST = 6.0  # −ln s of latents like those of a model


class Overhead(NamedTuple):
    """What was measured over blocks, each of them coded with several keys.

    Attributes:
        settings: how they were coded.
        index_rate: the nats of the indices over the relative entropy.
        file_rate: the same of all bytes that are sent.
        reached: ln q/p of the values over the relative entropy; 1 for samples of the target.
        reached_error: its standard error.
        variance: the mean square of the residuals (x − m)/s; 1 for samples.
        projection: the mean residual along m, in standard deviations; 0 for samples, negative for
            values that are pulled to the prior.
        encode_ms, decode_ms: the CPU time of a block in milliseconds, when all are coded at once.
    """

    settings: Settings
    index_rate: float
    file_rate: float
    reached: float
    reached_error: float
    variance: float
    projection: float
    encode_ms: float
    decode_ms: float


def measure(blocks: Sequence[Gaussian], settings: Settings, keys: int = 1) -> Overhead:
    """Code blocks with some keys and measure what comes out.

    Args:
        blocks: standardised targets with relative entropy above 0, and means that are not all 0.
        settings: how to search.
        keys: the number of keys; the values of different keys are independent.
    """
    sizes = [len(block.mean_D) for block in blocks]
    nats_B = np.array([auxiliary.kl(*block) for block in blocks])
    sent = stream.coder([sum(sizes)])
    gained, squares, projections = [], 0.0, []
    pieces = length = 0
    encode_s = decode_s = 0.0
    beam_search.encode(blocks[:1], Key(), settings)  # tables are made once
    for seed in range(keys):
        key = Key(seed)
        began = time.process_time()
        codes = beam_search.encode(blocks, key, settings)
        encoded = time.process_time()
        values = beam_search.decode(codes, sizes, key)
        decode_s += time.process_time() - encoded
        encode_s += encoded - began
        pieces += sum(len(code.indices) for code in codes)
        length += len(to_bytes(sent, [codes]))
        gained.append(sum(log_ratio(x, block) for x, block in zip(values, blocks, strict=True)))
        for x_D, (mean_D, scale_D) in zip(values, blocks, strict=True):
            residual_D = (x_D - mean_D) / scale_D
            squares += float(residual_D @ residual_D)
            projections.append(float(residual_D @ mean_D) / float(np.linalg.norm(mean_D)))
    nats, times = float(nats_B.sum()), keys * len(blocks)
    return Overhead(
        settings,
        pieces * math.log(settings.candidates) / (nats * keys),
        length * 8 * math.log(2) / (nats * keys),
        float(np.mean(gained)) / nats,
        float(np.std(gained, ddof=1)) / nats / math.sqrt(keys) if keys > 1 else math.nan,
        squares / (keys * sum(sizes)),
        float(np.mean(projections)),
        1e3 * encode_s / times,
        1e3 * decode_s / times,
    )


def log_ratio(x_D: Floats, block: Gaussian) -> float:
    """ln q(x)/p(x) of a value of a block."""
    residual_D = (x_D - block.mean_D) / block.scale_D
    return float((x_D**2 - residual_D**2).sum() / 2 - np.log(block.scale_D).sum())


def target(dimensions: int, scale: float, nats: float) -> Gaussian:
    """A target of equal scales and normal means whose relative entropy is so many nats."""
    mean_D = np.random.default_rng(0).standard_normal(dimensions)
    square = 2 * nats - dimensions * (scale**2 - 1 - 2 * math.log(scale))
    return Gaussian(mean_D * math.sqrt(square / (mean_D @ mean_D)), np.full(dimensions, scale))


T32 = target(32, 0.3, 60.0)
T1000 = target(1000, 0.8, 350.0)


def like_a_model(count: int, seed: int = 0) -> list[Gaussian]:
    """Targets like those of a trained model: 60 to 150 nats in 100 to 1,000 latents.

    Most latents of a model are nearly unused and few carry much, so that −ln s has a gamma
    distribution, here cut at 6. Their means spread as far as posteriors are narrower than priors.
    """
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        dimensions = int(generator.integers(100, 1001))
        nats = generator.uniform(60, 150)
        depth_D = generator.gamma(generator.choice([0.3, 0.6, 1.5]), size=dimensions)
        normal_D = generator.standard_normal(dimensions)

        def scaled(
            factor: float, depth_D: Floats = depth_D, normal_D: Floats = normal_D
        ) -> Gaussian:
            scale_D = np.exp(-np.minimum(factor * depth_D, _DEEPEST))
            return Gaussian(normal_D * np.sqrt(1 - scale_D**2), scale_D)

        low, high = 0.0, 1e3
        for _ in range(50):
            middle = (low + high) / 2
            if auxiliary.kl(*scaled(middle)) > nats:
                high = middle
            else:
                low = middle
        found.append(scaled(high))
    return found
