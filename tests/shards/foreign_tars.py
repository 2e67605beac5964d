"""Tars as others write them, for the tests of the scan, the foreign index and the reader."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(i: int, size: tuple[int, int] = (6, 5)) -> bytes:
    """A picture of one colour: (i, 0, 0)."""
    return encoded(Image.new("RGB", size, (i, 0, 0)))


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def grey(values: np.ndarray) -> bytes:
    """A map of uint8 or uint16 as a PNG of that depth."""
    return encoded(Image.fromarray(values))


def palette(values: np.ndarray) -> bytes:
    """A map of uint8 as indices of a palette."""
    image = Image.fromarray(values)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return encoded(image)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
