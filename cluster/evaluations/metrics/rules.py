"""The meaning of the numbers of a measurement, in words, which its protocol states."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.evaluations.metrics.settings import OF_FEATURES, Settings
from gencomp.errors import InputError
from gencomp.evaluation import intervals, kernel, patches, sliced_wasserstein, ssim
from gencomp.evaluation.feature_inputs import PACKAGED_RULES, RESIZE_RULES, network_name


def stated(settings: Settings, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The rules of everything that the settings ask for, by name.

    Args:
        settings: the evaluation's settings.
        sizes: every size (height, width) that an image has.

    Raises:
        InputError: the images are too small for a metric that is asked for, or of several sizes.
    """
    return {
        "images": "evenly spaced over the split; every mean weights each image once",
        "pixels": "reconstructions and samples rounded to 8 bits; errors on the scale [-1, 1]",
        "interval": intervals.RULE,
        **_of_reconstructions(settings),
        **_of_single_images(settings, sizes),
        **_of_features(settings, sizes),
        **_of_other_sets(settings, sizes),
    }


def _of_reconstructions(settings: Settings) -> dict[str, str]:
    """The rules of what stands for an image."""
    said = {}
    if settings.reconstructions == "files":
        said["reconstructions"] = (
            "what the real file of each image decodes to, by the codec; draw i by the decoder's"
            " draw i; bpp is the bits of code in the file and file_bpp all its bits, over the"
            " image's pixels, mean over images"
        )
    if settings.share is not None:
        said["share"] = "(1 - share) of this decoder's image and share of the other's, then rounded"
    return said


def _of_single_images(settings: Settings, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The rules of metrics that have a value for each image."""
    said = {}
    if settings.asks("psnr"):
        said["psnr"] = "10 log10(4 / MSE) of the mean MSE"
        said["mean_psnr"] = "mean over images of 10 log10(4 / MSE) of each"
    if settings.asks("ms_ssim"):
        every = dict.fromkeys(ssim.scale_weights(height, width) for height, width in sizes)
        weights = " or ".join(", ".join(f"{w:.6f}" for w in one) for one in every)
        said["ms_ssim"] = (
            f"Wang et al. 2003 for each colour channel, weights of the scales {weights}"
        )
    if settings.asks("pv"):
        said["pv"] = f"biased (1/n) variance over n = {settings.draws} reconstructions of an image"
    if settings.asks("rate0"):
        said["rate0"] = (
            f"each image reconstructed by {settings.draws} prior samples that are independent of"
            " it; the first one for rFID and rKID"
        )
    return said


def _of_features(settings: Settings, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The rules of metrics that compare the features of two sets of images."""
    said = {}
    if settings.asks(*OF_FEATURES):
        packaged = network_name(settings.features or "")
        said["features"] = PACKAGED_RULES.get(packaged, RESIZE_RULES[settings.features_input])
        said["reference"] = "the measured images themselves"
    if (side := settings.patches) is not None:
        for height, width in sizes:
            if not patches.count(height, width, side):
                raise InputError(
                    f"--patches is {side}, but there are images of {width}x{height} pixels, which"
                    " have no such patch"
                )
        said["patches"] = (
            f"features of {side}x{side} patches: a grid from the upper left corner and one shifted"
            " by half a patch (Mentzer et al. 2020); every patch weights the same, and errors are"
            " those of images"
        )
    if settings.asks("fid"):
        said["fid"] = "unbiased covariances; interval by influence functions"
    if settings.asks("kid"):
        said["kid"] = (
            "unbiased, kernel (x.y/D + 1)^3, no image with what was made for it, mean over strided"
            f" subsets of up to {kernel.SUBSET}; {kernel.INTERVAL_RULE}"
        )
    return said


def _of_other_sets(settings: Settings, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The rules of metrics that compare two sets by pixels, by classes or by latents."""
    said = {}
    if settings.asks("swd"):
        if len(sizes) > 1:
            raise InputError(
                "--metrics swd needs images of one size, but those of the split have"
                f" {len(sizes)} sizes: leave it out, or state evaluation.transforms"
            )
        said["swd"] = (
            "mean Wasserstein-1 distance of the projections on"
            f" {sliced_wasserstein.DIRECTIONS} random directions, pixels on [0, 1]"
        )
    if settings.asks("miou"):
        said["miou"] = (
            "mean over the classes that are labelled of intersection over union, over all images"
            " together; labels beyond the network's classes do not count; interval by influence"
            " functions"
        )
    if settings.asks("mmd"):
        said["mmd"] = (
            "unbiased, the seven kernels of the training loss, latents against as many samples of"
            f" the prior, mean over strided subsets of up to {kernel.SUBSET};"
            f" {kernel.INTERVAL_RULE}"
        )
    return said
