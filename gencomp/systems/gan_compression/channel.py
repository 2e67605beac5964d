"""The way from images to latents, and from their code to images: what both sides compute.

    sender      image (+ labels) ──▶ latents w ──▶ symbols
    receiver    centres ŵ (+ labels, mask, noise) ──▶ image

Images are continued at the bottom and on the right until their sides are multiples of 16 and at
least 32, and their maps with them. With labels that are sent, the label encoder's features are a
part of the decoder's input. In mode conditional they are one of the encoder's last layer too, so
that the code need not say what the labels say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gencomp.draws import Draws
from gencomp.networks.gan_compression import autoencoder as networks
from gencomp.networks.padding import extended, whole_size
from gencomp.system import Batch
from gencomp.systems.common import pixels
from gencomp.systems.gan_compression import labels
from gencomp.systems.gan_compression.code import Code
from gencomp.systems.gan_compression.recipe import GanRecipe, LabelsSection, Mode


class Scene(NamedTuple):
    """Images as networks see them, continued to sides that are multiples of 16.

    Attributes:
        x_BCHW: the images on [−1, 1].
        planes_BKHW: the planes of their label maps, if the mode uses labels.
        height, width: the size of the images themselves.
        kept_B1HW: the latents that are kept of each image, as 0 and 1, in mode selective.
    """

    x_BCHW: Tensor
    planes_BKHW: Tensor | None
    height: int
    width: int
    kept_B1HW: Tensor | None = None

    def cut(self, y_BCHW: Tensor) -> Tensor:
        """The part of something of the continued size that belongs to the images themselves."""
        return y_BCHW[:, :, : self.height, : self.width]

    @property
    def images_BCHW(self) -> Tensor:
        """The images themselves."""
        return self.cut(self.x_BCHW)


class Passed(NamedTuple):
    """What a scene has become.

    Attributes:
        w_BCHW: the latents.
        received_BCHW: the centres that the receiver has, 0 where nothing is sent.
        x_hat_BCHW: the images on [−1, 1], of their own size.
    """

    w_BCHW: Tensor
    received_BCHW: Tensor
    x_hat_BCHW: Tensor


@dataclass(frozen=True)
class Channel:
    """The way from images to images of one recipe.

    Its functions take the networks `encoder`, `code`, `decoder`, with labels that are sent
    `label_encoder`, and in mode selective `lift`.

    Attributes:
        labels: who sees which labels.
        noise_channels: the number of channels of the decoder's noise.
    """

    labels: LabelsSection
    noise_channels: int

    @property
    def mode(self) -> Mode:
        return self.labels.mode

    @property
    def stride(self) -> int:
        """The height and width of an image over those of its latents."""
        return networks.STRIDE // 2 if self.mode == "selective" else networks.STRIDE

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The size to which images of a size are continued."""
        return whole(height), whole(width)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the latents of images of a size."""
        return whole(height) // self.stride, whole(width) // self.stride

    def scene(self, batch: Batch, kept_BHW: Tensor | None = None) -> Scene:
        """The scene of a batch.

        Args:
            batch: the images with their maps.
            kept_BHW: the pixels of the regions that are kept, in mode selective.

        Raises:
            InputError: a map is missing.
        """
        height, width = batch.images_BCHW.shape[2:]
        size = self.size(height, width)
        x_BCHW = extended(pixels.to_signed(batch.images_BCHW), *size)
        planes_BKHW, kept_B1HW = None, None
        if self.labels.used:
            names = self.labels.maps()
            maps = {n: extended(m, *size) for n, m in batch.maps.items() if n in names}
            planes_BKHW = labels.planes(maps, self.labels, x_BCHW.dtype)
        if kept_BHW is not None:
            kept_B1HW = labels.cells(extended(kept_BHW, *size), self.stride).to(x_BCHW.dtype)
        return Scene(x_BCHW, planes_BKHW, height, width, kept_B1HW)

    def drawn_scene(self, batch: Batch, draws: Draws) -> Scene:
        """The scene of a batch, of which regions are drawn in mode selective."""
        if self.mode != "selective":
            return self.scene(batch)
        size = batch.images_BCHW.shape[2:]
        return self.scene(batch, labels.drawn_regions(batch.maps, self.labels, draws, *size))

    def known(self, nets: nn.ModuleDict, scene: Scene) -> Tensor | None:
        """The features of the labels that the receiver has, [B, F, H/16, W/16]; None without."""
        return nets["label_encoder"](scene.planes_BKHW) if self.labels.sent else None

    def latents(self, nets: nn.ModuleDict, scene: Scene, known_BFHW: Tensor | None) -> Tensor:
        """The latents w of a scene.

        Args:
            nets: the networks.
            scene: the scene.
            known_BFHW: the features of the labels, as `known` gives them.
        """
        shown_BFHW = known_BFHW if self.mode == "conditional" else None
        return nets["encoder"](scene.x_BCHW, shown_BFHW)

    def decoded(
        self,
        nets: nn.ModuleDict,
        received_BCHW: Tensor,
        known_BFHW: Tensor | None,
        noise_BVHW: Tensor | None,
    ) -> Tensor:
        """The images on [−1, 1], of the continued size.

        Args:
            nets: the networks.
            received_BCHW: the centres, 0 where nothing was sent.
            known_BFHW: the features of the labels, as `known` gives them.
            noise_BVHW: the noise, as `noise` draws it.
        """
        z_BCHW = nets["lift"](received_BCHW) if self.mode == "selective" else received_BCHW
        parts = [z_BCHW, known_BFHW, noise_BVHW]
        return nets["decoder"](torch.cat([p for p in parts if p is not None], 1))

    def noise(self, draws: Draws, height: int, width: int) -> Tensor | None:
        """Standard normal noise for images of a size, [B, V, H/16, W/16]; None without noise."""
        if not self.noise_channels:
            return None
        size = (whole(side) // networks.STRIDE for side in (height, width))
        return draws.normal("noise", self.noise_channels, *size)

    def passed(self, nets: nn.ModuleDict, scene: Scene, draws: Draws) -> Passed:
        """All the way, with the quantizer's gradient."""
        known_BFHW = self.known(nets, scene)
        w_BCHW = self.latents(nets, scene, known_BFHW)
        received_BCHW = nets["code"](w_BCHW)
        if scene.kept_B1HW is not None:
            received_BCHW = received_BCHW * scene.kept_B1HW
        noise_BVHW = self.noise(draws, scene.height, scene.width)
        if noise_BVHW is not None:
            noise_BVHW = noise_BVHW.to(received_BCHW.dtype)
        x_hat_BCHW = self.decoded(nets, received_BCHW, known_BFHW, noise_BVHW)
        return Passed(w_BCHW, received_BCHW, scene.cut(x_hat_BCHW))


