"""The closed form against tabulated values (float64) and against its own derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gencomp.rate_distortion.closed_form import linear_gaussian
from gencomp.rate_distortion.schedules import thermodynamic_length

TOY = [  # kind, β, then R, D, log Z of the first and of the second image
    ("nll", 0.1, 0.05810717, 6.75030846, -0.73313802, 0.01965629, 5.22301994, -0.54195829),
    ("nll", 0.5, 0.55868060, 4.78379711, -2.95057915, 0.22277950, 4.44985302, -2.44770602),
    ("nll", 1, 1.07710019, 4.05115078, -5.12825097, 0.47970407, 4.09038901, -4.57009308),
    ("nll", 2, 1.73956204, 3.57745284, -8.89446772, 0.87296895, 3.81216448, -8.49729791),
    ("nll", 10, 3.42204683, 3.16017737, -35.02382053, 2.17427555, 3.50204628, -37.19473835),
    ("nll", 100, 5.76560790, 3.06801880, -312.56748741, 4.39563189, 3.41647476, -346.04310824),
    ("mse", 0.1, 0.17299126, 6.41745613, -0.81473687, 0.06172570, 4.36030977, -0.49775668),
    ("mse", 0.5, 1.07710019, 2.58867036, -2.37143537, 0.47970407, 2.66714681, -1.81327748),
    ("mse", 1, 1.73956204, 1.64127447, -3.38083652, 0.87296895, 2.11069776, -2.98366671),
    ("mse", 2, 2.46145975, 1.12157788, -4.70461551, 1.38269014, 1.74712547, -4.87694109),
    ("mse", 10, 4.13638650, 0.70357559, -11.17214236, 2.82294059, 1.39712062, -16.79414684),
    ("mse", 100, 6.46142013, 0.61236645, -67.69806534, 5.08411009, 1.30938835, -136.02294491),
    (
        *("mse", 36000, 12.35022624, 0.60238072, -21698.05611239),
        *(10.96554099, 1.29943954, -46790.78906388),
    ),
]

SURROGATE = [  # latent dimensions, images, kind, β, batch means of R, D, log Z
    (10, 4, "nll", 0.1, 0.24656510, 889.09996413, -89.15656152),
    (10, 4, "nll", 1, 3.97511268, 879.02061989, -882.99573257),
    (10, 4, "nll", 10, 13.57429650, 875.53006073, -8768.87490376),
    (10, 4, "nll", 100, 24.86041052, 875.09247668, -87534.10807860),
    (10, 4, "mse", 0.1, 0.69779790, 331.11670908, -33.80946881),
    (10, 4, "mse", 1, 6.44922856, 313.62000091, -320.06922947),
    (10, 4, "mse", 10, 16.91499297, 309.68323746, -3113.74736754),
    (10, 4, "mse", 1000, 39.81466843, 309.19458939, -309234.40405859),
    (10, 4, "mse", 36000, 57.73101197, 309.18972892, -11130887.97220321),
    (10, 16, "nll", 1, 3.989587, 878.259478, -882.249065),
    (10, 16, "nll", 200, 28.336056, 874.302739, -174888.883908),
    (10, 16, "mse", 1000, 39.837463, 307.664922, -307704.759256),
    (10, 16, "mse", 36000, 57.753812, 307.660061, -11075819.961397),
    (100, 16, "nll", 1, 41.885880, 899.239410, -941.125290),
    (100, 16, "nll", 200, 286.144118, 859.300802, -172146.304556),
    (100, 16, "mse", 3333, 461.347571, 277.221601, -924440.942921),
]

LENGTH = [  # latent dimensions, kind, β_max, thermodynamic length of 16 images
    (10, "nll", 200, 14.9106),
    (10, "mse", 3_333, 22.7486),
    (10, "mse", 36_000, 28.0696),
    (100, "nll", 200, 47.5928),
    (100, "mse", 3_333, 72.3789),
    (100, "mse", 36_000, 89.2054),
]


@pytest.mark.parametrize("row", TOY, ids=lambda row: f"{row[0]}-{row[1]}")
def test_toy_values(toy, row):
    kind, beta, *expected = row
    curve = toy.exact([beta], kind)
    got = torch.stack([curve.rate_IT, curve.distortion_IT, curve.log_z_IT], -1).flatten()
    # the table has eight decimals
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=1e-6, atol=6e-9)


@pytest.mark.parametrize("row", SURROGATE, ids=lambda row: "-".join(map(str, row[:4])))
def test_surrogate_values(surrogate, row):
    latent_dim, images, kind, beta, *expected = row
    curve = surrogate(latent_dim, images).exact([beta], kind)
    got = [t.mean().item() for t in (curve.rate_IT, curve.distortion_IT, curve.log_z_IT)]
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("row", LENGTH, ids=lambda row: "-".join(map(str, row[:3])))
def test_thermodynamic_length(surrogate, row):
    """∫ of the root of the images' mean variance of d; the rule is good to 4 in a million."""
    latent_dim, kind, beta_max, expected = row
    betas = np.concatenate([[0.0], np.geomspace(1e-4, beta_max, 4_000)])
    sd_T = surrogate(latent_dim, 16).exact(betas, kind).variance_IT.mean(0).sqrt()
    assert thermodynamic_length(betas, sd_T.numpy()) == pytest.approx(expected, rel=5e-6)


