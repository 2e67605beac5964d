"""Energies are exact enough for β = 36,000, whatever precision the forces have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencomp.rate_distortion import ais, schedules
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.priors import Gaussian
from gencomp.rate_distortion.pullback import products
from gencomp.rate_distortion.resampling import log_mean_exp
from gencomp.rate_distortion.tuning import Tuning
from tests.gencomp.rate_distortion.surrogate import surrogate

BETA_MAX, LATENT_DIM, CPU = 36_000.0, 10, torch.device("cpu")


def linear_decoder(weight_NK: Tensor, bias_N: Tensor) -> nn.Sequential:
    layer = nn.Linear(LATENT_DIM, len(bias_N))
    layer.load_state_dict({"weight": weight_NK, "bias": bias_N})
    return nn.Sequential(layer).eval()


def deep_decoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(LATENT_DIM, 256), nn.Tanh(), nn.Linear(256, 784), nn.Sigmoid())
    ).eval()


def test_log_weights_agree_with_an_all_float64_decoder_and_float32_weights_do_not():
    """Same states, three accumulators: production, all in float64, and float32 weights."""
    weight_NK, bias_N, x_IN = surrogate(LATENT_DIM, 4)
    decoder, x_IN = linear_decoder(weight_NK, bias_N), x_IN.float()
    betas = schedules.sigmoid(BETA_MAX, 400)
    step_sizes = 1 / np.sqrt(1 + 2 * betas * torch.linalg.svdvals(weight_NK)[0].item() ** 2)
    tuning = Tuning(betas, step_sizes, 5, LATENT_DIM, Gaussian(LATENT_DIM).identity, seed=6)
    distortion = SquaredError(decoder, x_IN)
    run = ais.Walk(distortion, Gaussian(LATENT_DIM), tuning, 7, range(4), resample_below=0)
    state = ais.start(run, 16)

    exact = SquaredError(linear_decoder(weight_NK, bias_N).double(), x_IN.double())
    exact_IM = torch.zeros(4, 16, dtype=torch.float64)
    single_IM = torch.zeros(4, 16)
    for step in np.diff(betas):
        exact_IM -= step * exact.value_and_grad(state.chain.z_IMK.double())[0]
        single_IM -= (step * state.chain.d_IM).float()
        state, row = ais.advance(run, state)

    assert row.distortion_I.mean() == pytest.approx(308, abs=5)  # the chains are where it matters
    error_I = (row.log_z_I - log_mean_exp(exact_IM)).abs()
    assert error_I.max() < 0.1
    assert (log_mean_exp(single_IM.double()) - log_mean_exp(exact_IM)).abs().min() > 0.1


@pytest.mark.parametrize("decoder", [deep_decoder(), nn.Sequential(*deep_decoder(), nn.GELU())])
def test_settings_outside_do_not_reach_energies(decoder):
    x, z = torch.rand(2, 784), torch.randn(2, 64, LATENT_DIM)
    distortion = SquaredError(decoder.eval(), x, "bfloat16")
    expected = *distortion.value_and_grad(z), distortion.grad(z)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = *distortion.value_and_grad(z), distortion.grad(z)
            assert torch.is_autocast_enabled("cpu")
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    for a, b in zip(again, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_settings_are_restored_after_an_error():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), products("tf32", CPU):
        assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"
        raise ZeroDivisionError
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("by_hand", [True, False])
def test_forces_of_low_precision(by_hand):
    decoder = deep_decoder()
    decode = decoder if by_hand else lambda z: decoder(z)
    x, z = torch.rand(2, 784), torch.randn(2, 64, LATENT_DIM)
    exact = SquaredError(decode, x)
    grad = exact.grad(z)
    torch.testing.assert_close(exact.grad(z, low_precision=True), grad, rtol=0, atol=0)

    rough = SquaredError(decode, x, "bfloat16")
    for a, b in zip(rough.value_and_grad(z), exact.value_and_grad(z), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    low = rough.grad(z, low_precision=True)
    assert low.dtype == torch.float32
    assert 1e-4 < (low - grad).norm() / grad.norm() < 2e-2  # 8 bits
    torch.testing.assert_close(rough.grad(z, low_precision=True), low, rtol=0, atol=0)

    tf32 = SquaredError(decode, x, "tf32").grad(z, low_precision=True)
    assert (tf32 - grad).norm() < 2e-3 * grad.norm()  # 11 bits, where the processor has them


def test_float64_images_keep_float64_forces():
    decoder = deep_decoder().double()
    x, z = torch.rand(2, 784).double(), torch.randn(2, 8, LATENT_DIM).double()
    grad = SquaredError(decoder, x, "tf32").grad(z, low_precision=True)
    torch.testing.assert_close(grad, SquaredError(decoder, x).grad(z), rtol=0, atol=0)
