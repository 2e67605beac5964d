"""Networks in TorchScript files, named by path and identified by SHA-256; none is downloaded.

Beside files there are feature networks that a package ships (see `packaged_networks`).

A feature network maps images [B, 3, H, W] to one vector each. Most published Fréchet Inception
distances of PyTorch code use a TorchScript translation of TensorFlow's Inception of 2015-12-05:

    https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt

It takes uint8 RGB images of any size, resizes them inside the network, and with
`return_features=True` answers 2048 features. Its publisher states no hash; `INCEPTION_SHA256` is
the digest that independent public projects (k-diffusion among them) pin for that address and a file
of 95,607,719 bytes. It was taken from them, not computed from the file. A file with another hash is
used when its own hash is given.

An LPIPS network maps two batches of images, float32 [B, 3, H, W] on [−1, 1], to one distance for
each pair. No hash is known: the package `lpips` ships weights, and a file is made from it by
`torch.jit.trace(lpips.LPIPS(net="alex").eval(), (x, x)).save("lpips.pt")`; `sha256sum` prints its
hash.

A DISTS network (Ding et al. 2020) maps two such batches on [0, 1] to one distance for each pair; a
file is made alike from the package `DISTS-pytorch`.

A segmentation network maps uint8 images [B, 3, H, W] of any size to a score for each of K classes,
[B, K, H, W].
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.evaluation import packaged_networks
from gencomp.evaluation.feature_inputs import INCEPTION_SHA256, PACKAGED, Input

FEATURES = "features"  # the option of feature networks

INCEPTION_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
# A constant of a class in the code of a TorchScript file.
_CONSTANT = re.compile(rb"  \w+ : Final\[.*\] = .*")


def checked_sha256(path: Path, stated: str | None, what: str) -> str:
    """The SHA-256 of a network's file, which must be the stated one or else the known Inception's.

    Args:
        path: the file, or the name of a feature network that a package ships.
        stated: the 64 hexadecimal digits of the hash that the user has stated.
        what: the option that names the file, for messages.

    Raises:
        InputError: the file or the package does not exist, or it has another hash.
    """
    if what == FEATURES and str(path) in PACKAGED:
        stated = PACKAGED[str(path)] if stated is None else stated
        return _required(packaged_networks.checked_sha256(str(path)), path, stated, what)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"--{what} {path} cannot be read: {error.strerror}") from None
    if stated is None:
        if found != INCEPTION_SHA256:
            raise InputError(
                f"--{what} {path} has the SHA-256 {found}, which is no network known here; "
                f"if it is the one you mean, add --{what}-sha256 {found}"
            )
        return found
    return _required(found, path, stated, what)


def _required(found: str, path: Path, stated: str, what: str) -> str:
    if found != stated.lower():
        raise InputError(f"--{what} {path} has the SHA-256 {found}, not {stated.lower()}")
    return found


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that maps images to features.

    Attributes:
        module: the network in evaluation mode, on its device.
        input: the form of the images that the network is given.
        name: the name of the network's file, for messages.
    """

    module: Any
    input: Input
    name: str

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """The features of uint8 images, float32 [B, D] on the CPU.

        Raises:
            InputError: the network refuses the images, or does not answer one finite vector each.
        """
        images = images_BCHW if self.input == "uint8" else _signed_299(images_BCHW)
        wanted = {"return_features": True} if _takes(self.module, "return_features") else {}
        features = _answer(self.module, self.name, images, **wanted)
        if features.ndim < 2 or len(features) != len(images_BCHW):
            raise InputError(
                f"{self.name} answers {list(features.shape)} for {len(images_BCHW)} images, but it "
                "must answer one vector an image"
            )
        return _finite(features.flatten(1), self.name)


