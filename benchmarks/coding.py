"""The entropy coder of codec files beside the bare library, and beside another checkout.

    python benchmarks/coding.py [--rounds 5] [--codes 1 96 16384] [--before CHECKOUT]

The symbols are codes of 128 symbols with 2 levels, each of which repeats the one three before in
nine of ten cases; the tables are fitted to 1,000 other codes. 1, 96 and 16,384 codes are those of
images of 64², 512×768 and 8192² pixels. The sides take turns, in alternating order, each in a
process of its own; million symbols a second of CPU time, encoded / decoded:

- `one model`: `constriction` codes all symbols with one model, its fastest way, at 1 bit each;
- `a row each`: `constriction` takes a row of weights for each symbol, all of which are there before
  it starts, also when it decodes;
- `gencomp`: contexts, rows, adaptation, and the check that a stream is the only one of its symbols;
- `before`: the same of another checkout.
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
COUNT, LEVELS = 128, 2
SECONDS = 0.5  # a side repeats its work for so long


def codes(number: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    symbols = generator.integers(0, LEVELS, (number, COUNT))
    for place in range(3, COUNT):
        repeats = generator.random(number) < 0.9
        symbols[repeats, place] = symbols[repeats, place - 3]
    return symbols


def library(symbols: np.ndarray, rows: bool) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    import constriction

    family = constriction.stream.model.Categorical(perfect=False)
    flat = symbols.astype(np.int32).ravel()
    if rows:
        before = np.concatenate([symbols[:, :3], symbols[:, :-3]], axis=1).ravel()
        weights = np.array([[0.95, 0.05], [0.05, 0.95]]) * 2**24
        model: tuple[Any, ...] = (family, weights[before])
        told = model
    else:
        model = (constriction.stream.model.Categorical(np.full(2, 2.0**23), perfect=False),)
        told = (*model, flat.size)

    def encode() -> Any:
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(flat, *model)
        return encoder.get_compressed()

    return encode, lambda data: constriction.stream.queue.RangeDecoder(data).decode(*told)


def ours(symbols: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The coder of the checkout on the path, of this form or of the one with functions."""
    from gencomp.coding import entropy, tables

    known = tables.fit(codes(1000, 0), LEVELS)
    if hasattr(entropy, "EntropyCoder"):
        coder = entropy.EntropyCoder(known)
        return lambda: coder.encode(symbols), lambda data: coder.decode(data, len(symbols))[0]
    return (
        lambda: entropy.encode(symbols, known),  # type: ignore[attr-defined]
        lambda data: entropy.decode(data, known, len(symbols)),  # type: ignore[attr-defined]
    )


def rate(work: Callable[[], Any], size: int) -> float:
    """Million symbols a second of CPU time."""
    work()
    times, began = 0, time.process_time()
    while (spent := time.process_time() - began) < SECONDS:
        work()
        times += 1
    return times * size / spent / 1e6


def run_side(side: str, number: int) -> None:
    symbols = codes(number, 1)
    if side in ("one model", "a row each"):
        encode, decode = library(symbols, side == "a row each")
    else:
        encode, decode = ours(symbols)
    data = encode()
    assert (np.asarray(decode(data)).ravel() == symbols.ravel()).all()
    length = data.nbytes if isinstance(data, np.ndarray) else len(data)
    found = {
        "encode": rate(encode, symbols.size),
        "decode": rate(lambda: decode(data), symbols.size),
        "bits": 8 * length / symbols.size,
    }
    print(json.dumps(found))


def measured(side: str, number: int, checkout: Path) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--side", side, "--codes", str(number)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codes", type=int, nargs="+", default=[1, 96, 16384])
    parser.add_argument("--before", type=Path, default=None, help="another checkout")
    parser.add_argument("--side", default=None, help="measure one side in this process")
    words = parser.parse_args()
    if words.side is not None:
        run_side(words.side, words.codes[0])
        return
    sides = dict.fromkeys(("one model", "a row each", "gencomp"), ROOT)
    if words.before is not None:
        sides["before"] = words.before.resolve()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; medians (least to most)")
    for number in words.codes:
        rates: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for turn in range(words.rounds):
            for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                rates[side].append(measured(side, number, sides[side]))
        for side, found in rates.items():
            told = []
            for way in ("encode", "decode"):
                each = [one[way] for one in found]
                told.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
            print(
                f"{number:>6} codes  {side:<11} {told[0]:>24} / {told[1]:>24} Msymbols/s,"
                f" {found[0]['bits']:.4f} bits a symbol",
                flush=True,
            )


if __name__ == "__main__":
    main()
