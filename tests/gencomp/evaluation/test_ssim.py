"""MS-SSIM against scikit-image on a scale, and against the definition over the scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from gencomp.errors import InputError
from gencomp.evaluation import ssim


def pair(side: int, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth images, and noisy versions."""
    numbers = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / side
    phases = numbers.uniform(0, 6, (batch, 3, 1, 1))
    clean = 127 + 90 * np.sin(7 * x + phases) * np.cos(5 * y - phases)
    noisy = clean + numbers.normal(0, 20, clean.shape)
    a, b = (torch.from_numpy(v.round().clip(0, 255).astype(np.uint8)) for v in (clean, noisy))
    return a, b


def reference(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """One scale by scikit-image, where the window lies inside the image."""
    _, full = structural_similarity(
        a_HW, b_HW, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    return float(full[5:-5, 5:-5].mean())


def test_one_scale_is_that_of_scikit_image() -> None:
    a, b = pair(20)  # the next scale would have 10 pixels
    expected = [
        np.mean([reference(a[i, c].numpy(), b[i, c].numpy()) for c in range(3)]) for i in range(3)
    ]
    assert ssim.ms_ssim(a, b).tolist() == pytest.approx(expected, rel=1e-9)


def test_each_scale_is_that_of_scikit_image() -> None:
    a, b = (x.double() for x in pair(64))
    for side in (64, 32, 16):
        luminance, contrast = ssim.similarity(a[:, :1], b[:, :1])
        expected = [reference(a[i, 0].numpy(), b[i, 0].numpy()) for i in range(3)]
        assert a.shape[-1] == side
        assert (luminance * contrast).mean((1, 2, 3)).tolist() == pytest.approx(expected, rel=1e-9)
        a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b))


def test_scales_and_weights() -> None:
    assert ssim.scale_weights(176, 300) == pytest.approx(np.array(ssim.WEIGHTS) / sum(ssim.WEIGHTS))
    assert len(ssim.scale_weights(161, 161)) == 5  # 161, 81, 41, 21, 11
    three = np.array([0.0448, 0.2856, 0.3001])
    assert ssim.scale_weights(64, 64) == pytest.approx(three / three.sum())
    assert ssim.scale_weights(11, 500) == (1,)
    with pytest.raises(InputError, match="at least 11×11 pixels, but these are 10×64"):
        ssim.scale_weights(10, 64)


def test_equal_images_have_one_and_worse_ones_less() -> None:
    a, b = pair(64)
    assert ssim.ms_ssim(a, a).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    values = [ssim.ms_ssim(a, ((a * (1 - t) + b * t).round()).byte()).mean() for t in (0.3, 1)]
    assert 1 > values[0] > values[1] > 0
    assert ssim.ms_ssim(a, 255 - a).tolist() == pytest.approx([0, 0, 0])  # negative structure


@pytest.mark.parametrize("side", [33, 64])
def test_a_value_does_not_depend_on_its_batch(side: int) -> None:
    a, b = pair(side)
    alone = [ssim.ms_ssim(a[i : i + 1], b[i : i + 1]).item() for i in range(3)]
    assert ssim.ms_ssim(a, b).tolist() == pytest.approx(alone, rel=1e-14)
