"""The codec of distribution-preserving compression: a 64×64 image to a container and back.

The encoder sends the symbols of E(x), packed at log2(L) bits each. The latent map's noise is a
function of the model and the payload, so it costs no bits and decoding is deterministic. All
networks run in float64 and evaluation mode: a reconstruction then depends on neither the batch, the
number of threads nor the convolution algorithm, because differences of 1e-13 do not survive the
rounding to 8 bits.
"""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from gencomp import quantizer
from gencomp.coding import container, fixed_length
from gencomp.errors import InputError
from gencomp.networks.dplc import CODE_SIDE, IMAGE_SIDE, LatentMapper

CODEC_ID = "dplc"


class DplcCodec:
    """Implements `gencomp.system.Codec`.

    Args:
        networks: `code_encoder`, `latent_mapper` and `generator`; copied.
        levels: quantiser levels L.
    """

    codec_id = CODEC_ID

    def __init__(self, networks: nn.ModuleDict, levels: int) -> None:
        self.levels = levels
        self._networks = copy.deepcopy(networks).cpu().double().eval().requires_grad_(False)
        mapper = self._networks["latent_mapper"]
        assert isinstance(mapper, LatentMapper)
        self._code_shape = (mapper.code_channels, CODE_SIDE, CODE_SIDE)
        self._noise_shape = mapper.noise_shape
        self.fingerprint = fingerprint(networks, levels)

    def compress(self, image_HWC: np.ndarray) -> bytes:
        """A uint8 image [64, 64, 3] as a container.

        Raises:
            InputError: another size or type of image.
        """
        return container.pack(self._container(self._encode(image_HWC)))

    def decompress(self, stream: bytes, name: str = "stream") -> np.ndarray:
        """The uint8 image [64, 64, 3] of a container.

        Args:
            stream: what `compress` returned.
            name: what to call the stream in an error.

        Raises:
            InputError: damaged, or written by another model.
        """
        try:
            found = container.unpack(stream)
        except InputError as error:
            raise InputError(f"{name} cannot be decoded: {error}") from None
        container.require_model(found, self.codec_id, self.fingerprint, name)
        if (found.height, found.width, len(found.sections)) != (IMAGE_SIDE, IMAGE_SIDE, 1):
            raise InputError(f"{name} is not one {IMAGE_SIDE}×{IMAGE_SIDE} image of this codec")
        return self._decode(found.sections[0])

    def reconstruct(self, image_HWC: np.ndarray) -> np.ndarray:
        """What the decoder will show for an image, without a container."""
        return self._decode(self._encode(image_HWC))

    def payload_bits(self, height: int, width: int) -> int:
        """Bits of an image's code, without the container: n·16·log2(L) at 64×64."""
        if (height, width) != (IMAGE_SIDE, IMAGE_SIDE):
            raise InputError(
                f"this codec takes {IMAGE_SIDE}×{IMAGE_SIDE} images, not {height}×{width}"
            )
        return fixed_length.packed_bits(int(np.prod(self._code_shape)), self.levels)

    @torch.no_grad()
    def _encode(self, image_HWC: np.ndarray) -> bytes:
        if image_HWC.dtype != np.uint8 or image_HWC.shape != (IMAGE_SIDE, IMAGE_SIDE, 3):
            raise InputError(
                f"this codec takes {IMAGE_SIDE}×{IMAGE_SIDE} RGB images of 8 bits,"
                f" not {image_HWC.dtype} of shape {'×'.join(map(str, image_HWC.shape))}"
            )
        x_BCHW = torch.from_numpy(np.array(image_HWC)).permute(2, 0, 1)[None].double() / 127.5 - 1
        symbols_BCHW = quantizer.quantize_hard(self._networks["code_encoder"](x_BCHW), self.levels)
        return fixed_length.pack(symbols_BCHW[0].numpy(), self.levels)

    @torch.no_grad()
    def _decode(self, payload: bytes) -> np.ndarray:
        count = int(np.prod(self._code_shape))
        symbols = fixed_length.unpack(payload, self.levels, count).reshape(self._code_shape)
        code_BCHW = quantizer.symbols_to_values(
            torch.from_numpy(symbols)[None], self.levels, dtype=torch.float64
        )
        z_BM11 = self._networks["latent_mapper"](code_BCHW, self._noise(payload))
        x_BCHW = (self._networks["generator"](z_BM11) + 1) * 127.5
        return x_BCHW[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    def _noise(self, payload: bytes) -> Tensor:
        """Uniform noise keyed by model and payload; Philox's integers are the same everywhere."""
        key = hashlib.blake2b(payload, key=self.fingerprint, digest_size=16).digest()
        raw = np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(
            int(np.prod(self._noise_shape))
        )
        unit = (np.atleast_1d(raw) >> np.uint64(11)) * 2.0**-53
        noise = (2 * unit - 1) * quantizer.half_cell(self.levels)
        return torch.from_numpy(noise.reshape(1, *self._noise_shape))

    def _container(self, payload: bytes) -> container.Container:
        return container.Container(
            self.codec_id, self.fingerprint, IMAGE_SIDE, IMAGE_SIDE, (payload,)
        )


def fingerprint(networks: nn.ModuleDict, levels: int) -> bytes:
    """8 bytes that name the weights, buffers and quantiser of a codec."""
    digest = hashlib.blake2b(
        f"{CODEC_ID} {levels}".encode(), digest_size=container.FINGERPRINT_BYTES
    )
    for name, tensor in sorted(networks.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
