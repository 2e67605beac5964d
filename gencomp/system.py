"""The contracts of gencomp, which define a system, a phase and a codec.

A *system* is one published method. It owns its networks, says which updates one training step
makes, evaluates batches into sums that can be merged, and offers a codec. A *phase* is one
differentiable objective with the networks that it updates. The training loop (`cluster/worker.py`)
knows nothing else of a method.

Every method can rely on the following:

- An update may take a fresh batch or reuse the last one. `updates(progress)` is a function of the
  position in the run, so an order that depends on the batch index, or a regulariser every 16 steps,
  needs no state. Batches of one image are legal where a recipe takes no batch statistics.
- Each phase says which of its networks it trains (`trains`) and which run in evaluation mode
  (`evaluates`), so it may use networks that another phase trains. Networks that no phase trains and
  no checkpoint holds are in `System.frozen`.
- Batches carry uint8 images, their maps (label ids) and the row of every sample in its split.
  Evaluations take images of any sizes, whole unless `evaluation.transforms` says otherwise.
- State that is neither a weight nor an optimizer's (rate controllers, entropy-coder tables) is in
  buffers of `networks`, so checkpoints and codecs have it.
- Figures and evaluations use a method through hooks that may answer None: `reconstruct`, `latents`,
  `sample`, `latent_decoder`, `codec`, `ideal` and `evaluation_network`.
- What a codec writes may depend on values that its readers need not know (which coder, how long it
  searches). They form the `WritingSection` of a recipe, and a finished run may be given others.

On paper, the systems fit the hooks as follows:

- DPLC: WGAN-GP takes five critic updates on fresh batches, and the generator's update on the fifth.
  Codecs keep G in `networks`, since their files must decode without the parent. Images have 64×64
  pixels only.
- Universal rate-distortion-perception: critic and generator batches alternate by the index in the
  epoch, `progress.samples` modulo the epoch. A universal decoder has the encoder E1 of its base run
  in `frozen`, by `load_frozen(parents)`; all of it, its statistics too, is in evaluation mode,
  which the authors' code missed. Its critic starts from the base run's critic in `initialise`. In
  training the dither comes from `draws`. There is no prior, so `latents` and `sample` are None.
- GAN compression: both updates use one batch of one image, the second with `fresh_batch` false. VGG
  is in `frozen`, from a file whose hash the recipe states. Label maps are in `Batch.maps`, so
  `sample(draws, like=batch)` follows the maps and the size, and its noise map fits that size. It is
  trained on crops and evaluated on whole images.
- Relative entropy coding: the prior is a hierarchy, so `latents` is None, and `sample` takes its
  size from `like`. The expected divergence of each channel, by which latents are cut into blocks,
  is measured in `finalise`.

A codec that decodes in floating point writes the digests of `gencomp.coding.digest`, or says what
another processor shows without them. On paper, the codecs fit into `Codec` as follows:

- DPLC: a picture is one section. B's noise is a function of the reader, the code, a salt of a few
  bits in the section, and the draw. Decoders that share E read the same streams with different
  noise.
- Universal rate-distortion-perception: the dither of a picture is a function of (seed, its index,
  layer, latent). 1,000 digits at 4.755 bits are one container with shared sections: the seed and
  the first index, all symbols as one number, and all symbols of the refinement layer as another.
  To leave the refinement out, the other sections are packed as a new container under the
  fingerprint of the base encoder alone. Decoders for other perception weights are readers of one
  writer. The nominal bits are d·log2 L.
- GAN compression: the C symbols of a place are a code with tables of its own; the nominal bits are
  C·log2(L)·⌈H/16⌉·⌈W/16⌉ from sides of 32 on, and None where regions are chosen. The label map, the
  instances and the mask are sections of their own, so `code_bits` counts them and `parts` names
  them. Its noise v is `draw`. What selective compression keeps is chosen when a file is written: a
  `WritingSection`, or the map `mask` of a picture.
- Relative entropy coding: the numbers of steps K given the layer, and then their indices given K,
  are coders in turn. All layers of a picture and its residual are in one section, whose first byte
  names the coder of the latents. There is no fixed length, so `nominal_bits` is None. A lossless
  stream is an exact container, which a machine on which the decoder's networks differ by a bit
  refuses by name; a lossy one has no digest, and shows an image there that differs by as little.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gencomp.coding.container import MAX_PIXELS
from gencomp.coding.latent_model import Gaussian
from gencomp.coding.symbols import LayerSymbols
from gencomp.draws import Draws
from gencomp.sums import Sums

if TYPE_CHECKING:
    from gencomp.rate_distortion.priors import Prior


class Batch(NamedTuple):
    """This rank's share of a global batch.

    Attributes:
        images_BCHW: the images, uint8 RGB, or float32 in [0, 1) where the recipe asks for dither.
        rows_B: the row of each image in its split (the same in every epoch), int64.
        positions_B: the place of each sample in the endless training stream, int64.
        labels_B: the label of each image, int64, -1 where there is none.
        maps: the maps of pixels (label ids, instances) by name, uint8 or int32 [B, H, W].
    """

    images_BCHW: Tensor
    rows_B: Tensor
    positions_B: Tensor
    labels_B: Tensor
    maps: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Progress:
    """The position of a run before an update.

    Attributes:
        step: the number of steps done.
        samples: the number of images of the training stream that all ranks have consumed so far.
        epoch_length: the number of images in the training split.
    """

    step: int
    samples: int
    epoch_length: int

    @property
    def epoch(self) -> float:
        """The number of passes over the split so far, a fraction."""
        return self.samples / self.epoch_length


class Update(NamedTuple):
    """One optimizer step of a phase, on a fresh batch or on the previous one."""

    phase: str
    fresh_batch: bool


class PhaseLoss(NamedTuple):
    """The scalar to differentiate, which is the global batch's loss on every rank, and terms."""

    loss: Tensor
    terms: Mapping[str, Tensor]


