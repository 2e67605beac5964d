"""`gencomp compress` and `decompress`: one image to a file and back, with the codec of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro

from gencomp.errors import InputError
from gencomp.system import Codec


def compress(
    run: tyro.conf.Positional[Path],
    image: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    overwrite: bool = False,
) -> None:
    """Write an image to a compressed file.

    Args:
        run: Run whose codec to use, for example a sweep's trial.
        image: Image file (PNG, JPEG, WebP, ...).
        out: Compressed file to write.
        overwrite: Replace the file if it exists.
    """
    from cluster.files import write_bytes

    _check_out(out, overwrite)
    codec = _codec(run)
    pixels_HWC = _read_image(image)
    stream = codec.compress(pixels_HWC)
    write_bytes(out, stream)
    height, width = pixels_HWC.shape[:2]
    bits = codec.payload_bits(height, width)
    print(
        f"{out}: {len(stream)} bytes = {bits} bits of code ({bits / (height * width):.4g} bpp)"
        f" + {8 * len(stream) - bits} bits of container"
    )


def decompress(
    run: tyro.conf.Positional[Path],
    stream: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    overwrite: bool = False,
) -> None:
    """Write a compressed file back to a PNG image.

    Args:
        run: Run whose codec wrote the file.
        stream: Compressed file.
        out: PNG file to write.
        overwrite: Replace the file if it exists.
    """
    from cluster.files import write_bytes

    _check_out(out, overwrite)
    if out.suffix.lower() != ".png":
        raise InputError(
            f"{out} must end in .png: another format would not keep the decoded pixels"
        )
    if not stream.is_file():
        raise InputError(f"{stream} does not exist")
    image_HWC = _codec(run).decompress(stream.read_bytes(), name=str(stream))
    write_bytes(out, _png(image_HWC))
    print(f"{out}: {image_HWC.shape[1]}×{image_HWC.shape[0]} pixels")


def _codec(run: Path) -> Codec:
    from cluster.runs import open_run

    codec = open_run(run).system().codec()
    if codec is None:
        recipe = open_run(run).recipe()
        raise InputError(
            f"run {run} ({recipe.system}/{recipe.stage}) has no codec: its stage makes no code"
        )
    return codec


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path} is not a readable image: {error}") from None


def _png(image_HWC: np.ndarray) -> bytes:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


def _check_out(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; add --overwrite to replace it")
    if not path.parent.is_dir():
        raise InputError(f"the directory {path.parent} does not exist")
