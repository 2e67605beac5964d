"""Images, compressed files and their names, as `gencomp compress` and `decompress` use them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from gencomp.errors import InputError
from shards.reading import decode

SUFFIX = ".gcp"
_ORIGIN = "gencomp"  # the key of the PNG text that names the stream and the draw of an image


class Job(NamedTuple):
    """A file to read, and the file to write for it."""

    source: Path
    target: Path


def image_jobs(folder: Path, out: Path) -> list[Job]:
    """A job for each image file below a folder: sub/a.png is written to sub/a.png.gcp.

    Raises:
        InputError: The folder holds no images.
    """
    endings = {f".{ending}" for ending in decode.EXTENSIONS}
    names = _below(folder, endings)
    if not names:
        raise InputError(f"{folder} holds no images ({', '.join(sorted(endings))})")
    return [Job(folder / name, out / f"{name}{SUFFIX}") for name in names]


def stream_jobs(folder: Path, out: Path) -> list[Job]:
    """A job for each compressed file below a folder: sub/a.png.gcp is written to sub/a.png.

    Raises:
        InputError: The folder holds no compressed files, or two of them would become one image.
    """
    names = _below(folder, {SUFFIX})
    if not names:
        raise InputError(f"{folder} holds no compressed files ({SUFFIX})")
    sources: dict[Path, Path] = {}
    for name in names:
        inner = name.with_suffix("")
        image = inner if inner.suffix.lower() == ".png" else inner.with_name(f"{inner.name}.png")
        if image in sources:
            raise InputError(
                f"{folder / sources[image]} and {folder / name} would both become {image}: rename"
                " one"
            )
        sources[image] = name
    return [Job(folder / name, out / image) for image, name in sources.items()]


def require_place(path: Path, overwrite: bool) -> None:
    """Raise `InputError` for a file that exists, and for a directory that does not exist."""
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; add --overwrite to replace it")
    _require_parent(path)


def require_folder(path: Path) -> None:
    """Raise `InputError` for a path where no folder can be made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, but many files need a folder to go to")
    _require_parent(path)


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def read_image(path: Path) -> np.ndarray:
    """The pixels of an image, uint8 RGB [H, W, 3], turned upright by the file's orientation tag.

    Raises:
        InputError: The file is no image that can be read.
    """
    try:
        return np.asarray(ImageOps.exif_transpose(decode.open_rgb(read(path))))
    except (ValueError, SyntaxError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable image: {error}") from None


def origin(codec_id: str, fingerprint: bytes, draw: int, stream: bytes) -> str:
    """A text that names what an image was decoded from: model, draw of the noise, and stream."""
    digest = hashlib.blake2b(stream, digest_size=16).hexdigest()
    return f"{codec_id} {fingerprint.hex()} draw {draw} of {digest}"


def png(image_HWC: np.ndarray, comes_from: str) -> bytes:
    """The bytes of a PNG file of the pixels, which holds their origin as a text."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(_ORIGIN, comes_from)
    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", pnginfo=texts)
    return buffer.getvalue()


def is_whole_png(path: Path, comes_from: str) -> bool:
    """Whether a file is an undamaged image of that origin."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = image.info.get(_ORIGIN)
            image.verify()
    except (OSError, SyntaxError, ValueError, struct.error):
        return False
    return bool(found == comes_from)


def _below(folder: Path, endings: set[str]) -> Sequence[Path]:
    """The files with one of these endings, relative to the folder, sorted; hidden ones left out."""
    return sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()
    )


def _require_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"the directory {path.parent} does not exist")
