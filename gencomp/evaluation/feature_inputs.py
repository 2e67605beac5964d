"""The inputs of feature networks, and the names of distances of features. Nothing imports torch."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

# Either uint8 images as they are, or float32 images on [−1, 1] at 299×299 pixels.
Input = Literal["uint8", "signed-299"]
INPUTS: tuple[Input, ...] = get_args(Input)
RESIZE_RULES: dict[Input, str] = {
    "uint8": "uint8 at its own size; any resizing is inside the file",
    "signed-299": "float32 v/127.5 − 1, resized to 299×299 by torch's bilinear interpolation with"
    " antialiasing",
}
LEAST_PATCH = 16  # pixels
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"

# The networks that packages ship, by name, with the SHA-256 of their weights.
PACKAGED = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
}
PACKAGED_RULES = {
    "efficientnet-lite0": "EfficientNet-Lite0 trained on ImageNet: uint8 / 255, resized to 224×224"
    " by torch's bilinear interpolation with antialiasing, ImageNet's mean and deviation; 1,280"
    " features before the last layer, averaged over places"
}


class DistanceNames(NamedTuple):
    """The names of the Fréchet distance and of the kernel distance of features."""

    frechet: str
    kernel: str


def distance_names(sha256: str, patches: int | None = None) -> DistanceNames:
    """The names that distances have: fid and kid with the Inception network, fd and kd with others.

    Args:
        sha256: the SHA-256 of the feature network's file.
        patches: the side of the patches whose features are compared, as in fid_256; None for whole
            images.
    """
    names = ("fid", "kid") if sha256 == INCEPTION_SHA256 else ("fd", "kd")
    return DistanceNames(*(name if patches is None else f"{name}_{patches}" for name in names))


def network_name(sha256: str) -> str:
    """What people call a feature network: the name of a known one, or the head of its hash."""
    names = {digest: name for name, digest in PACKAGED.items()}
    return names.get(sha256, sha256[:12])


def whole_name(metric: str) -> tuple[str, int | None]:
    """The name that a metric has on whole images, and the side of its patches.

    >>> whole_name("rfid_256"), whole_name("ms_ssim")
    (('rfid', 256), ('ms_ssim', None))
    """
    name, _, side = metric.rpartition("_")
    return (name, int(side)) if name and side.isdecimal() else (metric, None)
