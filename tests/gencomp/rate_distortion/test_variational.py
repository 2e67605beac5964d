"""Trained encoders against linear decoders, where the best Gaussian encoder is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.rate_distortion import closed_form, variational
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.priors import Gaussian, GaussianMixture
from gencomp.rate_distortion.reduction import LinearReduction

LATENT_DIM, VALUES = 3, 8
BETAS = [0.5, 8.0]


def normals(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(orthogonal: bool, images: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """W, b and images of a decoder with or without orthogonal columns."""
    weight_NK = normals(1, VALUES, LATENT_DIM)
    if orthogonal:
        weight_NK = torch.linalg.qr(weight_NK)[0] * torch.tensor([2.0, 1.0, 0.5]).double()
    return weight_NK, normals(2, VALUES), 1.5 * normals(3, images, VALUES)


def lagrangian_I(point: variational.Point) -> Tensor:
    """R + β D, in expectation at least -log Z."""
    return point.rate_I + point.beta * point.distortion_I


def linear_encoder() -> nn.Linear:
    """Mean linear in x; the log variance may depend on x, but need not."""
    encoder = nn.Linear(VALUES, 2 * LATENT_DIM, dtype=torch.float64)
    nn.init.zeros_(encoder.weight)
    nn.init.zeros_(encoder.bias)
    return encoder


def run_of(weight_NK, bias_N, x_IN, scale: float = 1.0, **changes: Any) -> variational.Training:
    """Trained on the very images that are measured: no price for amortisation."""
    settings: dict[str, Any] = {
        "encoder": linear_encoder(),
        "betas": BETAS,
        "seed": 5,
        "epochs": 300,
        "batch": 32 * len(x_IN),
        "learning_rate": 0.1,
        "samples": 1_000,
    }
    return variational.Training(
        LinearReduction(weight_NK, bias_N, x_IN, "mse"),
        Gaussian(LATENT_DIM, scale),
        x_IN.repeat(32, 1),
        **(settings | changes),
    )


def points_of(run: variational.Training) -> list[variational.Point]:
    state, points = variational.start(run), []
    while not variational.done(run, state):
        state, point = variational.advance(run, state)
        points.append(point)
    return points


def mean_field_excess(weight_NK: Tensor, beta: float, scale: float) -> float:
    """KL from the best Gaussian without correlations to the posterior: its precision's diagonal."""
    eye = torch.eye(weight_NK.shape[1], dtype=torch.float64)
    precision_KK = eye / scale**2 + 2 * beta * weight_NK.T @ weight_NK
    return 0.5 * (precision_KK.diagonal().log().sum() - precision_KK.logdet()).item()


@pytest.mark.parametrize(("orthogonal", "scale"), [(True, 2.5), (False, 1.0)])
def test_linear_encoder_reaches_the_best(orthogonal, scale):
    """The exact curve for orthogonal columns, the mean-field optimum above it for others.

    1,000 samples of 6 images leave the Lagrangian a standard error of about √(K/2/6,000) = 0.016.
    """
    weight_NK, bias_N, x_IN = problem(orthogonal)
    points = points_of(run_of(weight_NK, bias_N, x_IN, scale))
    exact = closed_form.linear_gaussian(
        weight_NK, bias_N, x_IN, torch.tensor(BETAS), prior_scale=scale
    )
    for index, point in enumerate(points):
        excess = (lagrangian_I(point) + exact.log_z_IT[:, index]).mean().item()
        best = mean_field_excess(weight_NK, BETAS[index], scale)
        assert best < 1e-9 if orthogonal else best > 1e-3
        assert excess == pytest.approx(best, abs=0.06)
        if orthogonal:
            torch.testing.assert_close(point.rate_I, exact.rate_IT[:, index], rtol=0.02, atol=0.05)
            distortion_I = exact.distortion_IT[:, index]
            torch.testing.assert_close(point.distortion_I, distortion_I, rtol=0.03, atol=0.02)


