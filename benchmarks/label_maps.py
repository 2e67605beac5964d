"""The coder of label maps beside PNG, lossless WebP and JPEG XL: bytes, and speed of one core.

    python benchmarks/label_maps.py [MAPS ...] [--rounds 3] [--jpeg-xl PYTHON]

MAPS are folders of label maps (PNG files of ids); without any, the eight scenes that the tests make
are measured. PNG has an optimised palette, WebP method 6 and quality 100, JPEG XL effort 9 and 10;
JPEG XL needs an interpreter that imports `pillow_jxl`, which is no dependency of gencomp. Every map
is coded alone. Speeds are million pixels a second of CPU time, median of the rounds, encoded /
decoded.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 256
# Reads maps and prints the bytes of each effort; it runs in an interpreter of its own.
JPEG_XL = """
import io, sys
import numpy as np, pillow_jxl
from PIL import Image
maps = np.load(sys.argv[1])
for effort in (9, 10):
    size = 0
    for name in maps.files:
        stream = io.BytesIO()
        Image.fromarray(maps[name]).save(stream, "JXL", lossless=True, effort=effort)
        size += len(stream.getvalue())
    print(size)
"""


def scenes() -> list[np.ndarray]:
    sys.path.insert(0, str(ROOT))
    from tests.gencomp.coding.street_scenes import room, street

    streets = [street(seed, 512, 1024)[0] for seed in range(4)]
    return streets + [room(seed, 512, 683) for seed in range(4)]


def read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)).astype(np.uint8) for path in sorted(folder.glob("*.png"))]


def png(labels: np.ndarray) -> int:
    ids, places = np.unique(labels, return_inverse=True)
    image = Image.fromarray(places.reshape(labels.shape).astype(np.uint8), mode="P")
    image.putpalette([int(value) for value in ids for _ in range(3)])
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return len(stream.getvalue())


def webp(labels: np.ndarray) -> int:
    stream = io.BytesIO()
    image = Image.fromarray(labels).convert("RGB")
    image.save(stream, "WEBP", lossless=True, quality=100, method=6)
    return len(stream.getvalue())


def jpeg_xl(maps: Sequence[np.ndarray], python: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.npz"
        np.savez(path, *maps)
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        words = [python, "-c", JPEG_XL, str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=clean)
    sizes = zip((9, 10), done.stdout.split(), strict=True)
    return {f"JPEG XL, effort {effort}": int(size) for effort, size in sizes}


def ours(maps: Sequence[np.ndarray], rounds: int) -> tuple[int, float, float]:
    """Bytes, and million pixels a second of encoding and of decoding."""
    from gencomp.coding.label_maps import decode, encode

    pixels = sum(labels.size for labels in maps)
    encode(maps[0], CLASSES)
    encoding, decoding = [], []
    for _ in range(rounds):
        began = time.process_time()
        coded = [encode(labels, CLASSES) for labels in maps]
        between = time.process_time()
        found = [decode(c, *m.shape, CLASSES) for c, m in zip(coded, maps, strict=True)]
        encoding.append(pixels / (between - began) / 1e6)
        decoding.append(pixels / (time.process_time() - between) / 1e6)
    assert all(np.array_equal(a, b) for a, b in zip(found, maps, strict=True))
    return sum(map(len, coded)), statistics.median(encoding), statistics.median(decoding)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path, nargs="*", help="folders of label maps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jpeg-xl", default=None, help="an interpreter that imports pillow_jxl")
    words = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for name, maps in {str(p): read(p) for p in words.maps}.items() or {"scenes": scenes()}.items():
        size, encoding, decoding = ours(maps, words.rounds)
        others = {"PNG": sum(map(png, maps)), "WebP": sum(map(webp, maps))}
        if words.jpeg_xl is not None:
            others |= jpeg_xl(maps, words.jpeg_xl)
        print(
            f"{name}: {len(maps)} maps, gencomp {size} bytes, {encoding:.2f} / {decoding:.2f}"
            " Mpixel/s"
        )
        for other, its in others.items():
            print(f"    {other:<18} {its} bytes, gencomp / it {size / its:.3f}", flush=True)


if __name__ == "__main__":
    main()