class Phase(nn.Module, ABC):
    """One objective, which the trainer wraps in DistributedDataParallel.

    An update makes one forward and one backward pass.

    Attributes:
        networks: all networks that the objective runs.
        trains: the names of the networks that it updates; the others are frozen meanwhile.
        evaluates: the names of the networks that run in evaluation mode; the others run in training
            mode.
        second_order: whether the loss contains gradients of the networks that it trains (a gradient
            penalty), so that they must run in float32 and uncompiled.
        logs_gradients: whether the norm of each trained network's gradient is a term of the update.
    """

    second_order = False
    logs_gradients = False

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        trains: Sequence[str],
        evaluates: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self.trains = tuple(trains)
        self.evaluates = tuple(evaluates)

    @abstractmethod
    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        """The loss of the global batch; every rank must make its collective calls in one order."""

    def trained_parameters(self) -> list[nn.Parameter]:
        return [p for name in self.trains for p in self.networks[name].parameters()]

    def take_over(self) -> None:
        """Set the gradients and modes of all its networks for an update of this phase.

        This is also needed while DistributedDataParallel is constructed, since that keeps only the
        parameters that need a gradient at that time.
        """
        for name, network in self.networks.items():
            network.requires_grad_(name in self.trains)
            network.train(name not in self.evaluates)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image with the side information that a codec gets.

    Attributes:
        image_HWC: the uint8 pixels [H, W, 3].
        maps: the maps of the image's pixels (label ids, a mask) by name, [H, W], for a codec that
            uses maps.
        index: the key of the randomness that sender and receiver share; no two pictures of a sender
            have the same index.
    """

    image_HWC: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    index: int = 0


class Codec(Protocol):
    """A codec, which turns pictures into streams and back with the weights of one checkpoint.

        ( picture ) ──compress──▶ ( container ) ──decompress──▶ ( image )

    Attributes:
        codec_id: the short name of the method and its stage, for messages.
        writer_fingerprint: the hash of the encoder, the quantizer and the tables, which each stream
            carries.
        reader_fingerprint: the hash of the writer and of this decoder. Every decoder of a stream's
            writer can read the stream, and no other decoder can.
        parts: the names of a picture's sections in their order, such as labels and latents; what
            pictures share belongs to the last part, and so do the nominal bits.
        maps: the names of the maps of a picture that it may use.
    """

    codec_id: str
    parts: tuple[str, ...]
    maps: tuple[str, ...]
    writer_fingerprint: bytes
    reader_fingerprint: bytes

    def compress(self, picture: Picture) -> bytes:
        """The container of one picture."""
        ...

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of all pictures, no longer than their single containers together."""
        ...

    def decompress(
        self,
        stream: bytes,
        *,
        place: int = 0,
        maps: Mapping[str, np.ndarray] | None = None,
        draw: int | None = None,
        max_pixels: int = MAX_PIXELS,
        name: str = "stream",
    ) -> np.ndarray:
        """One image of a container, uint8 [H, W, 3].

        Where the stream has a digest, the image has the pixels that the writer's decoder has shown,
        or is refused: see `gencomp.coding.digest`. Without one, the codec says how far another
        processor may be from them. A stream that claims more than its length can hold is refused
        in neither the time nor the memory that it claims to need.

        Args:
            stream: the bytes that `compress` or `compress_jointly` returned.
            place: the number of the picture in the container, from 0.
            maps: the maps that the receiver has and the stream leaves out.
            draw: the number of the draw of the decoder's noise. None and 0 are the draw that every
                decoder shows; any other number is another draw, and always the same one. A decoder
                without noise shows the same image for all draws.
            max_pixels: the number of pixels that are decoded at most; a stream that claims more is
                refused before any work, and so is one that is too short for what it claims.
            name: the name of the stream in an error message.

        Raises:
            InputError: the stream is damaged or comes from another writer, claims too many pixels
                or decodes to other ones than where it was written, or there is no such picture or
                draw.
        """
        ...

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """The image that `decompress` gives for a picture, bit for bit, without a stream."""
        ...

    def code_bits(self, stream: bytes) -> int:
        """The bits that a stream spends on its pictures' code and salt, without the container."""
        ...

    def nominal_bits(self, height: int, width: int) -> float | None:
        """The bits of one image at the method's fixed length; None for a method without one.

        They need not be whole where images share a number of bits.
        """
        ...


