"""Relative entropy coding beside the plain algorithm, and the time of a layer of latents.

    python benchmarks/relative_entropy.py [--rounds 5] [--parts targets layers efforts]

Targets: CPU milliseconds a block to encode and to decode, and what is reached of ln q/p, for

- T32: 32 latents of scale 0.3 with 60 nats, 20 pieces of 36 candidates by the power law, with 10
  and 20 beams, alone and in batches of 100;
- T1000: 1,000 latents of scale 0.8 with 350 nats, 117 pieces of 36 candidates, 20 beams;

each by gencomp and by `plain`, the published search as its description reads: fresh normal
candidates for every beam, and every sum scored by the two log densities. Both sides take turns in
one process and one thread. Efforts: the same targets, and blocks like those of a trained model, by
the settings that users name. Layers: latents like those of a photograph of 768×512 pixels at 0.4
bits a pixel, 300,000 of them with 109,000 nats, encoded and decoded.

A matrix product of float32 and additions of short arrays say how fast the core is at the time.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from gencomp.coding.coders import to_bytes
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.relative_entropy import (
    EFFORTS,
    Key,
    Plan,
    auxiliary,
    coder,
    decode,
    decode_layer,
    encode_layer,
    schedules,
    search,
)
from gencomp.coding.relative_entropy.overhead import (
    T32,
    T1000,
    like_a_model,
    log_ratio,
    measure,
)

SECONDS = 0.3  # a side repeats its work for so long in a round


def plain(target: Gaussian, times_K: np.ndarray, count: int, beams: int, seed: int) -> np.ndarray:
    """The value of a block by the plain search, which needs no tables and no tricks."""
    mean_D, scale_D = target
    generator = np.random.default_rng([seed, 1])  # not that of the targets
    sums_BD, before = np.zeros((1, len(mean_D))), 0.0
    for time_k in times_K:
        shape = (count, len(sums_BD), len(mean_D))
        added_NBD = math.sqrt(time_k - before) * generator.standard_normal(shape)
        all_SD = (sums_BD + added_NBD).reshape(-1, len(mean_D))
        centre_D, variance_D = auxiliary.target_of_sum(mean_D, scale_D, time_k)
        log_q_SD = -((all_SD - centre_D) ** 2) / (2 * variance_D) - np.log(variance_D) / 2
        log_p_SD = -(all_SD**2) / (2 * time_k) - math.log(time_k) / 2
        best = np.argsort(-(log_q_SD - log_p_SD).sum(axis=1), kind="stable")[:beams]
        sums_BD, before = all_SD[best], time_k
    return sums_BD[0]  # type: ignore[no-any-return]


def milliseconds(work: Callable[[], object], blocks: int) -> float:
    """CPU time of a block."""
    times, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS or not times:
        work()
        times += 1
    return 1e3 * spent / times / blocks


def in_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side measures, every other round in reverse order."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name]())
    return found


def said(values: list[float]) -> str:
    return f"{statistics.median(values):9.3f} ({min(values):.3f} to {max(values):.3f})"


def yardstick() -> str:
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    b = a[:20, :320].copy()

    def product() -> float:
        return 2e-9 * 1024**3 / (milliseconds(lambda: a @ a, 1) / 1e3)

    def adding() -> float:
        return milliseconds(lambda: [b + b for _ in range(1000)], 1000) * 1e3

    return f"a matrix product {product():.0f} GFLOP/s, a sum of 20 × 320 values {adding():.2f} µs"


def targets(rounds: int) -> None:
    for name, target, pieces, beams, batch in (
        ("T32", T32, 20, 10, 100),
        ("T32", T32, 20, 20, 100),
        ("T1000", T1000, 117, 20, 10),
    ):
        made, size = Plan(schedules.POWER_LAW, pieces), len(target.mean_D)
        times_K = schedules.times(*made)
        (code,) = search([target], [made], Key(1), 36, beams)

        def ours(
            blocks: int, target: Gaussian = target, made: Plan = made, beams: int = beams
        ) -> float:
            work = [target] * blocks, [made] * blocks
            return milliseconds(lambda: search(*work, Key(1), 36, beams), blocks)

        def theirs(
            target: Gaussian = target, times_K: np.ndarray = times_K, beams: int = beams
        ) -> float:
            return milliseconds(lambda: plain(target, times_K, 36, beams, 0), 1)

        sides = {
            "plain": theirs,
            "gencomp, alone": lambda ours=ours: ours(1),
            f"gencomp, {batch} at once": lambda ours=ours, batch=batch: ours(batch),
            "gencomp, decoding": lambda code=code, size=size: milliseconds(
                lambda: decode([code], [size], Key(1)), 1
            ),
        }
        found = in_turns(sides, rounds)
        print(f"\n{name}, {pieces} pieces of 36, {beams} beams: CPU ms a block")
        for side, values in found.items():
            ratios = [b / a for a, b in zip(values, found["plain"], strict=True)]
            print(f"  {side:<24}{said(values)}   plain / this: {statistics.median(ratios):.1f}")
        samples = 30 if size < 100 else 6
        by_plain = [
            log_ratio(plain(target, times_K, 36, beams, seed), target) for seed in range(samples)
        ]
        by_ours = []
        for seed in range(samples):
            codes = search([target], [made], Key(seed), 36, beams)
            by_ours.append(log_ratio(decode(codes, [size], Key(seed))[0], target))
        for side, ratios in (("plain", by_plain), ("gencomp", by_ours)):
            error = statistics.stdev(ratios) / math.sqrt(samples)
            print(f"  ln q/p by {side:<14}{statistics.mean(ratios):9.1f} ± {error:.1f}")


def efforts(rounds: int) -> None:
    kinds = {
        "T32 × 100": [T32] * 100,
        "T1000 × 5": [T1000] * 5,
        "like a model's × 60": like_a_model(60),
    }
    print("\nEfforts: indices / KL, bytes / KL, ln q/p / KL, variance; CPU ms a block and µs a nat")
    for name, blocks in kinds.items():
        nats = statistics.mean(auxiliary.kl(*block) for block in blocks)
        for effort, settings in EFFORTS.items():
            found = measure(blocks, settings, keys=rounds)
            print(
                f"  {name:<20}{effort:<10}{found.index_rate:.3f}  {found.file_rate:.3f}"
                f"  {found.reached:.3f} ± {found.reached_error:.3f}  {found.variance:.3f}"
                f"  {found.encode_ms:7.2f} / {found.decode_ms:.2f} ms"
                f"  {1e3 * found.encode_ms / nats:6.1f} µs",
                flush=True,
            )


def layers(rounds: int) -> None:
    generator = np.random.default_rng(0)
    scale_D = np.exp(-np.minimum(generator.gamma(0.3, scale=1.21, size=300_000), 6))
    target = Gaussian(generator.standard_normal(300_000) * np.sqrt(1 - scale_D**2), scale_D)
    prior = Gaussian(np.zeros(300_000), np.ones(300_000))
    expected_D = np.full(300_000, 0.363)
    nats = auxiliary.kl(*target)
    print(f"\nA layer of 300,000 latents with {nats:.0f} nats: CPU seconds")
    for effort, settings in EFFORTS.items():
        for _ in range(1 if effort == "best" else min(rounds, 2)):
            began = time.process_time()
            codes = encode_layer(target, prior, expected_D, Key(1), settings)
            searched = time.process_time()
            data = to_bytes(coder([300_000]), [codes])
            coded = time.process_time()
            z_D = decode_layer(codes, prior, expected_D, Key(1))
            decoded = time.process_time()
            bits = 8 * len(data) - sum(len(c.indices) for c in codes) * math.log2(
                codes[0].candidates
            )
            print(
                f"  {effort:<10}{len(codes)} blocks: encode {searched - began:.2f},"
                f" range coder {coded - searched:.3f}, decode {decoded - coded:.2f};"
                f" bytes / KL {8 * len(data) * math.log(2) / nats:.3f},"
                f" {bits / len(codes):.2f} bits a block beside the indices,"
                f" ln q/p / KL {log_ratio(z_D, target) / nats:.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["targets", "efforts", "layers"])
    words = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    print(f"{datetime.date.today()}; {load}; {yardstick()}")
    for part in words.parts:
        {"targets": targets, "efforts": efforts, "layers": layers}[part](words.rounds)
    print(f"\nload {os.getloadavg()[0]:.1f}; {yardstick()}")


if __name__ == "__main__":
    main()
