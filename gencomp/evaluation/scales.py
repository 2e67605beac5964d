"""The scales of metrics in words, for tables and figures; without torch.

One name is one scale everywhere: `mse` is of pixels on [−1, 1], also where a network works on
another scale. So are `pv` and the errors and variances at rate 0.
"""

from __future__ import annotations

from collections.abc import Iterable

PIXELS = "pixels on [-1, 1]"
_LOSSLESS = ("png", "webp", "jpeg2000", "jpegxl")
UNITS = {
    **dict.fromkeys(("mse", "kept_mse", "pv", "rate0_mse", "rate0_pv", "ideal_mse"), PIXELS),
    "mse_unit": "pixels on [0, 1]",
    **dict.fromkeys(
        ("critic_gap", "critic_distance", "fresh_critic_gap", "fresh_critic_distance", "swd"),
        "Euclidean norm of images on [0, 1]",
    ),
    **dict.fromkeys(("psnr", "mean_psnr", "kept_psnr", "ideal_psnr"), "dB"),
    **dict.fromkeys(
        (
            *("bpp", "file_bpp", "nominal_bpp", "entropy_bpp"),
            *("ideal_bpp", "joint_bpp", "joint_file_bpp"),
        ),
        "bits per pixel",
    ),
    **dict.fromkeys(
        (
            *("bits_per_dim", "bpd", "file_bpd", "ideal_bpd", "joint_bpd", "joint_file_bpd"),
            *(f"{joint}{name}_bpd" for joint in ("", "joint_") for name in _LOSSLESS),
        ),
        "bits per colour value",
    ),
    **dict.fromkeys(("encode_seconds", "decode_seconds"), "s"),
}
# What each measure of perception is. No two of them share an axis.
PERCEPTION = {
    "critic_gap": "mean D(x) − mean D(x̂) of the critic D that was trained with the decoder, on"
    " held-out images",
    "critic_distance": "the Wasserstein-1 distance behind critic_gap, without the bias of the"
    " gradient penalty",
    "fresh_critic_gap": "mean D(x) − mean D(x̂) of a critic D that was trained afterwards on the"
    " finished decoder alone, on held-out images",
    "fresh_critic_distance": "the Wasserstein-1 distance behind fresh_critic_gap, without the bias"
    " of the gradient penalty",
    "swd": "the sliced Wasserstein distance of pixels, without any network",
}
_KERNEL_DISTANCES = {
    "mmd": "MMD",
    **dict.fromkeys(("rkid", "rate0_rkid", "skid"), "KID"),
    **dict.fromkeys(("rkd", "rate0_rkd", "skd"), "kernel distances"),
}


def negative(names: Iterable[str]) -> str:
    """What a negative value of the kernel distances among some metrics means; empty for none."""
    found = sorted({_KERNEL_DISTANCES[name] for name in names if name in _KERNEL_DISTANCES})
    if not found:
        return ""
    return (
        f"{' and '.join(found)}: unbiased estimates of a squared distance; a negative one means"
        " that no difference was found"
    )


def remark(names: Iterable[str]) -> str:
    """What the reader of a table of some metrics must know first, where it names no units."""
    names = list(names)
    scale = f"mse: {PIXELS}" if "mse" in names else ""
    return ". ".join(filter(None, (scale, negative(names))))
