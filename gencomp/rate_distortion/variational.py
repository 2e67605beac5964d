"""The curve of trained encoders: one Gaussian q(z|x) for each β, with a frozen decoder.

For every β an amortised encoder q(z|x) = N(m(x), diag v(x)) minimises R + β D over training images,
starting from the encoder of the previous β, and is then measured on the images of the distortion.
β and D are those of annealed importance sampling; R is the closed-form KL divergence to a Gaussian
prior. So both curves share their axes, and

    R + β D ≥ -log Z_β(x)    in expectation, for every encoder,

with equality for the exact posterior alone. The difference is the price of Gaussian posteriors
without correlations, of amortisation and of training. (This is the variational baseline of Huang,
Makhzani, Cao, Grosse: Evaluating Lossy Compression Rates of Deep Generative Models, ICML 2020;
there β multiplies a log-likelihood that has its own variance.)

    training = variational.Training(
        SquaredError(decoder.eval(), test_IN), prior, train_IN,
        encoder=variational.gaussian_encoder(784, prior.latent_dim, seed=8),
        betas=[0.1, 1, 10, 100], seed=9,
    )
    state = variational.start(training)
    while not variational.done(training, state):
        state, point = variational.advance(training, state)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.networks.decoders import mlp
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.priors import Gaussian

WIDTHS = (1024, 1024, 1024)


@dataclass(frozen=True, eq=False)
class Training:
    """The settings of a training, which are the same for all betas.

    Attributes:
        distortion: the distortion d of the I images that are measured.
        prior: a ``Gaussian``, since the rate has no closed form for other priors.
        train_IN: [T, N] the images that the encoder learns from, in the form of the distortion's
            ``x_IN``.
        encoder: a deterministic map from images [B, N] to the mean and log variance [B, 2K], in the
            dtype and on the device of the images. It is copied and never changed; its parameters
            are the starting point of the first β.
        betas: the inverse temperatures in the order in which they are trained.
        seed: the seed of the order of the images and of the samples.
        epochs: the number of passes over ``train_IN`` for each β.
        batch: the number of images in a step.
        learning_rate: the learning rate of Adam, which falls to 0 along a cosine for each β.
        samples: the number of samples of z for each image by which D is measured.

    Raises:
        InputError: the prior is not Gaussian, the images do not fit, or a setting is out of range.
    """

    distortion: Distortion
    prior: Gaussian
    train_IN: Tensor
    encoder: nn.Module
    betas: Sequence[float]
    seed: int
    epochs: int = 50
    batch: int = 100
    learning_rate: float = 1e-4
    samples: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if not isinstance(self.prior, Gaussian):
            raise InputError(
                "the variational curve needs a Gaussian prior; its rate is the closed form of two "
                "Gaussians."
            )
        x_IN = self.distortion.x_IN
        if self.train_IN.shape[1:] != x_IN.shape[1:] or self.train_IN.dtype != x_IN.dtype:
            raise InputError(
                f"training images {list(self.train_IN.shape)} ({self.train_IN.dtype}) do not fit "
                f"measured ones {list(x_IN.shape)} ({x_IN.dtype})."
            )
        if not self.betas or not all(0 < beta < math.inf for beta in self.betas):
            raise InputError("the betas of a variational curve are positive, finite numbers.")
        counts = (self.epochs, self.batch, self.samples, len(self.train_IN))
        if min(counts) < 1 or not 0 < self.learning_rate < math.inf:
            raise InputError(
                f"epochs {self.epochs}, batch {self.batch}, samples {self.samples}, learning_rate "
                f"{self.learning_rate} and {len(self.train_IN)} training images must be positive."
            )


class VariationalState(NamedTuple):
    """The encoder after ``trained`` of the betas; nothing else is kept from one β to the next."""

    encoder: dict[str, Tensor]
    trained: int


class Point(NamedTuple):
    """The rate and distortion of each measured image at one β, float64."""

    beta: float
    rate_I: Tensor  # nats, exact for this encoder
    distortion_I: Tensor  # the mean over samples


def gaussian_encoder(
    values: int, latent_dim: int, *, seed: int, widths: Sequence[int] = WIDTHS
) -> nn.Sequential:
    """A perceptron N-widths-2K with tanh, which gives the mean and log variance of z."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return mlp((values, *widths, 2 * latent_dim))