def test_problems_are_those_of_the_tables(toy, surrogate):
    problem = surrogate(10, 16)
    assert problem.x_IN.sum().item() == pytest.approx(6286.615410461, rel=1e-12)
    assert problem.weight_NK.sum().item() == pytest.approx(-0.282801177360, rel=1e-9)
    at_zero = [problem.exact([0.0], kind).distortion_IT.mean().item() for kind in ("nll", "mse")]
    assert at_zero == pytest.approx([893.972700, 347.049779], rel=1e-9)
    s_K = torch.linalg.svdvals(toy.weight_NK)
    assert s_K.tolist() == pytest.approx([1.6249271378, 1.2687047713], rel=1e-10)


def test_one_dimension():
    curve = linear_gaussian(
        torch.tensor([[2.0]]), torch.zeros(1), torch.tensor([[1.5]]), torch.tensor([0.5, 1, 10])
    )
    assert curve.rate_IT[0].tolist() == pytest.approx(
        [0.5847189562, 0.8763900664, 1.9777458393], rel=1e-9
    )
    assert curve.distortion_IT[0].tolist() == pytest.approx(
        [0.89, 0.4722222222, 0.0497256516], 1e-8
    )
    assert curve.log_z_IT[0].tolist() == pytest.approx(
        [-1.0297189562, -1.3486122887, -2.4750023551], rel=1e-9
    )


@pytest.mark.parametrize("kind", ["mse", "nll"])
def test_log_z_is_minus_rate_minus_beta_distortion(surrogate, kind):
    betas = torch.logspace(-6, 5, 40, dtype=torch.float64)
    curve = surrogate(100, 4).exact(betas, kind)
    rest = curve.log_z_IT + curve.rate_IT + betas * curve.distortion_IT
    assert (rest.abs() < 1e-9 * curve.log_z_IT.abs()).all()


def test_derivatives(toy):
    betas = torch.tensor([0.5, 2, 10], dtype=torch.float64)
    step = 1e-5 * betas
    low, high, mid = toy.exact(betas - step), toy.exact(betas + step), toy.exact(betas)
    slope_R = (high.rate_IT - low.rate_IT) / (2 * step)
    slope_D = (high.distortion_IT - low.distortion_IT) / (2 * step)
    torch.testing.assert_close(slope_R / slope_D, -betas.expand(2, -1), rtol=1e-5, atol=0)
    torch.testing.assert_close(-slope_D, mid.variance_IT, rtol=1e-5, atol=0)
    assert mid.variance_IT[0].tolist() == pytest.approx([3.49003654, 0.26336895, 0.01023088], 1e-6)


def test_log_z_is_minus_the_integral_of_d(toy_x1):
    betas = torch.linspace(0, 2, 20_001, dtype=torch.float64)
    curve = toy_x1.exact(betas)
    assert curve.distortion_IT[0, 0].item() == pytest.approx(10.54, rel=1e-12)
    integral = torch.trapezoid(curve.distortion_IT[0], betas).item()
    assert integral == pytest.approx(4.7046155640, rel=1e-9)
    assert curve.log_z_IT[0, -1].item() == pytest.approx(-4.7046155086, rel=1e-9)


def test_prior_scale_is_a_scaled_decoder(toy):
    betas = torch.tensor([0.3, 5.0])
    scaled = linear_gaussian(toy.weight_NK, toy.bias_N, toy.x_IN, betas, prior_scale=1.7)
    twin = linear_gaussian(1.7 * toy.weight_NK, toy.bias_N, toy.x_IN, betas)
    torch.testing.assert_close(scaled.rate_IT, twin.rate_IT, rtol=1e-12, atol=0)


def test_reduction_is_exact(surrogate):
    problem = surrogate(10, 4)
    z_IMK = torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    full, reduced = problem.full().value_and_grad(z_IMK), problem.reduced().value_and_grad(z_IMK)
    torch.testing.assert_close(reduced[0], full[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(reduced[1], full[1], rtol=1e-9, atol=1e-10)
