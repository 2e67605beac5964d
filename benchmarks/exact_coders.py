"""The residual coder, bits-back coding and universal quantization beside the bare library.

    python benchmarks/exact_coders.py [--rounds 3]

Million symbols a second of CPU time, encoded / decoded, in one thread; the sides take turns in
alternating order, each in a process of its own:

- `library, one model`: `constriction`'s range coder codes the values of an image with one model;
- `library, a row each`: it takes a row of 256 weights for each value, all of which are there before
  it starts;
- `residual`: `gencomp.coding.logistic` of the same values, from means and a scale to bytes;
- `bits-back`: latents popped from their posterior and pushed by their prior, without a network;
- `universal`: latents by universal quantization.

Images have 3,072 and 786,432 values, those of 32² and 512² pixels; latents are as many. Priors are
as wide as the posteriors to 10 times as wide.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("library, one model", "library, a row each", "residual", "bits-back", "universal")
SCALE = 0.02
SECONDS = 0.5  # a side repeats its work for so long
_AT_ONCE = 1 << 14

Work = tuple[Callable[[], Any], Callable[[Any], Any]]


def means_and_values(number: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    smooth_N = 0.4 * np.sin(np.arange(number) / 5000) + generator.normal(0, 0.03, number)
    mean_N = np.clip(smooth_N, -0.5 + 1 / 512, 0.5 - 1 / 512)
    x_N = mean_N + SCALE * generator.logistic(size=number)
    return mean_N, np.clip(np.floor(256 * (x_N + 0.5)), 0, 255).astype(np.int64)


def library(number: int, rows: bool) -> Work:
    import constriction

    _, values_N = means_and_values(number)
    family = constriction.stream.model.Categorical(perfect=False)
    counts_L = np.bincount(values_N, minlength=256) + 1.0
    symbols_N = values_N.astype(np.int32)
    if not rows:
        model = constriction.stream.model.Categorical(counts_L, perfect=False)
        blocks: list[tuple[slice, tuple[Any, ...]]] = [(slice(0, number), (model,))]
    else:
        # One block of rows serves all blocks of values: there is no room for rows of all values.
        rows_BL = np.tile(counts_L, (min(number, _AT_ONCE), 1))
        blocks = [
            (slice(first, min(number, first + _AT_ONCE)), (family, rows_BL))
            for first in range(0, number - number % len(rows_BL), _AT_ONCE)
        ]

    def encode() -> Any:
        encoder = constriction.stream.queue.RangeEncoder()
        for part, model in blocks:
            encoder.encode(symbols_N[part], *model)
        return encoder.get_compressed()

    def decode(data: Any) -> Any:
        decoder = constriction.stream.queue.RangeDecoder(data)
        for part, model in blocks:
            decoder.decode(*model, *(() if rows else (part.stop - part.start,)))

    return encode, decode


def residual(number: int) -> Work:
    from gencomp.coding import logistic
    from gencomp.coding.coders import from_bytes, to_bytes
    from gencomp.coding.latent_model import Logistic

    mean_N, values_N = means_and_values(number)
    likelihood = Logistic(mean_N, SCALE)

    def decode(data: bytes) -> None:
        assert np.array_equal(from_bytes(logistic.coder(likelihood), data), values_N)

    return lambda: to_bytes(logistic.coder(likelihood), values_N), decode


def bits_back(number: int) -> Work:
    from gencomp.coding import latent_bins
    from gencomp.coding.ans import Stack
    from gencomp.coding.latent_model import Gaussian

    generator = np.random.default_rng(0)
    scale_D = 10 ** -generator.uniform(0, 1, number)
    posterior = Gaussian(generator.standard_normal(number) * np.sqrt(1 - scale_D**2), scale_D)
    bins = latent_bins.bins(6)

    def encode() -> bytes:
        stack = Stack()
        places_D = latent_bins.pop(stack, posterior, bins)
        stack.push(places_D, bins.frequencies_L)
        return stack.data()

    def decode(data: bytes) -> None:
        stack = Stack.read(data)
        places_D = stack.pop(bins.frequencies_L, count=number)
        latent_bins.push(stack, places_D, posterior, bins)
        stack.finish()

    return encode, decode


def universal(number: int) -> Work:
    from gencomp.coding import universal_quantization as uq
    from gencomp.coding.dither import unit_dither
    from gencomp.coding.latent_model import rounded
    from gencomp.coding.range_coder import Decoder, Encoder

    generator = np.random.default_rng(0)
    prior = rounded(np.zeros(number), np.sqrt(1 / 12) * 10 ** generator.uniform(0, 1, number))
    mean_D = generator.normal(0, prior.scale_D)
    dither_D = unit_dither(0, [0], number)[0]

    def encode() -> bytes:
        encoder = Encoder()
        uq.encode(encoder, mean_D, prior, dither_D)
        return encoder.data()

    def decode(data: bytes) -> None:
        decoder = Decoder(data)
        uq.decode(decoder, prior, dither_D)
        decoder.finish()

    return encode, decode


def work_of(side: str, number: int) -> Work:
    if side.startswith("library"):
        return library(number, rows="row" in side)
    return {"residual": residual, "bits-back": bits_back, "universal": universal}[side](number)


def rate(work: Callable[[], Any], size: int) -> float:
    """Million symbols a second of CPU time."""
    work()
    times, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        work()
        times += 1
    return times * size / spent / 1e6


def run_side(side: str, number: int) -> None:
    encode, decode = work_of(side, number)
    data = encode()
    rates = {"encode": rate(encode, number), "decode": rate(lambda: decode(data), number)}
    print(json.dumps(rates))


def measured(side: str, number: int) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--side", side, "--number", str(number)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=None, help="the number of values")
    parser.add_argument("--side", default=None, help="measure one side in this process")
    words = parser.parse_args()
    if words.side is not None:
        run_side(words.side, words.number)
        return
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; medians (least to most)")
    for number in [words.number] if words.number else [3 << 10, 3 << 18]:
        rates: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for turn in range(words.rounds):
            for side in SIDES[:: 1 if turn % 2 == 0 else -1]:
                rates[side].append(measured(side, number))
        for side, found in rates.items():
            told = []
            for way in ("encode", "decode"):
                each = [one[way] for one in found]
                told.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
            print(f"{number:>8} {side:<20} {told[0]:>24} / {told[1]:>24} Msymbols/s", flush=True)


if __name__ == "__main__":
    main()
