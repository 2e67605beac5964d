"""gencomp's reader beside its own limit and beside other data loaders, on the same images.

    python benchmarks/loaders.py [--seconds 4] [--repeats 5] [--kodak DIR]
                                 [--mosaic PYTHON] [--litdata PYTHON] [--grain PYTHON]
                                 [--out loaders.json]

Every reader shuffles, decodes to uint8 RGB arrays and stacks batches, with 1 and with 2 loader
workers (threads of ours, processes of the others), in turns, each in a process of its own
(`benchmarks/peers/loader.py`):

- `gencomp`: `shards.reading.stream.training_batches`, what training uses;
- `pread`: raw `os.pread` at known offsets and our decoder, nothing else: the limit;
- `imagefolder`: torch's DataLoader over single files, decoded by Pillow;
- `webdataset`: WebDataset and WebLoader over our tars, decoded by Pillow; `webdataset_ours`: the
  same with our decoder, so that the ratio is that of the readers;
- `grain`: Grain over our tars by raw `os.pread` with our decoder, its workers being threads;
- `mosaic`, `litdata`: MosaicML Streaming and LitData, decoded by Pillow.

The last three come from environments of their own: give a Python that has `grain`,
`mosaicml-streaming` or `litdata`; otherwise they are left out.

CPU time is that of the process and all its children. The images are smooth noise that compresses
about as well as photographs; `--kodak` names a folder with the Kodak PNGs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

LOADER = Path(__file__).parent / "peers" / "loader.py"
ROOT = Path(__file__).resolve().parent.parent


class Kind(NamedTuple):
    """A set of images: (height, width), the file format, how many, and images in a batch."""

    name: str
    size: tuple[int, int]
    extension: str
    count: int
    batch: int


KINDS = (
    Kind("64x64 JPEG", (64, 64), "jpg", 4000, 64),
    Kind("256x256 JPEG", (256, 256), "jpg", 2000, 64),
    Kind("768x512 PNG", (512, 768), "png", 48, 1),
)


def write_images(folder: Path, kind: Kind, kodak: Path | None) -> None:
    folder.mkdir(parents=True)
    if kodak is not None and kind.extension == "png":
        found = sorted(kodak.glob("*.png"))
        for i in range(kind.count):
            (folder / f"{i:06d}.png").write_bytes(found[i % len(found)].read_bytes())
        return
    rng, (height, width) = np.random.default_rng(0), kind.size
    for i in range(kind.count):
        small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.integers(-4, 5, (height, width, 3))
        pixels = (np.asarray(smooth, dtype=np.int16) + noise).clip(0, 255).astype(np.uint8)
        quality = {"quality": 90} if kind.extension == "jpg" else {}
        Image.fromarray(pixels).save(folder / f"{i:06d}.{kind.extension}", **quality)


def call(python: str, *words: str) -> str:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    done = subprocess.run(
        [python, str(LOADER), *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def measure(
    kind: Kind, directory: Path, pythons: dict[str, str], words: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Samples per CPU-second and per second of every reader and number of workers."""
    images = directory / "images"
    write_images(images, kind, words.kodak)
    for reader in {"gencomp", "mosaic", "litdata"} & pythons.keys():
        call(pythons[reader], "prepare", reader, str(images), str(directory / reader))
    ours = ("gencomp", "pread", "webdataset", "webdataset_ours", "grain")
    data = dict.fromkeys(ours, directory / "gencomp")
    data |= {
        "imagefolder": images,
        "mosaic": directory / "mosaic",
        "litdata": directory / "litdata",
    }
    turns = [(reader, workers) for workers in (1, 2) for reader in pythons]
    rates: dict[str, dict[str, list[float]]] = {
        f"{reader} × {workers}": {"cpu": [], "wall": []} for reader, workers in turns
    }
    for repeat in range(words.repeats):
        for reader, workers in turns if repeat % 2 == 0 else turns[::-1]:
            got = json.loads(
                call(
                    pythons[reader], "run", reader, str(data[reader]), "--batch", str(kind.batch),
                    "--workers", str(workers), "--seconds", str(words.seconds),
                ).splitlines()[-1]
            )  # fmt: skip
            name = f"{reader} × {workers}"
            rates[name]["cpu"].append(got["samples"] / got["cpu_s"])
            rates[name]["wall"].append(got["samples"] / got["wall_s"])
    return rates


def show(kind: Kind, rates: dict[str, dict[str, list[float]]]) -> None:
    print(f"\n{kind.name}: medians of {len(rates['pread × 1']['cpu'])} turns")
    print(
        f"{'reader × workers':<20}{'per CPU-s':>11}{'of pread':>10}{'min':>7}{'max':>7}"
        f"{'per s':>10}"
    )
    for name, found in rates.items():
        limit = rates[f"pread × {name[-1]}"]["cpu"]
        ratios = [a / b for a, b in zip(found["cpu"], limit, strict=True)]
        print(
            f"{name:<20}{statistics.median(found['cpu']):>11.0f}{statistics.median(ratios):>10.3f}"
            f"{min(ratios):>7.2f}{max(ratios):>7.2f}{statistics.median(found['wall']):>10.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="wall seconds a turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kodak", type=Path, default=None, help="folder of the Kodak PNGs")
    parser.add_argument("--mosaic", default=None, help="a Python that has mosaicml-streaming")
    parser.add_argument("--litdata", default=None, help="a Python that has litdata")
    parser.add_argument("--out", type=Path, default=None, help="write a JSON file")
    parser.add_argument("--grain", default=None, help="a Python that has grain and our packages")
    words = parser.parse_args()
    here = ("pread", "gencomp", "imagefolder", "webdataset", "webdataset_ours")
    pythons = dict.fromkeys(here, sys.executable)
    others = ("grain", "mosaic", "litdata")
    pythons |= {name: p for name in others if (p := getattr(words, name)) is not None}
    result: dict = {"python": platform.python_version(), "cpus": os.cpu_count()}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as directory:
            result[kind.name] = measure(kind, Path(directory), pythons, words)
        show(kind, result[kind.name])
    if words.out is not None:
        words.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