def test_lagrangian_is_never_below():
    """Any encoder, trained or not: 20 of them, 6 images.

    Its D is a mean of samples about the known expectation, within 5 standard errors (6e-7 each).
    """
    weight_NK, bias_N, x_IN = problem(orthogonal=False)
    beta, scale = 4.0, 1.3
    exact = closed_form.linear_gaussian(
        weight_NK, bias_N, x_IN, torch.tensor([beta]), prior_scale=scale
    )
    for seed in range(20):
        encoder = linear_encoder()
        encoder.weight.data += 0.3 * normals(100 + seed, *encoder.weight.shape)
        encoder.bias.data += 0.3 * normals(200 + seed, *encoder.bias.shape) - 1
        run = run_of(
            *(weight_NK, bias_N, x_IN, scale),
            encoder=encoder,
            betas=[beta],
            epochs=1,
            learning_rate=1e-12,
            samples=300,
        )
        point = points_of(run)[0]
        mean_IK, log_variance_IK = encoder(x_IN).detach().chunk(2, -1)
        error_IN = mean_IK @ weight_NK.T + bias_N - x_IN
        gram_KK = weight_NK.T @ weight_NK
        variance_IK = log_variance_IK.exp()
        expected_I = error_IN.square().sum(-1) + (variance_IK * gram_KK.diagonal()).sum(-1)
        quartic_I = 2 * torch.einsum("ij,jk,ik->i", variance_IK, gram_KK**2, variance_IK)
        linear_I = 4 * (variance_IK * (error_IN @ weight_NK) ** 2).sum(-1)
        standard_error_I = ((quartic_I + linear_I) / run.samples).sqrt()
        assert ((point.distortion_I - expected_I).abs() < 5 * standard_error_I).all()
        assert (point.rate_I + beta * expected_I + exact.log_z_IT[:, 0] > 0).all()


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_rate_is_the_divergence(scale):
    mean_BK, log_variance_BK = normals(1, 5, LATENT_DIM), normals(2, 5, LATENT_DIM)
    posterior = torch.distributions.Normal(mean_BK, (0.5 * log_variance_BK).exp())
    prior = torch.distributions.Normal(torch.tensor(0.0).double(), scale)
    torch.testing.assert_close(
        variational.gaussian_rate(mean_BK, log_variance_BK, scale),
        torch.distributions.kl_divergence(posterior, prior).sum(-1),
    )


def test_deep_encoder_stays_above_a_deep_decoders_curve():
    """A bent decoder in float32, images that the encoder never saw, log Z by quadrature.

    Training takes most of what is above the bound away, and nothing below it.
    """
    matrix = normals(7, VALUES, 2).float()
    decode = lambda z: torch.tanh(z @ matrix.T)  # noqa: E731
    images_IN = decode(normals(8, 200, 2).float()) + 0.05 * normals(9, 200, VALUES).float()
    test_IN, train_IN = images_IN.split([20, 180])
    run = variational.Training(
        *(SquaredError(decode, test_IN), Gaussian(2), train_IN),
        encoder=variational.gaussian_encoder(VALUES, 2, seed=3, widths=(32, 32)),
        betas=[1, 10],
        seed=4,
        epochs=60,
        batch=60,
        learning_rate=1e-2,
        samples=50,
    )
    untrained = variational.Training(**(vars(run) | {"learning_rate": 1e-12, "epochs": 1}))
    axis = torch.linspace(-6, 6, 241)
    grid_GK = torch.cartesian_prod(axis, axis)
    d_IG = torch.cdist(test_IN.double(), decode(grid_GK).double()).square()
    log_cell = 2 * math.log(0.05) - math.log(2 * math.pi)
    for before, point in zip(points_of(untrained), points_of(run), strict=True):
        log_density_IG = -0.5 * grid_GK.square().sum(-1) - point.beta * d_IG
        log_z_I = log_density_IG.logsumexp(-1) + log_cell
        excess, first = ((lagrangian_I(p) + log_z_I).mean().item() for p in (point, before))
        assert 0 < excess < 0.2 * first
        assert point.rate_I.dtype == point.distortion_I.dtype == torch.float64