def whole(side: int) -> int:
    """The side to which an image is continued."""
    return whole_size(side, networks.STRIDE, networks.LEAST)


def codec_networks(recipe: GanRecipe) -> dict[str, nn.Module]:
    """Fresh networks of sender and receiver, by name."""
    settings, code, of_labels = recipe.networks, recipe.code, recipe.labels
    layers = networks.Layers(settings.norm, settings.padding)
    width, mode = settings.width, of_labels.mode
    selective = mode == "selective"
    features = networks.STRIDE * width
    found: dict[str, nn.Module] = {
        "encoder": networks.Encoder(
            code.channels,
            width,
            layers,
            halvings=3 if selective else 4,
            known=features if mode == "conditional" else 0,
            rectified=settings.last_layer == "rectified",
        ),
        "code": Code(code, prior=recipe.loss.rate.used),
    }
    inputs = (features if selective else code.channels) + settings.noise_channels
    if of_labels.sent:
        found["label_encoder"] = networks.label_encoder(of_labels.planes, width, layers)
        inputs += features
    if selective:
        found["lift"] = networks.lift(code.channels, width, layers)
    found["decoder"] = networks.Decoder(
        inputs, width, settings.residual_blocks, layers, settings.recompute_blocks
    )
    return found


def channel(recipe: GanRecipe) -> Channel:
    return Channel(recipe.labels, recipe.networks.noise_channels)
