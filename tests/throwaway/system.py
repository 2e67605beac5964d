"""The system `identity`: one objective, the mean squared error, and a codec."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gencomp import quantizer
from gencomp.coding import container, digest, fixed_length
from gencomp.coding.fingerprint import fingerprint
from gencomp.draws import Draws
from gencomp.sums import Sums
from gencomp.system import Batch, Phase, PhaseLoss, Picture, Progress, Supply
from gencomp.systems.common import pixels
from gencomp.systems.common.evaluation_sums import errors_summary, squared_errors
from gencomp.systems.common.objectives import Objective, SystemOfObjectives
from gencomp.systems.identity.recipe import IdentityRecipe


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.offset


class ErrorPhase(Phase):
    """MSE(x, a·q(x) + b) over the global batch."""

    def __init__(self, networks: Mapping[str, nn.Module], cells: quantizer.Quantizer) -> None:
        super().__init__(networks, trains=["decoder"])
        self.cells = cells

    def forward(self, batch: Batch, draws: Draws, progress: Progress) -> PhaseLoss:
        x = pixels.to_signed(batch.images_BCHW)
        made = self.networks["decoder"](quantizer.quantize(x, self.cells))
        # Ranks have unequal shares, and DistributedDataParallel averages over ranks.
        weight = draws.world / draws.batch_size
        mse = (made - x).square().flatten(1).mean(1).sum() * weight
        return PhaseLoss(mse, {"mse": mse.detach()})


class Identity(SystemOfObjectives):
    def __init__(self, recipe: IdentityRecipe) -> None:
        self.cells = quantizer.cells(recipe.quantizer.levels)
        nets = {"decoder": Affine()}
        phase = ErrorPhase(nets, self.cells)
        super().__init__(nets, {"affine": Objective(phase, recipe.optimizer)})

    def finalise(self, supply: Supply) -> None:
        """Nothing depends on final weights."""

    def reconstruct(self, batch: Batch, draws: Draws) -> Tensor:
        coded = quantizer.quantize(pixels.to_signed(batch.images_BCHW), self.cells)
        return pixels.to_bytes(self.networks["decoder"](coded))

    def evaluate(self, batch: Batch, draws: Draws) -> Sums:
        x = pixels.to_signed(batch.images_BCHW)
        return squared_errors(x, pixels.to_signed(self.reconstruct(batch, draws)))

    def summary(self, sums: Sums) -> dict[str, float]:
        return errors_summary(sums)

    def pictures(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {"original": batch.images_BCHW, "decoded": self.reconstruct(batch, draws)}

    def codec(self) -> IdentityCodec:
        return IdentityCodec(self.networks, self.cells)


class IdentityCodec:
    """Implements `gencomp.system.Codec`: one section of packed symbols a picture."""

    codec_id = "identity"
    parts: tuple[str, ...] = ("code",)
    maps: tuple[str, ...] = ()

    def __init__(self, networks: nn.ModuleDict, cells: quantizer.Quantizer) -> None:
        self.cells, self.decoder = cells, copy.deepcopy(networks["decoder"]).cpu().double()
        heading = f"identity {cells.levels}"
        self.writer_fingerprint = fingerprint(heading, nn.ModuleDict(), container.FINGERPRINT_BYTES)
        self.reader_fingerprint = fingerprint(heading, networks, 8)

    def compress(self, picture: Picture) -> bytes:
        return self.compress_jointly([picture])

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        members = tuple(
            container.Member(*one.image_HWC.shape[:2], (self._pack(one.image_HWC),))
            for one in pictures
        )
        hashes = (digest.hashed(self.reconstruct(one), self.reader_fingerprint) for one in pictures)
        digests = digest.of(hashes, self.reader_fingerprint)
        return container.pack(
            container.Container(self.writer_fingerprint, members, digests=digests)
        )

    def decompress(
        self,
        stream: bytes,
        *,
        place: int = 0,
        maps: Mapping[str, np.ndarray] | None = None,
        draw: int | None = None,
        max_pixels: int = container.MAX_PIXELS,
        name: str = "stream",
    ) -> np.ndarray:
        found = self._open(stream, name)
        member = container.member_at(found, place, name, max_pixels)
        shape = (member.height, member.width, 3)
        symbols = fixed_length.unpack(member.sections[0], self.cells.levels, int(np.prod(shape)))
        image_HWC = self._decode(torch.from_numpy(symbols.reshape(shape)))
        digest.require(found, place, image_HWC, self.reader_fingerprint, name)
        return image_HWC

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        return self._decode(self._symbols(picture.image_HWC))

    def code_bits(self, stream: bytes) -> int:
        return 8 * self._open(stream, "stream").code_bytes

    def nominal_bits(self, height: int, width: int) -> int:
        return fixed_length.packed_bits(height * width * 3, self.cells.levels)

    def _open(self, stream: bytes, name: str) -> container.Container:
        return container.open_for(stream, self.codec_id, self.writer_fingerprint, name)

    def _symbols(self, image_HWC: np.ndarray) -> Tensor:
        x_HWC = torch.from_numpy(image_HWC.copy()).double() / 127.5 - 1
        return quantizer.quantize_hard(x_HWC, self.cells)

    def _pack(self, image_HWC: np.ndarray) -> bytes:
        symbols = self._symbols(image_HWC).flatten().numpy()
        return fixed_length.pack(symbols, self.cells.levels)

    @torch.no_grad()
    def _decode(self, symbols_HWC: Tensor) -> np.ndarray:
        values = quantizer.symbols_to_values(symbols_HWC, self.cells, dtype=torch.float64)
        return pixels.to_bytes(self.decoder(values)).numpy()