def test_default_encoder_is_that_of_the_vae():
    encoder = variational.gaussian_encoder(784, 10, seed=1)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 2_923_540
    linear = [layer for layer in encoder if isinstance(layer, nn.Linear)]
    assert len(linear) == 4 and isinstance(encoder[1], nn.Tanh) and encoder[-1] is linear[-1]
    twin, other = (variational.gaussian_encoder(784, 10, seed=seed) for seed in (1, 2))
    assert torch.equal(twin[0].weight, encoder[0].weight)
    assert not torch.equal(other[0].weight, encoder[0].weight)


def test_warm_start_resumes_bit_identically(tmp_path):
    """Straight through, and with a new process's objects after each β."""
    weight_NK, bias_N, x_IN = problem(orthogonal=True)
    run = run_of(weight_NK, bias_N, x_IN, epochs=5, samples=10, batch=50)
    initial = {name: tensor.clone() for name, tensor in run.encoder.state_dict().items()}
    straight, state = points_of(run), variational.start(run)
    for point in straight:
        torch.save(state._asdict(), tmp_path / "state.pt")
        stored = torch.load(tmp_path / "state.pt", weights_only=True)
        torch.manual_seed(int(point.beta * 10))  # nothing may lean on the global generator
        resumed = run_of(weight_NK, bias_N, x_IN, epochs=5, samples=10, batch=50)
        state, again = variational.advance(resumed, variational.VariationalState(**stored))
        assert again.beta == point.beta
        assert torch.equal(again.rate_I, point.rate_I)
        assert torch.equal(again.distortion_I, point.distortion_I)
    assert all(torch.equal(initial[name], t) for name, t in run.encoder.state_dict().items())
    other = points_of(run_of(weight_NK, bias_N, x_IN, epochs=5, samples=10, batch=50, seed=6))
    assert not torch.equal(other[0].rate_I, straight[0].rate_I)


def test_warm_start_helps():
    """A second β reached by way of the first is better than from scratch, in the same few steps."""
    weight_NK, bias_N, x_IN = problem(orthogonal=True)
    short = {"epochs": 60, "learning_rate": 0.01}
    by_way = points_of(run_of(weight_NK, bias_N, x_IN, betas=[29.0, 30.0], **short))[1]
    scratch = points_of(run_of(weight_NK, bias_N, x_IN, betas=[30.0], **short))[0]
    assert lagrangian_I(by_way).mean() < lagrangian_I(scratch).mean() - 1


def test_refusals():
    weight_NK, bias_N, x_IN = problem(orthogonal=True)
    run = run_of(weight_NK, bias_N, x_IN, epochs=1, samples=1, betas=[1.0])
    state, _ = variational.advance(run, variational.start(run))
    with pytest.raises(InputError, match="all 1 betas are trained"):
        variational.advance(run, state)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"prior": GaussianMixture(LATENT_DIM, [1], [1])}, "needs a Gaussian prior"),
        ({"train_IN": x_IN[:, 1:]}, "do not fit measured ones"),
        ({"train_IN": x_IN.float()}, "do not fit measured ones"),
        ({"train_IN": x_IN[:0]}, "0 training images must be positive"),
        ({"betas": []}, "positive, finite"),
        ({"betas": [1.0, 0.0]}, "positive, finite"),
        ({"betas": [math.inf]}, "positive, finite"),
        ({"epochs": 0}, "must be positive"),
        ({"learning_rate": 0.0}, "must be positive"),
    ]
    for change, message in changes:
        with pytest.raises(InputError, match=message):
            variational.Training(**(vars(run) | change))
    narrow = nn.Linear(VALUES, 2 * LATENT_DIM - 1, dtype=torch.float64)
    wrong = variational.Training(**(vars(run) | {"encoder": narrow}))
    with pytest.raises(InputError, match="mean and log variance of 3 latents"):
        variational.advance(wrong, variational.start(wrong))