def start(training: Training) -> VariationalState:
    """The state before the first β."""
    return VariationalState(_weights(training.encoder), trained=0)


def done(training: Training, state: VariationalState) -> bool:
    return state.trained >= len(training.betas)


def advance(training: Training, state: VariationalState) -> tuple[VariationalState, Point]:
    """Train at the next β and measure the encoder there.

    Adam starts afresh at each β, so that a state is an encoder and a count. The result depends on
    ``training`` and ``state`` alone (on the same kind of machine, with the same number of threads).
    """
    if done(training, state):
        raise InputError(f"all {state.trained} betas are trained.")
    encoder = copy.deepcopy(training.encoder)
    encoder.load_state_dict(state.encoder)
    _train(training, encoder, state.trained)
    point = _measure(training, encoder, state.trained)
    return VariationalState(_weights(encoder), state.trained + 1), point


def gaussian_rate(mean_BK: Tensor, log_variance_BK: Tensor, scale: float) -> Tensor:
    """The divergence KL(N(mean, diag variance) ‖ N(0, scale² I)) in nats, [B]."""
    log_ratio_BK = log_variance_BK - 2 * math.log(scale)
    return 0.5 * (log_ratio_BK.exp() - 1 - log_ratio_BK + (mean_BK / scale) ** 2).sum(-1)


def _train(training: Training, encoder: nn.Module, index: int) -> None:
    images = len(training.train_IN)
    batches = math.ceil(images / training.batch)
    optimizer = torch.optim.Adam(encoder.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs * batches)
    encoder.train()
    for epoch in range(training.epochs):
        draws = Draws(
            training.seed, ("variational", index, epoch), images, device=training.train_IN.device
        )
        order_T = draws.uniform("order", 0, 1).argsort()
        noise_TK = draws.normal("latent", training.prior.latent_dim)
        for rows_B in order_T.split(training.batch):
            optimizer.zero_grad()
            _loss(
                training,
                encoder,
                training.betas[index],
                training.train_IN[rows_B],
                noise_TK[rows_B],
            ).backward()
            optimizer.step()
            schedule.step()


def _loss(
    training: Training, encoder: nn.Module, beta: float, x_BN: Tensor, noise_BK: Tensor
) -> Tensor:
    """A scalar with the gradient of R + β D, where d enters by ∂d/∂φ = ∇d · ∂z/∂φ."""
    mean_BK, log_variance_BK = _encode(training, encoder, x_BN)
    z_BK = mean_BK + (0.5 * log_variance_BK).exp() * noise_BK.to(mean_BK.dtype)
    grad_d_BK = training.distortion.of(x_BN).grad(z_BK.detach()[:, None])[:, 0]
    rate_B = gaussian_rate(mean_BK, log_variance_BK, training.prior.scale)
    return (rate_B + beta * (grad_d_BK * z_BK).sum(-1)).mean()


@torch.no_grad()
def _measure(training: Training, encoder: nn.Module, index: int) -> Point:
    x_IN, beta = training.distortion.x_IN, training.betas[index]
    encoder.eval()
    mean_IK, log_variance_IK = _encode(training, encoder, x_IN)
    sd_IK = (0.5 * log_variance_IK).exp()
    distortion_I = torch.zeros(len(x_IN), dtype=torch.float64, device=x_IN.device)
    for sample in range(training.samples):
        key = ("variational", "measure", index, sample)
        draws = Draws(training.seed, key, len(x_IN), device=x_IN.device)
        z_IK = mean_IK + sd_IK * draws.normal("latent", training.prior.latent_dim).to(sd_IK.dtype)
        distortion_I += training.distortion.value_and_grad(z_IK[:, None])[0][:, 0]
    rate_I = gaussian_rate(mean_IK.double(), log_variance_IK.double(), training.prior.scale)
    return Point(beta, rate_I, distortion_I / training.samples)


def _encode(training: Training, encoder: nn.Module, x_BN: Tensor) -> tuple[Tensor, Tensor]:
    moments = encoder(x_BN)
    expected = (len(x_BN), 2 * training.prior.latent_dim)
    if moments.shape != expected:
        raise InputError(
            f"the encoder gives {list(moments.shape)} for {len(x_BN)} images; mean and log "
            f"variance of {training.prior.latent_dim} latents are {list(expected)}."
        )
    mean_BK, log_variance_BK = moments.chunk(2, -1)
    return mean_BK, log_variance_BK


def _weights(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