class Ideal(NamedTuple):
    """What the code of a picture would be if its coder lost nothing.

    Attributes:
        bits: the bits of a code at the bound of the model: the divergence of the posterior from the
            prior and, where the image is coded without loss, the bits of its residual. It is a
            number on average over samples of the posterior, and need not be whole.
        image_HWC: the uint8 image [H, W, 3] that a sample of the posterior shows.
    """

    bits: float
    image_HWC: np.ndarray


# An endless supply of training batches outside the steps, each with its own draws. It is the same
# after a resume.
Supply = Iterator[tuple[Batch, Draws]]


class LatentDecoder(NamedTuple):
    """A generator in the form that the rate-distortion evaluation needs: p(z) and images f(z).

    Attributes:
        decode: maps latents [B, k] to mean images f(z) [B, n], flattened, on the model's own scale.
            It is the module itself where that is a plain chain of layers, which samplers can speed
            up.
        target: maps uint8 images [B, 3, H, W] to [B, n] on the same scale.
        prior: the prior of the latents.
        values: the number n of values of an image.
        log_variance: the log s² of the pixel model N(f(z), s²), one element or [n]; None for a
            model that has no s².
    """

    decode: Callable[[Tensor], Tensor]
    target: Callable[[Tensor], Tensor]
    prior: Prior
    values: int
    log_variance: Tensor | None = None

    @property
    def latent_dim(self) -> int:
        """The number k of latent dimensions."""
        return self.prior.latent_dim


class Latents(NamedTuple):
    """The latents of images, and the prior N(0, σ² I) that they should follow.

    Attributes:
        z_BK: one latent of each image, [n, K], on the scale that the decoder takes.
        variance: the variance σ² of the prior.
    """

    z_BK: Tensor
    variance: float


