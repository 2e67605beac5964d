"""The models of one image at a time in float64, as the coders of latents take them.

Each class is a `gencomp.coding.latent_model.LatentModel` over the networks of a stage, with the
values of a layer in the order C, H, W. Images of any size are padded to sides that the model takes
by repeating their last row and column; both sides know the true size. All that the receiver must
compute as the sender does is rounded by `gencomp.coding.latent_model.rounded`; the coder of the
residual rounds the means of the likelihood.

A layer's distributions are computed once, when the layers before it are known, and the sender's
posterior and both sides' prior come from the same pass. The lossy models work through large images
in strips of rows, which depend on nothing outside a margin of two rows of latents, so the results
are those of the whole image. As published, at 4,000×4,000 pixels, their maps at half the size would
fill 6 GB each, and those of a strip fill 0.5 GB: an image of 1,024×4,000 pixels takes 2.8 GB in
all, and more rows add their latents only. The lossless model keeps what all layers say of an
image, which for 24 layers as published is 3 kB a pixel, so large images are coded in tiles of
512×512 pixels at most (`tiles`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gencomp.coding.latent_model import Floats, Gaussian, Logistic, rounded
from gencomp.networks import logistic
from gencomp.networks.float64 import in_float64
from gencomp.networks.irec.lossy import Head, OneLevel, TwoLevel, as_prior
from gencomp.networks.irec.rvae import Heads, Inferred, Rvae
from gencomp.networks.latents import LatentNetwork, Normal, Posterior
from gencomp.systems.irec.expected_kl import ExpectedKl

TILE = 512
# The largest map of a strip has so many values, half a gigabyte in float64.
_STRIP_VALUES = 1 << 26
# The standard deviation of a uniform distribution of width 1.
_UNIFORM_DEVIATION = 12**-0.5


class Tile(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class LosslessState(NamedTuple):
    """What is known of an image before a layer.

    Attributes:
        height, width: the size of the image in pixels.
        layer: the number of the layer.
        features: the features from the layers before, [1, D, H, W].
        heads: the layer's distributions; None after the last layer.
        inferred: what the image says of the posteriors of the layers that are left; None at a
            receiver.
    """

    height: int
    width: int
    layer: int
    features: Tensor
    heads: Heads | None
    inferred: tuple[Inferred, ...] | None


class LossyState(NamedTuple):
    """What is known of an image before a layer.

    Attributes:
        height, width: the size of the image in pixels.
        layer: the number of the layer.
        prior: the prior of the layer; None after the last layer.
        posterior: the posterior of the layer; None at a receiver and after the last layer.
        head: what the image says of the last layer; None at a receiver.
        z: the latents of the layer before, [1, C, H, W]; None before the first layer.
    """

    height: int
    width: int
    layer: int
    prior: Normal | None
    posterior: Posterior | None = None
    head: Head | None = None
    z: Tensor | None = None


class RvaeLatents:
    """The latents of the ResNet VAE, a `LatentModel` with a likelihood.

    Args:
        model: the model.
        likelihood: its likelihood.
        expected_kl: its table of expected divergences.

    Attributes:
        layers: the number of layers.
        stride: the sides of an image are padded to multiples of it.
    """

    def __init__(
        self, model: Rvae, likelihood: logistic.LogisticPixels, expected_kl: ExpectedKl
    ) -> None:
        exact = in_float64(model)
        assert isinstance(exact, Rvae)
        self._model, self._blocks = exact, exact.layers()
        self._scale = float(likelihood.log_scale.detach().double().exp())
        self._expected_kl = expected_kl
        self.layers, self.stride = len(self._blocks), model.stride

    def dimensions(self, height: int, width: int) -> tuple[int, ...]:
        """The number D of values of each layer for an image of a size."""
        return _dimensions(self._model, height, width)

    @torch.no_grad()
    def start(self, height: int, width: int, image_HWC: np.ndarray | None = None) -> LosslessState:
        """The state before the first layer; see `LatentModel`."""
        features = self._model.base(1, *self._model.size(height, width))
        inferred = None
        if image_HWC is not None:
            x_1CHW = logistic.centres_of(_image(image_HWC))
            inferred = tuple(self._model.up(self._model.padded(x_1CHW)))
        return LosslessState(height, width, 0, features, self._blocks[0].heads(features), inferred)

    def prior(self, state: LosslessState) -> Gaussian:
        assert state.heads is not None
        return _rounded(state.heads.prior)

    @torch.no_grad()
    def posterior(self, state: LosslessState) -> Gaussian:
        assert state.heads is not None and state.inferred is not None
        return _rounded(state.heads.posterior(state.inferred[0]))

    @torch.no_grad()
    def after(self, state: LosslessState, z_D: Floats) -> LosslessState:
        """The state before the next layer; see `LatentModel`."""
        assert state.heads is not None
        z_1CHW = _as_map(z_D, state.heads.prior.mean)
        features = self._blocks[state.layer].down(state.features, state.heads, z_1CHW)
        layer = state.layer + 1
        heads = self._blocks[layer].heads(features) if layer < self.layers else None
        inferred = None if state.inferred is None else state.inferred[1:]
        return LosslessState(state.height, state.width, layer, features, heads, inferred)

    @torch.no_grad()
    def likelihood(self, state: LosslessState) -> Logistic:
        """The distribution of the image after the last layer."""
        mean_1CHW = self._model.mean(state.features)[:, :, : state.height, : state.width]
        return Logistic(mean_1CHW[0].permute(1, 2, 0).reshape(-1).numpy(), self._scale)

    @torch.no_grad()
    def shown(self, state: LosslessState) -> np.ndarray:
        """The means of the likelihood as an image, which is not the coded one."""
        mean_1CHW = self._model.mean(state.features)[:, :, : state.height, : state.width]
        return _pixels(logistic.bytes_of(mean_1CHW))

    def expected_D(self, state: LosslessState) -> Floats:
        """The expected divergence of each value of the next layer in nats, known to both sides."""
        assert state.heads is not None
        return _expected(self._expected_kl, state.layer, state.heads.prior.mean)


class LossyLatents:
    """The latents of a lossy model, a `LatentModel` with an image to be shown.

    The scales of a uniform posterior are the standard deviation √(1/12).

    Args:
        model: the model.
        expected_kl: its table of expected divergences.

    Attributes:
        layers: the number of layers.
        stride: the sides of an image are padded to multiples of it.
        uniform: whether posteriors are uniform of width 1 about their means.
    """

    def __init__(self, model: TwoLevel | OneLevel, expected_kl: ExpectedKl) -> None:
        exact = in_float64(model)
        assert isinstance(exact, TwoLevel | OneLevel)
        self._model, self._expected_kl = exact, expected_kl
        self.layers, self.stride = len(model.channels), model.stride
        self.uniform = not model.gaussian

    def dimensions(self, height: int, width: int) -> tuple[int, ...]:
        """The number D of values of each layer for an image of a size."""
        return _dimensions(self._model, height, width)

    @torch.no_grad()
    def start(self, height: int, width: int, image_HWC: np.ndarray | None = None) -> LossyState:
        """The state before the first layer; see `LatentModel`."""
        model = self._model
        places = (side // model.units[0] for side in model.size(height, width))
        prior = model.prior(1, *places)
        if image_HWC is None:
            return LossyState(height, width, 0, prior)
        x_1CHW = _image(image_HWC) / 255
        head = analysed(model, model.padded(x_1CHW))
        first = model.hyper_analyse(head) if isinstance(model, TwoLevel) else head
        return LossyState(height, width, 0, prior, first.posterior(), head)

    def prior(self, state: LossyState) -> Gaussian:
        assert state.prior is not None
        return _rounded(state.prior)

    def posterior(self, state: LossyState) -> Gaussian:
        posterior = state.posterior
        assert posterior is not None
        if isinstance(posterior, Normal):
            return _rounded(posterior)
        deviations = torch.full_like(posterior.mean, _UNIFORM_DEVIATION)
        return _rounded(Normal(posterior.mean, deviations))

    @torch.no_grad()
    def after(self, state: LossyState, z_D: Floats) -> LossyState:
        """The state before the next layer; see `LatentModel`."""
        assert state.prior is not None
        model, z_1CHW = self._model, _as_map(z_D, state.prior.mean)
        layer = state.layer + 1
        if layer == self.layers:
            return LossyState(state.height, state.width, layer, None, z=z_1CHW)
        assert isinstance(model, TwoLevel)
        prior_head = model.hyper_synthesise(z_1CHW)
        posterior = None if state.head is None else model.joined(state.head, prior_head)
        prior = as_prior(prior_head)
        return LossyState(state.height, state.width, layer, prior, posterior, state.head, z_1CHW)

    def likelihood(self, state: LossyState) -> Logistic:
        """A lossy model has no likelihood.

        Raises:
            TypeError: always.
        """
        raise TypeError("a lossy model has no likelihood of the image")

    @torch.no_grad()
    def shown(self, state: LossyState) -> np.ndarray:
        """The image of the latents."""
        assert state.z is not None
        x_1CHW = synthesised(self._model, state.z)[:, :, : state.height, : state.width]
        return _pixels((x_1CHW * 255).round().clamp(0, 255).to(torch.uint8))

    def expected_D(self, state: LossyState) -> Floats:
        """The expected divergence of each value of the next layer in nats, known to both sides."""
        assert state.prior is not None
        return _expected(self._expected_kl, state.layer, state.prior.mean)


def tiles(height: int, width: int, side: int = TILE) -> list[Tile]:
    """The tiles of an image row by row, at most `side` high and wide and about equal in size."""
    return [
        Tile(top, left, rows, columns)
        for top, rows in _pieces(height, side)
        for left, columns in _pieces(width, side)
    ]


def analysed(model: TwoLevel | OneLevel, x_1CHW: Tensor, strip_values: int = _STRIP_VALUES) -> Head:
    """The analysis of an image in strips of rows; see `synthesised`."""
    unit, heads = model.unit, []
    for strip in _strips(model, x_1CHW.shape[2] // unit, x_1CHW.shape[3], strip_values):
        head = model.analyse(x_1CHW[:, :, unit * strip.first : unit * strip.end])
        raw = None if head.raw is None else strip.own(head.raw)
        heads.append(Head(strip.own(head.mean), raw))
    raws = [head.raw for head in heads if head.raw is not None]
    mean = torch.cat([head.mean for head in heads], dim=2)
    return Head(mean, torch.cat(raws, dim=2) if raws else None)


def synthesised(
    model: TwoLevel | OneLevel, z_1CHW: Tensor, strip_values: int = _STRIP_VALUES
) -> Tensor:
    """The synthesis of an image in strips of rows.

    Args:
        model: the model.
        z_1CHW: the latents.
        strip_values: the number of values of the largest map of a strip, about.
    """
    unit, (height, width) = model.unit, z_1CHW.shape[2:]
    return torch.cat(
        [
            strip.own(model.synthesise(z_1CHW[:, :, strip.first : strip.end]), unit)
            for strip in _strips(model, height, unit * width, strip_values)
        ],
        dim=2,
    )


class _Strip(NamedTuple):
    """Rows of latents, with a margin about those that are wanted.

    Attributes:
        first, end: the rows with their margins.
        begin, stop: the rows that are wanted, counted from the first.
    """

    first: int
    end: int
    begin: int
    stop: int

    def own(self, x_1CHW: Tensor, unit: int = 1) -> Tensor:
        """The rows that are wanted of a map with so many rows for each row of latents."""
        return x_1CHW[:, :, unit * self.begin : unit * self.stop]


def _strips(
    model: TwoLevel | OneLevel, rows: int, columns: int, strip_values: int
) -> Iterator[_Strip]:
    """The strips of an image with so many rows of latents and columns of pixels."""
    in_a_row = model.channels[-1] * (columns // model.finest) * (model.unit // model.finest)
    wanted = max(1, strip_values // in_a_row - 2 * model.reach)
    for begin in range(0, rows, wanted):
        stop = min(rows, begin + wanted)
        first, end = max(0, begin - model.reach), min(rows, stop + model.reach)
        yield _Strip(first, end, begin - first, stop - first)


def _pieces(size: int, side: int) -> Iterator[tuple[int, int]]:
    """The starts and lengths of the fewest pieces of a length, all even but for the last."""
    length = -(-size // -(-size // side))
    length += length % 2
    for start in range(0, size, length):
        yield start, min(length, size - start)


def _dimensions(model: LatentNetwork, height: int, width: int) -> tuple[int, ...]:
    places = model.places(height, width)
    return tuple(size * count for size, count in zip(model.channels, places, strict=True))


def _image(image_HWC: np.ndarray) -> Tensor:
    """An image as float64 [1, 3, H, W] on 0..255."""
    image_CHW = np.ascontiguousarray(image_HWC.transpose(2, 0, 1), dtype=np.float64)
    return torch.from_numpy(image_CHW)[None]


def _pixels(bytes_1CHW: Tensor) -> np.ndarray:
    return np.ascontiguousarray(bytes_1CHW[0].permute(1, 2, 0).numpy())


def _as_map(z_D: Floats, like_1CHW: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(z_D)).view(like_1CHW.shape)


def _rounded(normal: Normal) -> Gaussian:
    return rounded(*(x.reshape(-1).numpy() for x in normal))


def _expected(table: ExpectedKl, layer: int, like_1CHW: Tensor) -> Floats:
    places = like_1CHW.shape[2] * like_1CHW.shape[3]
    return np.repeat(table.of(layer).double().cpu().numpy(), places)