@dataclass(frozen=True)
class PerceptualNetwork:
    """A network that maps pairs of images to distances, such as LPIPS or DISTS.

    Attributes:
        module: the network in evaluation mode, on its device.
        name: the name of the network's file, for messages.
        signed: whether the network is given images on [−1, 1]; otherwise they are on [0, 1].
    """

    module: Any
    name: str
    signed: bool = True

    def __call__(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """The distances of pairs of uint8 images, float64 [B] on the CPU.

        Raises:
            InputError: the network refuses the images, or does not answer one number a pair.
        """
        pair = (a_BCHW, b_BCHW)
        a, b = (x.float() / 127.5 - 1 if self.signed else x.float() / 255 for x in pair)
        answer = _answer(self.module, self.name, a, b)
        if answer.numel() != len(a_BCHW):
            raise InputError(
                f"{self.name} answers {list(answer.shape)} for {len(a_BCHW)} pairs, but it must "
                "answer one number a pair"
            )
        return _finite(answer.flatten(), self.name).double()


@dataclass(frozen=True)
class SegmentationNetwork:
    """A network that says which class each pixel belongs to."""

    module: Any
    name: str

    def __call__(self, images_BCHW: Tensor) -> tuple[Tensor, int]:
        """The classes of the pixels of uint8 images, int64 [B, H, W], and the number K of classes.

        Raises:
            InputError: the network refuses the images, or does not answer scores for each pixel.
        """
        scores = _answer(self.module, self.name, images_BCHW)
        batch, _, *size = images_BCHW.shape
        if scores.ndim != 4 or len(scores) != batch or list(scores.shape[2:]) != size:
            raise InputError(
                f"{self.name} answers {list(scores.shape)} for images {list(images_BCHW.shape)},"
                " but it must answer [images, classes, height, width]"
            )
        return scores.argmax(1), scores.shape[1]


def load(path: Path, device: torch.device) -> Any:
    """Load a TorchScript network, or one that a package ships, in evaluation mode.

    Raises:
        InputError: the file is not a TorchScript network.
    """
    if str(path) in PACKAGED:
        return packaged_networks.load(str(path), device)
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a TorchScript network: {reason}") from None


def to_file(network: nn.Module) -> bytes:
    """The content of a TorchScript file with a network.

    It depends on the code and the weights of the network and on the version of torch, but neither
    on the file's name, nor on the place where the code is installed, nor on the process.
    """
    written = io.BytesIO()
    with warnings.catch_warnings():
        # Feature networks are exchanged in this format, whatever torch recommends for deployment.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), written)
    content = io.BytesIO()
    with zipfile.ZipFile(written) as whole, zipfile.ZipFile(content, "w") as kept:
        for entry in whole.infolist():
            # Both are optional; they hold, or depend on, the paths of source files.
            if not entry.filename.endswith((".debug_pkl", "/.data/serialization_id")):
                data = whole.read(entry)
                if entry.filename.endswith(".py"):
                    data = _with_sorted_constants(data)
                kept.writestr(zipfile.ZipInfo(entry.filename), data)
    return content.getvalue()


def _with_sorted_constants(code: bytes) -> bytes:
    """The code of a TorchScript file with the constants of each class in the order of their names.

    TorchScript writes them in the order of a set, which the hash seed of the process decides.
    """
    groups = groupby(code.split(b"\n"), lambda line: _CONSTANT.fullmatch(line) is not None)
    return b"\n".join(
        line for constants, lines in groups for line in (sorted(lines) if constants else lines)
    )


def _answer(module: Any, name: str, *images: Tensor, **wanted: bool) -> Tensor:
    # The optimising executor profiles its first calls and then rounds differently, so a continued
    # evaluation would differ in the last bits.
    try:
        with torch.no_grad(), torch.jit.optimized_execution(False):
            answer = module(*images, **wanted)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{name} refuses {images[0].dtype} images {list(images[0].shape)}: {reason}"
        ) from None
    if not isinstance(answer, Tensor):
        raise InputError(f"{name} answers a {type(answer).__name__}, but it must answer a tensor")
    return answer


def _finite(values: Tensor, name: str) -> Tensor:
    values = values.float().cpu()
    if not values.isfinite().all():
        raise InputError(f"{name} answers values that are not finite")
    return values


def _takes(module: Any, argument: str) -> bool:
    schema = getattr(module.forward, "schema", None)  # only TorchScript has one
    return schema is not None and any(one.name == argument for one in schema.arguments)


def _signed_299(images_BCHW: Tensor) -> Tensor:
    signed = images_BCHW.float() / 127.5 - 1
    return F.interpolate(
        signed, size=(299, 299), mode="bilinear", antialias=True, align_corners=False
    )