class System(ABC):
    """One published method at one stage.

    Attributes:
        networks: the networks that a checkpoint must hold to continue training or to decode.
        phases: the objectives by name.
    """

    networks: nn.ModuleDict
    phases: dict[str, Phase]

    @cached_property
    def frozen(self) -> nn.ModuleDict:
        """Networks that no phase trains and no checkpoint holds, such as a parent's encoder or VGG.

        They stay in evaluation mode and without gradients, and move to a device with the others.
        Their hash is a part of the system's identity. A phase that runs one names it in
        `evaluates`.
        """
        return nn.ModuleDict()

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load the weights of `frozen`.

        This is called on the CPU after construction, also on resume and for decoding.

        Args:
            parents: the final state of the `networks` of each parent run, by role.

        Raises:
            InputError: a file of weights that the recipe names is missing or has another content.
        """
        if self.frozen:
            raise NotImplementedError("a system with frozen networks says where they come from")

    def to(self, device: torch.device) -> None:
        """Move all networks to a device, in the memory format channels last.

        That format halves the time of a step on a CPU and suits tensor cores; values do not depend
        on it.
        """
        for networks in (self.networks, self.frozen):
            networks.to(device)
            networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @abstractmethod
    def updates(self, progress: Progress) -> Sequence[Update]:
        """The updates of one step in order, of which the first must take a fresh batch."""

    @abstractmethod
    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        """A new optimizer over the phase's trained parameters (any number of parameter groups)."""

    @abstractmethod
    def learning_rates(self, phase: str, progress: Progress) -> Sequence[float]:
        """The learning rate of each parameter group as a function of progress, without state."""

    @abstractmethod
    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Set the networks' state at the start of a run.

        This is called once on every rank after construction, but not on resume.

        Args:
            parents: the state of the `networks` of each parent run, by role.
            supply: training batches, for a start that depends on them.
        """

    @abstractmethod
    def finalise(self, supply: Supply) -> None:
        """Compute what depends on final weights, such as batch statistics and entropy-coder tables.

        This is called once on every rank after the last step, before the last checkpoint.
        """

    @abstractmethod
    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """The sums over this rank's share of one evaluation batch; the share may be empty."""

    @abstractmethod
    def summary(self, sums: Sums) -> dict[str, float]:
        """The metrics that merged sums give, under flat names."""

    @abstractmethod
    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The rows of a sample grid, as uint8 images [n, 3, H, W] by title."""

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor | None:
        """One reconstruction of each image, uint8 [n, 3, H, W]; None if there is no encoder.

        Like `evaluate`, it is called in evaluation mode and on every rank for its share of a batch.
        In a stochastic system, other draws give other reconstructions.
        """
        return None

    def latents(self, batch: Batch, draws: Draws) -> Latents | None:
        """The latents that `reconstruct` decodes for the same draws, and their prior.

        The result is None without an encoder or a prior. The call is like that of `reconstruct`.
        """
        return None

    def sample(self, draws: Draws, like: Batch) -> Tensor | None:
        """Images sampled from the prior for this rank's rows, uint8 [n, 3, H, W], or None.

        The result is None without a prior. The call is like that of `reconstruct`.

        Args:
            draws: the random numbers behind the samples.
            like: a batch with the same number of images. The samples have the size of its images,
                and a conditional model follows its maps and labels; its pixels are not used.
        """
        return None

    def codec(self) -> Codec | None:
        """The codec of these weights; None for a stage that has no code."""
        return None

    def coding_networks(self) -> nn.ModuleDict:
        """The networks and tables that `codec` reads, by names of their own.

        They are what a model file holds (`gencomp.model_file`). By default they are all networks;
        a system leaves out those that only training needs, such as a critic.
        """
        return nn.ModuleDict({**self.networks, **self.frozen})

    def ideal(self) -> Callable[[Picture], Ideal] | None:
        """The function that says what the codec's files would be without any loss of coding.

        It runs the codec's own networks in their precision, and gives the same for a picture every
        time. The result is None for a method whose coder loses nothing to speak of.
        """
        return None

    def targets(self, picture: Picture) -> list[Gaussian] | None:
        """The posteriors of the blocks of latents that relative entropy coding has to code.

        They are those of a picture, for latents whose prior is N(0, 1), and show how that coder
        fares on these weights. The result is None for a method whose codec has no such latents.
        """
        return None

    def mixed_codec(self, other: System, share: float) -> Codec | None:
        """The codec of images between those of this decoder and of another one of the same encoder.

        It shows (1 − a)·x̂ + a·x̂' for this decoder's x̂, the other's x̂' and the share a, before the
        values are rounded. The result is None for a method whose encoders have one decoder each.

        Raises:
            InputError: the other system's decoder belongs to another encoder.
        """
        return None

    def symbols(self) -> Sequence[LayerSymbols]:
        """The entropy of each symbol of the code, layer by layer; none for a method without tables.

        It is that of the entropy coder's tables, which were counted on training images, and given
        what sender and receiver share, such as a dither.
        """
        return ()

    def latent_decoder(self) -> LatentDecoder | None:
        """The generator of these weights in evaluation mode; None for a method that has none."""
        return None

    def evaluation_network(self) -> nn.Module | None:
        """The network by which the images of other runs are judged, or None.

        It maps uint8 images [B, 3, H, W] to features [B, D], which distances between sets of images
        compare, or to the logits of each pixel's classes [B, K, H, W]. It is float32 on the CPU, in
        evaluation mode, and can be scripted by TorchScript.
        """
        return None


@contextmanager
def evaluation_mode(networks: nn.ModuleDict) -> Iterator[None]:
    """Run networks in evaluation mode without gradients, and restore their modes afterwards."""
    modes = {name: module.training for name, module in networks.items()}
    networks.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, module in networks.items():
            module.train(modes[name])
