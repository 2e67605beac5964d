"""The codec of a stage: pictures as one container, which any decoder of the encoder reads.

A container's sections belong to all of its pictures (`gencomp.coding.container`):

| section | content |
|---|---|
| 0 | a byte of flags: 1 the base is entropy-coded, 2 the refinement is, 4 each index is listed |
| | the index of the first picture, from which the others count up, or a list of 8 bytes each |
| 1 | the symbols of the base of all pictures, picture by picture |
| 2 | with a refinement: 6 bytes of the refinement's fingerprint, and its symbols |

The symbols of a layer are one number at log2(L) bits each (`gencomp.coding.fixed_length`), or they
are entropy-coded with their probabilities given the dither (`tables`), whichever is shorter. The
last section can be cut off, and the rest decodes with a decoder of the base.

Dither is Philox with the layer's fingerprint as its seed and the picture's index as its counter
(`gencomp.coding.dither`), so it costs nothing but the index. Two pictures with one index would have
errors that depend on each other, so a container holds no index twice.

Networks run in float64, a picture at a time. Their values differ by about 1e-12 grey levels between
processors, so pixels are the same everywhere unless a value lies that close to the border of two
grey levels. The writer looks: only where a value is within `MARGIN` does the container carry the
digests of `gencomp.coding.digest`, which would cost far more than the code of small pictures.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from gencomp.coding import container, digest, fixed_length, joint
from gencomp.coding.dither import MAX_INDEX, unit_dither
from gencomp.coding.fingerprint import fingerprint
from gencomp.coding.noise import require_draw
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.tables import Integers
from gencomp.errors import InputError
from gencomp.networks.float64 import in_float64
from gencomp.system import Picture
from gencomp.systems.common.pixels import Pixels
from gencomp.systems.urdp import code as coding
from gencomp.systems.urdp.tables import LatentTables

CODEC_ID = "urdp"
# In grey levels: a thousand times what other processors were seen to differ by.
MARGIN = 1e-9
_READER_FINGERPRINT_BYTES = 8
_INDEX_BYTES = 8
_CODED = (1, 2)
_LISTED = 4
# So many rows of frequencies are made at a time, which keeps memory small.
_ROWS_AT_ONCE = 4096


class CodedLayer(NamedTuple):
    """One encoder with the tables and the code of its latents."""

    encoder: nn.Module
    tables: LatentTables
    code: coding.Code


class LaterUnits:
    """The dither of many pictures, which is made when it is asked for.

    A short file may claim many pictures, and is refused before the dither of most of them is made.

    Args:
        made: gives the dither of pictures from their indices, [N, K].
        indices: the indices of all pictures.
        latents: the number K of latents.
    """

    def __init__(
        self, made: Callable[[Sequence[int]], np.ndarray], indices: Sequence[int], latents: int
    ) -> None:
        self._made, self._indices = made, indices
        self.shape = len(indices), latents
        self.size = len(indices) * latents

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, pictures: slice) -> np.ndarray:
        return self._made(self._indices[pictures])


class UrdpCodec:
    """The codec of one checkpoint, which implements `gencomp.system.Codec`.

    Args:
        layers: the base and, for a refinement, the second layer.
        decoders: the decoders whose images are added with these weights; one of weight 1 for a run,
            two for a point between two runs.
        pixels: the format of the images.

    Raises:
        InputError: the tables of a layer are no distribution functions.
    """

    codec_id = CODEC_ID
    parts: tuple[str, ...] = ("code",)
    maps: tuple[str, ...] = ()

    def __init__(
        self, layers: Sequence[CodedLayer], decoders: Mapping[nn.Module, float], pixels: Pixels
    ) -> None:
        self._pixels = pixels
        for layer in layers:
            layer.tables.require_sound()
        self._layers = [
            CodedLayer(in_float64(layer.encoder), copy.deepcopy(layer.tables), layer.code)
            for layer in layers
        ]
        self._decoders = [(in_float64(decoder), weight) for decoder, weight in decoders.items()]
        self.layer_fingerprints = layer_fingerprints(layers, pixels)
        # The container that was read last: its pictures are asked for one by one, but share a code.
        self._latest: tuple[object, tuple[list[Integers], Sequence[int]]] | None = None
        # Every stream of the base can be read, with or without a refinement.
        self.writer_fingerprint = self.layer_fingerprints[0]
        weights = " ".join(repr(weight) for weight in decoders.values())
        self.reader_fingerprint = fingerprint(
            f"{CODEC_ID} {b''.join(self.layer_fingerprints).hex()} {weights}",
            nn.ModuleDict({str(i): decoder for i, decoder in enumerate(decoders)}),
            _READER_FINGERPRINT_BYTES,
        )

    def compress(self, picture: Picture) -> bytes:
        """The container of one picture.

        Raises:
            InputError: the image has another size or other colours than the encoder takes, or its
                index lies outside 0..2^64 − 1.
        """
        return self.compress_jointly([picture])

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of pictures, whose indices must differ.

        Raises:
            InputError: there is no picture, two have one index, or `compress` refuses one of them.
        """
        # Each picture is read once, since it may come from a file.
        encoded = [(picture.index, self._encoded(picture)) for picture in pictures]
        indices = [index for index, _ in encoded]
        _require_indices(indices)
        symbols = [np.stack(layer) for layer in zip(*(one for _, one in encoded), strict=True)]
        flags, payloads = 0, []
        for number, layer in enumerate(self._layers):
            payload, coded = _written(symbols[number], self._units(number, indices), layer)
            flags |= _CODED[number] * coded
            payloads.append((self.layer_fingerprints[number] if number else b"") + payload)
        side = self._pixels.height, self._pixels.width
        return container.pack(
            container.Container(
                self.writer_fingerprint,
                (container.Member(*side),) * len(indices),
                (_index_section(flags, indices), *payloads),
                self._digests(symbols, indices),
            )
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

        All draws are the same unless the dither is the receiver's own.

        Raises:
            InputError: the stream is damaged, was written by another encoder, lacks the refinement
                that this decoder needs, or decodes to other pixels than where it was written; there
                is no such picture or draw.
        """
        require_draw(draw or 0)
        found = self._open(stream, name)
        member = container.member_at(found, place, name, max_pixels)
        if (member.height, member.width) != (self._pixels.height, self._pixels.width):
            raise InputError(
                f"{name} cannot be decoded: its picture has {member.height}×{member.width} pixels,"
                f" but this codec shows {self._pixels.height}×{self._pixels.width}"
            )
        try:
            symbols, indices = self._read(found)
        except InputError as error:
            raise InputError(f"{name} cannot be decoded: {error}") from None
        chosen = [symbols_NK[place] for symbols_NK in symbols]
        image_HWC = self._rounded(self._decoded(chosen, indices[place], draw or 0))
        if not draw:
            digest.require(found, place, image_HWC, self.reader_fingerprint, name)
        return image_HWC

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """The image that the decoder will show for a picture, without a container."""
        require_draw(draw or 0)
        return self._rounded(self._decoded(self._encoded(picture), picture.index, draw or 0))

    def code_bits(self, stream: bytes) -> int:
        """The bits of the symbols of a stream's pictures, in whole bytes; indices are not counted.

        Raises:
            InputError: the stream is damaged, was written by another encoder, or lacks the
                refinement.
        """
        found = self._open(stream, "stream")
        self._require_layers(found)
        return 8 * sum(len(payload) for payload in self._payloads(found))

    def nominal_bits(self, height: int, width: int) -> float:
        """The bits of one image at the fixed length, Σ d·log2(L) over the layers."""
        return sum(layer.code.nominal_bits for layer in self._layers)

    def _units(self, number: int, indices: Sequence[int]) -> np.ndarray:
        """The dither of a layer in units of its step, float64 [N, K]; 0 where none is shared."""
        code = self._layers[number].code
        if code.dither != "shared":
            return np.zeros((len(indices), code.latents))
        seed = int.from_bytes(self.layer_fingerprints[number], "big")
        return code.keyed_units(seed, indices)

    @torch.no_grad()
    def _encoded(self, picture: Picture) -> list[Integers]:
        """The symbols of each layer, [K]; a picture runs alone, so others cannot change it."""
        _require_indices([picture.index])
        x_BCHW = self._unit_image(picture)
        found = []
        for number, layer in enumerate(self._layers):
            unit_BK = torch.from_numpy(self._units(number, [picture.index]))
            found.append(coding.symbols(layer.encoder(x_BCHW), unit_BK, layer.code)[0].numpy())
        return found

    def _unit_image(self, picture: Picture) -> torch.Tensor:
        """The image of a picture on [0, 1], float64 [1, C, H, W]."""
        image_HWC, pixels = picture.image_HWC, self._pixels
        expected = (pixels.height, pixels.width, 3)
        if image_HWC.dtype != np.uint8 or image_HWC.shape != expected:
            raise InputError(
                f"this codec takes RGB images of 8 bits and {pixels.height}×{pixels.width} pixels,"
                f" not {image_HWC.dtype} of shape {'×'.join(map(str, image_HWC.shape))}"
            )
        grey = bool((image_HWC == image_HWC[..., :1]).all())
        if pixels.channels == 1 and not grey:
            raise InputError("this codec takes grey images, not one in colour")
        x_HWC = torch.from_numpy(image_HWC[..., : pixels.channels] / 255)
        return x_HWC.permute(2, 0, 1)[None]

    @torch.no_grad()
    def _decoded(self, symbols: Sequence[Integers], index: int, draw: int) -> np.ndarray:
        """The values of one picture in grey levels before rounding, float64 [C, H, W].

        Args:
            symbols: the symbols of each layer, [K].
            index: the index of the picture.
            draw: the number of the draw of a dither that is the receiver's own.
        """
        parts = []
        for number, (layer, symbols_K) in enumerate(zip(self._layers, symbols, strict=True)):
            unit_BK = self._units(number, [index])
            if layer.code.dither == "private":
                key = self.reader_fingerprint + draw.to_bytes(8, "big")
                seed = hashlib.blake2b(key, digest_size=8).digest()
                unit_BK = unit_dither(
                    int.from_bytes(seed, "big"), [index], layer.code.latents, number
                )
            parts.append(
                coding.from_symbols(
                    torch.from_numpy(symbols_K)[None],
                    torch.from_numpy(unit_BK),
                    layer.code,
                    torch.float64,
                )
            )
        y_BK = torch.cat(parts, dim=1)
        x_BCHW = sum(weight * decoder(y_BK) for decoder, weight in self._decoders)
        assert isinstance(x_BCHW, torch.Tensor)
        return (x_BCHW[0] * 255).numpy()

    def _rounded(self, values_CHW: np.ndarray) -> np.ndarray:
        grey_CHW = np.clip(np.rint(values_CHW), 0, 255).astype(np.uint8)
        shape = (3, self._pixels.height, self._pixels.width)
        return np.ascontiguousarray(np.broadcast_to(grey_CHW, shape).transpose(1, 2, 0))

    def _digests(
        self,
        symbols: Sequence[Integers],
        indices: Sequence[int],
    ) -> container.Digests | None:
        """The digests of all pictures, if one of them has a value at the border of two levels."""
        hashes, close = [], False
        for place, index in enumerate(indices):
            values_CHW = self._decoded([layer[place] for layer in symbols], index, draw=0)
            away = np.abs(np.abs(values_CHW - np.floor(values_CHW)) - 0.5)
            close |= bool(away.min() < MARGIN)
            hashes.append(digest.hashed(self._rounded(values_CHW), self.reader_fingerprint))
        return digest.of(hashes, self.reader_fingerprint) if close else None

    def _open(self, stream: bytes, name: str) -> container.Container:
        return container.open_for(stream, self.codec_id, self.writer_fingerprint, name)

    def _require_layers(self, found: container.Container) -> None:
        """Refuse a container that does not have the sections of this codec's layers."""
        shared = found.shared
        # The runs of pictures say it without a look at each picture.
        own = joint.layout_of(found.members).runs_R4[:, 3].any()
        if not 2 <= len(shared) <= 3 or own:
            raise InputError("its sections are not those of this codec")
        if len(self._layers) == 1:
            return
        if len(shared) < 3:
            raise InputError("it holds no refinement, which this decoder needs beside the base")
        if not shared[2].startswith(self.layer_fingerprints[1]):
            raise InputError("its refinement was written by another encoder")

    def _payloads(self, found: container.Container) -> list[bytes]:
        """The symbols of each layer that this codec reads, as bytes."""
        payloads = [found.shared[1]]
        if len(self._layers) > 1:
            payloads.append(found.shared[2][container.FINGERPRINT_BYTES :])
        return payloads

    def _read(self, found: container.Container) -> tuple[list[Integers], Sequence[int]]:
        """The symbols of each layer of all pictures, [N, K], and their indices."""
        key = (found.shared, len(found.members))
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        self._require_layers(found)
        flags, indices = _indices(found.shared[0], len(found.members), len(found.shared) - 1)
        symbols = [
            _symbols(
                payload,
                bool(flags & _CODED[number]),
                LaterUnits(partial(self._units, number), indices, layer.code.latents),
                layer,
            )
            for number, (payload, layer) in enumerate(
                zip(self._payloads(found), self._layers, strict=True)
            )
        ]
        self._latest = (key, (symbols, indices))
        return symbols, indices


def layer_fingerprints(layers: Sequence[CodedLayer], pixels: Pixels) -> tuple[bytes, ...]:
    """The fingerprint of each layer's encoder, code and tables, and of the layers before it."""
    found: list[bytes] = []
    for layer in layers:
        heading = f"{CODEC_ID} {pixels} {layer.code.name} {b''.join(found).hex()}"
        writer = nn.ModuleDict({"encoder": layer.encoder, "tables": layer.tables})
        found.append(fingerprint(heading, writer, container.FINGERPRINT_BYTES))
    return tuple(found)


def without_refinement(stream: bytes) -> bytes:
    """A container that keeps the base of all pictures and leaves out their refinement.

    Raises:
        InputError: the stream is damaged, or holds no refinement.
    """
    found = container.unpack(stream)
    if not _has_refinement(found):
        raise InputError("it holds no refinement that could be left out")
    head = bytes([found.shared[0][0] & ~_CODED[1]]) + found.shared[0][1:]
    kept = container.Container(found.fingerprint, found.members, (head, found.shared[1]))
    return container.pack(kept)


def _has_refinement(found: container.Container) -> bool:
    """Whether a container has the form of a base with a refinement.

    Containers do not name the method that wrote them, but those of no other have this form.
    """
    if found.is_exact or len(found.shared) != 3 or any(one.sections for one in found.members):
        return False
    try:
        _indices(found.shared[0], len(found.members), layers=2)
    except InputError:
        return False
    return len(found.shared[2]) > container.FINGERPRINT_BYTES


def _require_indices(indices: Sequence[int]) -> None:
    if not indices:
        raise InputError("a container needs at least one picture")
    for index in indices:
        if not 0 <= index <= MAX_INDEX:
            raise InputError(f"the index of a picture is 0 to {MAX_INDEX}, not {index}")
    if len(set(indices)) < len(indices):
        again = next(index for index in indices if indices.count(index) > 1)
        raise InputError(
            f"two pictures have the index {again}, so they would share their dither: each picture"
            " needs an index of its own"
        )


def _index_section(flags: int, indices: Sequence[int]) -> bytes:
    if list(indices) == list(range(indices[0], indices[0] + len(indices))):
        return bytes([flags]) + indices[0].to_bytes(_INDEX_BYTES, "big").lstrip(b"\0")
    listed = b"".join(index.to_bytes(_INDEX_BYTES, "big") for index in indices)
    return bytes([flags | _LISTED]) + listed


def _indices(section: bytes, count: int, layers: int) -> tuple[int, Sequence[int]]:
    """The flags and the indices of all pictures; the inverse of `_index_section`.

    Indices that count up are not listed, as a short file may claim many pictures.
    """
    damaged = InputError("its list of indices is damaged")
    if not section or section[0] & ~(sum(_CODED[:layers]) | _LISTED):
        raise damaged
    flags, rest = section[0], section[1:]
    if flags & _LISTED and len(rest) == _INDEX_BYTES * count:
        listed: list[int] = np.frombuffer(rest, ">u8").tolist()
        _require_indices(listed)
        if _index_section(flags & ~_LISTED, listed) != section:
            raise damaged
        return flags, listed
    if flags & _LISTED or len(rest) > _INDEX_BYTES or rest[:1] == b"\0":
        raise damaged
    first = int.from_bytes(rest, "big")
    _require_indices([first + count - 1])
    return flags, range(first, first + count)


def _written(symbols_NK: Integers, units_NK: np.ndarray, layer: CodedLayer) -> tuple[bytes, bool]:
    """The symbols of a layer as bytes, and whether they are entropy-coded."""
    fixed = fixed_length.pack(symbols_NK, layer.code.levels)
    encoder = Encoder()
    for frequencies_RL, rows in _frequencies(units_NK, layer):
        encoder.put(symbols_NK.reshape(-1)[rows], frequencies_RL)
    coded = encoder.data()
    return (coded, True) if len(coded) < len(fixed) else (fixed, False)


def _symbols(
    payload: bytes, coded: bool, units_NK: np.ndarray | LaterUnits, layer: CodedLayer
) -> Integers:
    """The symbols of a layer, [N, K]; the inverse of `_written`."""
    if not coded:
        return fixed_length.unpack(payload, layer.code.levels, units_NK.size).reshape(
            units_NK.shape
        )
    decoder = Decoder(payload)
    found = [decoder.take(frequencies_RL) for frequencies_RL, _ in _frequencies(units_NK, layer)]
    decoder.finish()
    symbols_NK = np.concatenate(found).reshape(units_NK.shape)
    if len(payload) >= len(fixed_length.pack(symbols_NK, layer.code.levels)):
        raise InputError("its code is longer than at the fixed length: it is damaged")
    return symbols_NK


def _frequencies(
    units_NK: np.ndarray | LaterUnits, layer: CodedLayer
) -> Iterator[tuple[Integers, slice]]:
    """The frequencies of consecutive symbols, and the slice of the symbols that they belong to."""
    latents = layer.code.latents
    pictures = max(1, _ROWS_AT_ONCE // latents)
    for first in range(0, len(units_NK), pictures):
        words = coding.words_of(units_NK[first : first + pictures])
        yield (
            layer.tables.frequencies(words),
            slice(first * latents, (first + len(words)) * latents),
        )
