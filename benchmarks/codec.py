"""What coding costs: the networks in float64 against torch's own, and the commands.

    python benchmarks/codec.py [--rounds 5] [--parts networks commands] [--run RUN]
        [--against CHECKOUT]

Networks: CPU-seconds a megapixel of the published widths of distribution-preserving compression, by
`gencomp.networks.float64` and by torch's convolutions in float64, in turns in one thread. A matrix
product of float64 beside them says how fast the core is at the time.

Commands: CPU-seconds, children included, of `gencomp compress` and `decompress` with the codec of a
run, by default one of the demo's width, beside those of a process that imports torch and ends; with
`--against`, also of another checkout, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEGAPIXEL_OF_TILES = 1e6 / 64**2
SMALL_IMAGES = 20


def in_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side measures, every other round in reverse order."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name]())
    return found


def show(title: str, found: Mapping[str, list[float]]) -> None:
    print(f"\n{title}")
    for name, values in found.items():
        ends = f"{min(values):.2f} to {max(values):.2f}"
        print(f"  {name:<44} median {statistics.median(values):7.2f}   {ends}")


# --- the networks ---------------------------------------------------------------------------------


def networks(rounds: int, tiles: int) -> None:
    import torch

    from gencomp.networks.dplc import CodeEncoder, Generator, LatentMapper
    from gencomp.networks.float64 import in_float64

    torch.set_num_threads(1)
    mapper = LatentMapper()
    made: dict[str, tuple[Any, tuple[tuple[int, ...], ...]]] = {
        "E": (CodeEncoder(), ((tiles, 3, 64, 64),)),
        "B": (mapper, ((tiles, 8, 4, 4), (tiles, *mapper.noise_shape))),
        "G": (Generator(), ((tiles, 128, 1, 1),)),
    }

    def seconds(network: torch.nn.Module, inputs: list[torch.Tensor]) -> float:
        start = time.process_time()
        with torch.no_grad():
            network(*inputs)
        return (time.process_time() - start) / tiles * MEGAPIXEL_OF_TILES

    def speed() -> float:
        a, b = torch.randn(2, 1024, 1024, dtype=torch.float64)
        start = time.process_time()
        torch.mm(a, b)
        return 2 * 1024**3 / (time.process_time() - start) / 1e9

    for name, (network, shapes) in made.items():
        inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        products, torchs = in_float64(network), network.double().eval()
        for one in (products, torchs):
            seconds(one, inputs)
        sides = {
            "products, CPU-s a megapixel": lambda: seconds(products, inputs),  # noqa: B023
            "torch, CPU-s a megapixel": lambda: seconds(torchs, inputs),  # noqa: B023
            "a matrix product, GFLOP/s": speed,
        }
        found = in_turns(sides, rounds)
        ours, theirs = list(found.values())[:2]
        found["torch / products"] = [b / a for a, b in zip(ours, theirs, strict=True)]
        show(f"{name}, {tiles} tiles at once", found)


# --- the commands ---------------------------------------------------------------------------------


def cpu_seconds(command: list[str], checkout: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        check=True,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def codec_run(work: Path) -> Path:
    """A codec of the demo's width after a few steps: how well it codes does not matter here."""
    words = ["--runs", str(work), "--data.shards", str(work / "photos"), "--training.epochs=null"]
    words += ["--training.steps=2"]
    parent = ["--parents.generator", str(work / "generator")]
    for command in (
        ["shards", "build", "photos", "--out", str(work / "photos"), "--limit", "64"],
        ["train", "dplc_wae_photos", "--name", "generator", *words],
        ["train", "dplc_codec_photos", "--name", "codec", *words, *parent],
    ):
        gencomp = [sys.executable, "-m", "gencomp.cli", *command]
        subprocess.run(gencomp, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return work / "codec"


def commands(rounds: int, chosen: Path | None, against: Path | None) -> None:
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="gencomp-bench-") as name:
        work = Path(name)
        run = chosen.resolve() if chosen else codec_run(work)
        photo, small, out = work / "photo.png", work / "small", work / "out"
        small.mkdir()
        generator = np.random.default_rng(0)
        coarse = generator.integers(0, 256, (SMALL_IMAGES, 8, 8, 3), np.uint8)
        for number, pixels_HWC in enumerate(coarse):
            Image.fromarray(pixels_HWC).resize((64, 64)).save(small / f"{number}.png")
        Image.fromarray(coarse[0]).resize((768, 512)).save(photo)
        one, file = small / "0.png", work / "one.gcp"
        works = {
            "compress one image of 64×64": ["compress", run, one, file],
            "decompress it": ["decompress", run, file, work / "one.png"],
            "compress one image of 768×512": ["compress", run, photo, work / "photo.gcp"],
            f"compress {SMALL_IMAGES} images of 64×64": ["compress", run, small, out],
        }
        checkouts = {"here": ROOT, **({"there": against} if against else {})}
        python = [sys.executable, "-c", "import torch"]
        sides = {"import torch": lambda: cpu_seconds(python, ROOT)}
        for (what, words), (where, checkout) in itertools.product(works.items(), checkouts.items()):
            command = [sys.executable, "-m", "gencomp.cli", *map(str, words), "--overwrite"]

            def measure(command: list[str] = command, checkout: Path = checkout) -> float:
                return cpu_seconds(command, checkout)

            sides[f"{what}, {where}" if against else what] = measure
        # The files of one checkout may be of another format than those of the other.
        if against:
            sides = {name: side for name, side in sides.items() if "decompress" not in name}
        show("Commands, CPU-seconds", in_turns(sides, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=4, help="tiles that are computed at once")
    parser.add_argument("--parts", nargs="+", default=["networks", "commands"])
    parser.add_argument("--run", type=Path, help="a run whose codec the commands use")
    parser.add_argument("--against", type=Path, help="another checkout, for the commands")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    if "networks" in arguments.parts:
        networks(arguments.rounds, arguments.tiles)
    if "commands" in arguments.parts:
        commands(arguments.rounds, arguments.run, arguments.against and arguments.against.resolve())
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
