"""The contracts of gencomp: what a system, a phase and a codec are.

A *system* is one published method. It owns its networks, says which updates one training step
makes, evaluates batches into mergeable sums and offers a codec. A *phase* is one differentiable
objective with the networks it updates. The training loop (`cluster/worker.py`) knows nothing else.

What the contract gives every method:

- an update may take a fresh batch or reuse the last one, and `updates(progress)` is a function of
  the position in the run, so an order that depends on the batch index, or a regulariser every 16
  steps, needs no state; batches of one image are legal where a recipe takes no batch statistics;
- networks in evaluation mode and networks that another phase trains are told apart per phase
  (`trains`, `evaluates`); what no phase trains and no checkpoint holds is `System.frozen`;
- batches carry uint8 images, their maps (label ids) and the row of every sample in its split;
  evaluations take images of any sizes, whole unless `evaluation.transforms` says otherwise;
- state that is neither weight nor optimizer (rate controllers, entropy-coder tables) lives in
  buffers of `networks`, so checkpoints and codecs see it;
- what figures and evaluations ask of a method is a hook that may answer None: `reconstruct`,
  `latents`, `sample`, `latent_decoder`, `codec`.

How the systems map onto the hooks, tried on paper:

- DPLC: WGAN-GP takes five critic updates on fresh batches and the generator's on the fifth. Codecs
  keep G in `networks`, since their files must decode without the parent; 64×64 pixels only.
- Universal rate-distortion-perception: critic and generator batches alternate by the index in the
  epoch, `progress.samples` modulo the epoch. A universal decoder has the encoder E1 of its base run
  in `frozen`, by `load_frozen(parents)`: statistics and all in evaluation mode, which the authors'
  code missed, and its critic starts from the base run's in `initialise`. In training the dither is
  `draws`; there is no prior, so `latents` and `sample` are None.
- GAN compression: one batch of one image for both updates, the second with `fresh_batch` false;
  VGG in `frozen`, of a file whose hash the recipe states; label maps in `Batch.maps`, so
  `sample(draws, like=batch)` follows the maps and the size, with a noise map to fit. Trained on
  crops, evaluated whole. The warm-up of its moving average needs a key beside `ema_decay`.
- Relative entropy coding: the prior is a hierarchy, so `latents` and `latent_decoder` are None and
  `sample` takes its size from `like`; variance ratios and index models are fitted in `finalise`.

How their codecs map onto `Codec`, tried on paper:

- DPLC: one section a picture. B's noise is a function of the reader, the code and the draw, so it
  costs no bit, and decoders that share E read the same streams with noise of their own.
- Universal rate-distortion-perception: the dither of a picture is a function of (seed, its index,
  layer, latent). 1,000 digits at 4.755 bits are one container of shared sections: the seed and the
  first index, all symbols as one number, those of the refinement layer as another. Leaving the
  refinement out is packing the rest anew, under the fingerprint of the base encoder alone.
  Decoders for other perception weights are readers of one writer; nominal are ⌈d·log2 L⌉ bits.
- GAN compression: symbols under static tables of each channel, nominal C·log2(L)·⌈H/16⌉·⌈W/16⌉.
  The conditional model's second latent, or the label map and the mask of selective compression,
  are sections of their own, so `code_bits` counts them; a map that the receiver has anyway comes
  as `maps`. Its noise v is `draw`. A context model is a coder of `gencomp.coding.coders`.
- Relative entropy coding: numbers of steps K given the layer and then their indices given K are
  coders in turn, all blocks of a picture in one section, the seed in front; no fixed length, so
  `nominal_bits` is None. A lossless stream carries the checksum of its image, and a machine on
  which the decoder's networks differ by a bit refuses it by name.
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

from gencomp.draws import Draws
from gencomp.sums import Sums

if TYPE_CHECKING:
    from gencomp.rate_distortion.priors import Prior


class Batch(NamedTuple):
    """This rank's share of a global batch.

    Attributes:
        images_BCHW: uint8 RGB, or float32 in [0, 1) where the recipe asks for dither.
        rows_B: int64, row of each image in its split (the same in every epoch).
        positions_B: int64, place of each sample in the endless training stream.
        labels_B: int64, -1 where there is none.
        maps: name -> map of pixels [B, H, W], uint8 or int32 (label ids, instances).
    """

    images_BCHW: Tensor
    rows_B: Tensor
    positions_B: Tensor
    labels_B: Tensor
    maps: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Progress:
    """Where a run is before an update.

    Attributes:
        step: steps done.
        samples: images of the training stream consumed so far, over all ranks.
        epoch_length: images in the training split.
    """

    step: int
    samples: int
    epoch_length: int

    @property
    def epoch(self) -> float:
        """Passes over the split so far, fractional."""
        return self.samples / self.epoch_length


class Update(NamedTuple):
    """One optimizer step: the phase, and whether it takes a fresh batch or the previous one."""

    phase: str
    fresh_batch: bool


class PhaseLoss(NamedTuple):
    """Scalar to differentiate (the global batch's loss, equal on every rank), and named terms."""

    loss: Tensor
    terms: Mapping[str, Tensor]


class Phase(nn.Module, ABC):
    """One objective. The trainer wraps it in DistributedDataParallel: one forward, one backward.

    Attributes:
        networks: all networks the objective runs.
        trains: names of those whose parameters it updates; the others are frozen meanwhile.
        evaluates: names of those that run in evaluation mode; the others run in training mode.
        second_order: its loss holds gradients of the networks it trains (a gradient penalty), so
            they run in float32 and uncompiled.
    """

    second_order = False

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
        """The loss of the global batch. Runs its collectives on every rank, in the same order."""

    def trained_parameters(self) -> list[nn.Parameter]:
        return [p for name in self.trains for p in self.networks[name].parameters()]

    def take_over(self) -> None:
        """Set gradients and modes of all its networks for an update of this phase.

        Also needed while DistributedDataParallel is constructed: it keeps only what then needs a
        gradient.
        """
        for name, network in self.networks.items():
            network.requires_grad_(name in self.trains)
            network.train(name not in self.evaluates)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as a codec sees it.

    Attributes:
        image_HWC: uint8 pixels [H, W, 3].
        maps: name -> map of its pixels [H, W] (label ids, a mask), for a codec that uses such.
        index: the key of randomness that sender and receiver share; no two pictures of a sender
            have the same.
    """

    image_HWC: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    index: int = 0


class Codec(Protocol):
    """Pictures to streams and back, from one checkpoint.

        ( picture ) ──compress──▶ ( container ) ──decompress──▶ ( image )

    Attributes:
        codec_id: short name of the method and its stage, for messages.
        writer_fingerprint: names what a stream is addressed to, the encoder, the quantizer and the
            tables; the stream carries it.
        reader_fingerprint: names the writer and this decoder. One stream is read by every decoder
            of its writer, and by no other.
    """

    codec_id: str
    writer_fingerprint: bytes
    reader_fingerprint: bytes

    def compress(self, picture: Picture) -> bytes:
        """The container of one picture."""
        ...

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of all of them, no longer than their containers together."""
        ...

    def decompress(
        self,
        stream: bytes,
        *,
        place: int = 0,
        maps: Mapping[str, np.ndarray] | None = None,
        draw: int | None = None,
        name: str = "stream",
    ) -> np.ndarray:
        """One image of a container, uint8 [H, W, 3].

        Args:
            stream: what `compress` or `compress_jointly` returned.
            place: number of the picture in the container, from 0.
            maps: those that the receiver has and the stream leaves out.
            draw: of the decoder's noise; None or 0 is what every decoder shows, other numbers are
                other draws, each the same for ever. A decoder without noise shows the same for all.
            name: what to call the stream in an error.

        Raises:
            InputError: a stream that is damaged or of another writer, no such picture or draw.
        """
        ...

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """What `decompress` gives for a picture, bit for bit, without a stream."""
        ...

    def code_bits(self, stream: bytes) -> int:
        """The bits that a stream spends on the code of all its pictures, container left out."""
        ...

    def nominal_bits(self, height: int, width: int) -> int | None:
        """The bits of one image at the method's fixed length; None for a method without one."""
        ...


# Batches of the training split outside the steps, each with its own draws; endless, the same on
# resume.
Supply = Iterator[tuple[Batch, Draws]]


class LatentDecoder(NamedTuple):
    """A generator as the rate-distortion evaluation sees it: p(z), and images f(z).

    Attributes:
        decode: latents [B, k] -> mean images f(z) [B, n], flattened, on the model's own scale; the
            module itself where that is a plain chain of layers, which samplers can speed up.
        target: uint8 images [B, 3, H, W] -> [B, n] on the same scale.
        prior: of the latents.
        values: n.
        log_variance: log s² of the pixel model N(f(z), s²), of one element or [n]; None for a model
            that states none.
    """

    decode: Callable[[Tensor], Tensor]
    target: Callable[[Tensor], Tensor]
    prior: Prior
    values: int
    log_variance: Tensor | None = None

    @property
    def latent_dim(self) -> int:
        """k."""
        return self.prior.latent_dim


class Latents(NamedTuple):
    """What images are encoded to, and the prior N(0, σ² I) that their latents should follow.

    Attributes:
        z_BK: one latent of each image, [n, K], on the scale that the decoder takes.
        variance: σ² of the prior.
    """

    z_BK: Tensor
    variance: float


class System(ABC):
    """One published method at one stage.

    Attributes:
        networks: everything that a checkpoint must hold to go on or to decode.
        phases: name -> objective.
    """

    networks: nn.ModuleDict
    phases: dict[str, Phase]

    @cached_property
    def frozen(self) -> nn.ModuleDict:
        """Networks that no phase trains and no checkpoint holds: a parent's encoder, VGG.

        They stay in evaluation mode and without gradients, move with the others, and their hash is
        part of what identifies the system. A phase that runs one names it in `evaluates`.
        """
        return nn.ModuleDict()

    def load_frozen(self, parents: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Fill `frozen`; called on the CPU after construction, also on resume and for decoding.

        Args:
            parents: role -> final state of the parent run's `networks`.

        Raises:
            InputError: a file of weights that the recipe names is missing, or another one.
        """
        if self.frozen:
            raise NotImplementedError("a system with frozen networks says where they come from")

    def to(self, device: torch.device) -> None:
        """Move all networks to a device.

        Channels last halves a step on a CPU and suits tensor cores; values do not depend on it.
        """
        for networks in (self.networks, self.frozen):
            networks.to(device)
            networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @abstractmethod
    def updates(self, progress: Progress) -> Sequence[Update]:
        """The updates of one step, in order. The first must take a fresh batch."""

    @abstractmethod
    def optimizer(self, phase: str) -> torch.optim.Optimizer:
        """A new optimizer over the phase's trained parameters (any number of parameter groups)."""

    @abstractmethod
    def learning_rates(self, phase: str, progress: Progress) -> Sequence[float]:
        """Learning rate of each parameter group: a function of progress, so it keeps no state."""

    @abstractmethod
    def initialise(self, parents: Mapping[str, Mapping[str, Tensor]], supply: Supply) -> None:
        """Called once at the start of a run (not on resume), on every rank, after construction.

        Args:
            parents: role -> state of the parent run's `networks`.
            supply: training batches for whatever the start depends on.
        """

    @abstractmethod
    def finalise(self, supply: Supply) -> None:
        """Called once after the last step, on every rank, before the last checkpoint.

        For what depends on final weights: batch statistics, entropy-coder tables.
        """

    @abstractmethod
    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        """Sums over this rank's share of one evaluation batch (which may be empty)."""

    @abstractmethod
    def summary(self, sums: Sums) -> dict[str, float]:
        """Merged sums -> metrics under flat names."""

    @abstractmethod
    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Rows of a sample grid: title -> uint8 images [n, 3, H, W]."""

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor | None:
        """One reconstruction of each image, uint8 [n, 3, H, W]; None for a system without encoder.

        Like `evaluate`, it is called in evaluation mode and on every rank for its share of a batch;
        in a stochastic system other draws give other reconstructions.
        """
        return None

    def latents(self, batch: Batch, draws: Draws) -> Latents | None:
        """The latents behind `reconstruct` and their prior; None without an encoder or a prior.

        Called like `reconstruct`: for the same draws, these are the latents that it decodes.
        """
        return None

    def sample(self, draws: Draws, like: Batch) -> Tensor | None:
        """Images of the prior for this rank's rows, uint8 [n, 3, H, W]; None without a prior.

        Called like `reconstruct`.

        Args:
            draws: what the samples come from.
            like: as many images; samples have their size, and a conditional model follows their
                maps and labels. The pixels are not looked at.
        """
        return None

    def codec(self) -> Codec | None:
        """The codec of these weights; None for a stage that has no code."""
        return None

    def latent_decoder(self) -> LatentDecoder | None:
        """The generator of these weights in evaluation mode; None for a method that has none."""
        return None


@contextmanager
def evaluation_mode(networks: nn.ModuleDict) -> Iterator[None]:
    """Evaluation mode without gradients; the modes are put back afterwards."""
    modes = {name: module.training for name, module in networks.items()}
    networks.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, module in networks.items():
            module.train(modes[name])
