"""The codec of distribution-preserving compression, for images of any size.

The image is cut into tiles of 64×64 pixels (`gencomp.coding.tiles`). The encoder sends the symbols
of E for every tile, packed at log2(L) bits each or entropy-coded, whichever is shorter
(`gencomp.coding.payload`). They are the picture's one section, alone or in a joint container. The
latent map's noise is a function of the reader, the tile's symbols, its place in the image, the draw
and a few bits of salt in the section, so decoding is deterministic, and pictures with equal codes
are still shown as different images.

All networks run in float64 and in evaluation mode (`gencomp.networks.float64`). A tile then depends
neither on the other tiles of a batch, nor on the number of threads, nor on the way in which a
convolution is computed: sums in another order differ by 1e-12 grey levels, and the rounding to 8
bits hides that in all but one value in about 10^12. The container's digests find that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from gencomp import quantizer
from gencomp.coding import container, digest, fixed_length, tiles
from gencomp.coding.fingerprint import fingerprint
from gencomp.coding.noise import keyed_uniform, require_draw, salt_of
from gencomp.coding.payload import PayloadCoder
from gencomp.coding.tables import Integers
from gencomp.errors import InputError
from gencomp.networks.dplc import CODE_SIDE, IMAGE_SIDE, LatentMapper
from gencomp.networks.float64 import in_float64
from gencomp.system import Picture
from gencomp.systems.common.code_tables import CodeTables
from gencomp.systems.common.pictures import require_size, required

CODEC_ID = "dplc"
# The networks that write a stream; the others only read it.
_WRITER = ("code_encoder", "code_tables")
_READER_FINGERPRINT_BYTES = 8
# So many share the reading of the weights. More are hardly faster, and memory stays small.
_TILES_AT_ONCE = 8


class DplcCodec:
    """The codec of one checkpoint, which implements `gencomp.system.Codec`.

    Args:
        networks: `code_encoder`, `latent_mapper`, `generator` and `code_tables`, which are copied.
        levels: the number L of levels of the quantizer.
        salt_bits: the number of bits of a picture's salt, 0..24; a decoder without noise has none.
    """

    codec_id = CODEC_ID
    parts: tuple[str, ...] = ("code",)
    maps: tuple[str, ...] = ()

    def __init__(self, networks: nn.ModuleDict, levels: int, salt_bits: int) -> None:
        self.levels = levels
        self._cells = quantizer.cells(levels)
        self._networks = nn.ModuleDict({name: in_float64(net) for name, net in networks.items()})
        mapper, tables = self._networks["latent_mapper"], self._networks["code_tables"]
        assert isinstance(mapper, LatentMapper) and isinstance(tables, CodeTables)
        self._code_shape = (mapper.code_channels, CODE_SIDE, CODE_SIDE)
        self._noise_shape = mapper.noise_shape
        self._symbols_of_tile = tables.tables().count
        self.salt_bits = salt_bits if mapper.noise_channels else 0
        self._payload = PayloadCoder(tables.tables(), self.salt_bits)
        heading = f"{CODEC_ID} {levels} {self.salt_bits}"
        writer = nn.ModuleDict({name: networks[name] for name in _WRITER})
        self.writer_fingerprint = fingerprint(heading, writer, container.FINGERPRINT_BYTES)
        # It is the key of the decoder's noise, so it must never change.
        self.reader_fingerprint = fingerprint(heading, networks, _READER_FINGERPRINT_BYTES)

    def compress(self, picture: Picture) -> bytes:
        """The container of a picture, whose maps and index are not used.

        Raises:
            InputError: the image has another type, has no pixels, or has a side of more than 65535
                pixels.
        """
        return self.compress_jointly([picture])

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of pictures of any sizes, each with the section that it has alone.

        Raises:
            InputError: there is no picture, or `compress` refuses one of them.
        """
        written = [self._written(picture) for picture in pictures]
        members = tuple(member for member, _ in written)
        digests = digest.of((hashed for _, hashed in written), self.reader_fingerprint)
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
        """The uint8 image [H, W, 3] of a picture; see `gencomp.system.Codec`.

        All draws are the same if B has no noise input.

        Raises:
            InputError: the stream is damaged, was written by another encoder or decodes to other
                pixels than where it was written, there is no such picture, it claims more pixels
                than are allowed, or the draw lies outside 0..2^64 − 1.
        """
        require_draw(draw or 0)
        found = self._open(stream, name)
        member = container.member_at(found, place, name, max_pixels)
        symbols_TN, salt = self._read(member, name)
        image_HWC = self._decode(symbols_TN, salt, member.height, member.width, draw)
        if not draw:
            digest.require(found, place, image_HWC, self.reader_fingerprint, name)
        return image_HWC

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """The image that the decoder will show for a picture, without a container."""
        symbols_TN = self._encode(picture.image_HWC)
        salt = salt_of(picture.image_HWC, self.salt_bits)
        height, width = picture.image_HWC.shape[:2]
        return self._decode(symbols_TN, salt, height, width, draw)

    def code_bits(self, stream: bytes) -> int:
        """The bits of the sections of a stream, in whole bytes; the salt is a part of them.

        Raises:
            InputError: the stream is damaged or was written by another encoder.
        """
        return 8 * self._open(stream, "stream").code_bytes

    def nominal_bits(self, height: int, width: int) -> int:
        """The bits of an image's code at the fixed length.

        They are n·16·log2(L) for each of the ⌈H/64⌉·⌈W/64⌉ tiles of 64×64 pixels. A section may
        need fewer bits, but never more than these and those of the salt.

        Raises:
            InputError: no container can hold an image of this size.
        """
        require_size(height, width)
        count = self._tiles(height, width) * self._symbols_of_tile
        return fixed_length.packed_bits(count, self.levels)

    def _written(self, picture: Picture) -> tuple[container.Member, bytes]:
        """A picture in coded form, and the hash of the image that this decoder shows for it."""
        symbols_TN = self._encode(picture.image_HWC)
        height, width = picture.image_HWC.shape[:2]
        salt = salt_of(picture.image_HWC, self.salt_bits)
        shown_HWC = self._decode(symbols_TN, salt, height, width, None)
        member = container.Member(height, width, (self._payload.pack(symbols_TN, salt),))
        return member, digest.hashed(shown_HWC, self.reader_fingerprint)

    def _open(self, stream: bytes, name: str) -> container.Container:
        return container.open_for(stream, self.codec_id, self.writer_fingerprint, name)

    def _tiles(self, height: int, width: int) -> int:
        rows, columns = tiles.tile_counts(height, width, IMAGE_SIDE)
        return rows * columns

    def _read(self, found: container.Member, name: str) -> tuple[Integers, int]:
        """The symbols of a picture's tiles, [T, N], and its salt."""
        if len(found.sections) != 1:
            raise InputError(
                f"{name} cannot be decoded: it has {len(found.sections)} sections, but this codec"
                " writes one"
            )
        try:
            return self._payload.unpack(found.sections[0], self._tiles(found.height, found.width))
        except InputError as error:
            raise InputError(f"{name} cannot be decoded: {error}") from None

    @torch.no_grad()
    def _encode(self, image_HWC: np.ndarray) -> Integers:
        """The symbols of the tiles of an image, [T, N]."""
        image_HWC = required(image_HWC)
        tiles_TCHW = torch.from_numpy(tiles.split(image_HWC, IMAGE_SIDE)).permute(0, 3, 1, 2)
        found = []
        for tiles_BCHW in tiles_TCHW.split(_TILES_AT_ONCE):
            x_BCHW = tiles_BCHW.contiguous().double() / 127.5 - 1
            y_BCHW = self._networks["code_encoder"](x_BCHW)
            found.append(quantizer.quantize_hard(y_BCHW, self._cells).flatten(1))
        return torch.cat(found).numpy()

    @torch.no_grad()
    def _decode(
        self, symbols_TN: Integers, salt: int, height: int, width: int, draw: int | None
    ) -> np.ndarray:
        draw = draw or 0
        require_draw(draw)
        tiles_TCHW = np.empty((len(symbols_TN), 3, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        for first in range(0, len(symbols_TN), _TILES_AT_ONCE):
            chosen = slice(first, first + _TILES_AT_ONCE)
            tiles_TCHW[chosen] = self._decode_tiles(symbols_TN[chosen], salt, first, draw)
        return tiles.join(tiles_TCHW.transpose(0, 2, 3, 1), height, width)

    def _decode_tiles(self, symbols_BN: Integers, salt: int, first: int, draw: int) -> np.ndarray:
        """The uint8 tiles [B, 3, 64, 64] of an image, from its tile number `first` on."""
        code_BCHW = quantizer.symbols_to_values(
            torch.from_numpy(symbols_BN.reshape(-1, *self._code_shape)),
            self._cells,
            dtype=torch.float64,
        )
        noise_BCHW = np.stack(
            [
                self._noise(symbols_N, salt, first + i, draw)
                for i, symbols_N in enumerate(symbols_BN)
            ]
        )
        z_BM11 = self._networks["latent_mapper"](code_BCHW, torch.from_numpy(noise_BCHW))
        x_BCHW = (self._networks["generator"](z_BM11) + 1) * 127.5
        return x_BCHW.round().clamp(0, 255).to(torch.uint8).numpy()

    def _noise(self, symbols_N: Integers, salt: int, place: int, draw: int = 0) -> np.ndarray:
        """The noise of B for one tile, uniform on the half cell around 0."""
        code = fixed_length.pack(symbols_N, self.levels)
        unit = keyed_uniform(code, self.reader_fingerprint, self._noise_shape, place, draw, salt)
        return unit * quantizer.half_cell(self.levels)
