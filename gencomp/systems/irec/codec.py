"""The codec of a run: the latents of a picture by one of three coders, and what is left of it.

The code of a picture is one section, and its first byte is the number of the coder:

| number | coder of the latents (`latent_coders`) | the bytes behind it |
|---|---|---|
| 0 | relative entropy coding | one range-coded stream |
| 1 | bits-back | a stack that holds the picture (`gencomp.coding.bits_back`) |
| 2 | universal quantization | one range-coded stream |

A lossless picture is cut into tiles of 512×512 pixels at most, each with its own latents. Its
stream holds tile by tile the latents of all layers, and then the values of the tile's pixels given
those latents: the decoded ones, as the receiver has no others. A lossy picture is a single tile
without residual, and its latents are all that is sent; z_2 stands before z_1. Its stream has at
least a byte for each square of 64×64 pixels, whole or not, and is filled up with zeros to this
length: latents of a flat picture cost next to nothing, so a short file could claim a large one. In
a joint container, the number is a section that all pictures share, and each picture has its stream;
with bits-back, chains of pictures are further shared sections, and pictures have none of their own.

What a decoder on another processor shows:

- A lossless picture is the very image that was written, or it is refused: its container is an exact
  one (`gencomp.coding.container`), with a hash of the image. The hash stands for the priors of all
  layers too, which are rounded to 12 bits (`gencomp.coding.latent_model`): one that differs changes
  the latents, and with them all that follows. Where it happens to change no pixel, the image is
  right and is shown.
- A lossy picture of relative entropy coding has no digest of its pixels. Its indices are coded by
  fixed integers, so a prior that differs in its last bit moves a latent by as much, and the picture
  by less than anyone can see. To refuse it would lose a picture for a grey level.
- Universal quantization codes by probabilities of the prior, so such a prior would end in garbage.
  Its containers carry digests of what was shown (`gencomp.coding.digest`).

Which coder writes, and how long it searches, is chosen when files are written (`writing`). All
decoders of a run read all files of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from gencomp.coding import bits_back, container, digest, logistic, relative_entropy
from gencomp.coding.container import Container, Member
from gencomp.coding.fingerprint import fingerprint
from gencomp.coding.noise import require_draw
from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.errors import InputError
from gencomp.system import Picture
from gencomp.systems.common.pictures import required
from gencomp.systems.irec.latent_coders import (
    BITS_BACK,
    RELATIVE_ENTROPY,
    UNIVERSAL,
    LatentCoder,
    Model,
    Place,
    RelativeEntropy,
    Universal,
)
from gencomp.systems.irec.latent_models import Tile
from gencomp.systems.irec.pictures import Kind, cut, whole
from gencomp.systems.irec.writing import CodecSection, CoderName

CODEC_ID = "irec"
# The number in a heading of fingerprints, which changes when streams of one number change.
_FORMATS: dict[Kind, int] = {"lossless": 1, "gaussian": 2, "uniform": 2}
_READER_FINGERPRINT_BYTES = 8
_NUMBERS: dict[CoderName, int] = {
    "relative_entropy": RELATIVE_ENTROPY,
    "bits_back": BITS_BACK,
    "universal": UNIVERSAL,
}
# The coders of each kind of model; the first one is the default.
_FITTING: dict[Kind, tuple[CoderName, ...]] = {
    "lossless": ("relative_entropy", "bits_back"),
    "gaussian": ("relative_entropy",),
    "uniform": ("universal",),
}
# A chain of bits-back ends when it has so many pixels, so that reading one of its pictures takes
# bounded time and memory. That is a chain of 16,384 pictures of 32×32.
_CHAIN_PIXELS = 1 << 24
_MOST_CHAINS = 63
# The bits by which a code may be shorter than the least that its pixels cost, by rounding.
_SLACK_BITS = 64
# A lossy stream is filled up to a byte for each square of this side, 0.002 bits a pixel. Networks
# fill a picture up to such squares too.
_SIDE_OF_A_BYTE = 64


class Coded(NamedTuple):
    """A model with everything that its files depend on.

    Attributes:
        model: the model of the latents of one image.
        kind: whether it is lossless, or lossy with Gaussian or uniform posteriors.
        networks: its networks, which name it in fingerprints.
        tiles: the tiles into which pictures of a size are cut.
        least_bits: the least bits that a value of a pixel can cost in a lossless file, on average.
    """

    model: Model[Any]
    kind: Kind
    networks: nn.ModuleDict
    tiles: Callable[[int, int], Sequence[Tile]] = whole
    least_bits: float = 0.0


class IrecCodec:
    """The codec of one checkpoint, which implements `gencomp.system.Codec`.

    Args:
        coded: the model.
        writing: how files are written.

    Raises:
        InputError: the coder that is to write cannot code the latents of this model.
    """

    codec_id = CODEC_ID
    parts: tuple[str, ...] = ("code",)
    maps: tuple[str, ...] = ()

    def __init__(self, coded: Coded, writing: CodecSection) -> None:
        self._coded, self._model = coded, coded.model
        self._number = _NUMBERS[_fitting(coded.kind, writing.coder)]
        self._relative_entropy = RelativeEntropy(settings_of(writing))
        heading = f"{CODEC_ID} {_FORMATS[coded.kind]} {coded.kind}"
        self.reader_fingerprint = fingerprint(heading, coded.networks, _READER_FINGERPRINT_BYTES)
        self.writer_fingerprint = self.reader_fingerprint[: container.FINGERPRINT_BYTES]
        self._seed = int.from_bytes(self.reader_fingerprint, "big")
        # The chain of bits-back that was read last: its pictures are asked for one by one.
        self._latest: tuple[object, list[np.ndarray]] | None = None

    @property
    def is_lossless(self) -> bool:
        return self._coded.kind == "lossless"

    def compress(self, picture: Picture) -> bytes:
        """The container of one picture, whose maps and index are not used.

        Raises:
            InputError: the image has another type, has no pixels, or has a side of more than 65535
                pixels.
        """
        return self.compress_jointly([picture])

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of pictures of any sizes; bits-back chains them.

        Raises:
            InputError: there is no picture, they are too many for chains, or `compress` refuses one
                of them.
        """
        number = bytes([self._number])
        if self._number == BITS_BACK:
            members, hashes, chains = self._chained(pictures)
            if len(members) == 1:
                members = [members[0]._replace(sections=(number + chains[0],))]
                return self._packed(members, hashes)
            return self._packed(members, hashes, (number, *chains))
        members, hashes = [], []
        for picture in pictures:
            image_HWC = required(picture.image_HWC)
            code, state = self._written(image_HWC)
            members.append(Member(image_HWC.shape[0], image_HWC.shape[1], (code,)))
            hashes.append(self._hashed(image_HWC, state))
        if len(members) == 1:
            return self._packed([members[0]._replace(sections=(number + code,))], hashes)
        return self._packed(members, hashes, (number,))

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

        All draws are the same, since the decoder has no noise.

        Raises:
            InputError: the stream is damaged or was written by another encoder, there is no such
                picture or draw, it claims more pixels than are allowed or than its length could
                hold, or it decodes to another image than was written.
        """
        require_draw(draw or 0)
        found = self._open(stream, name)
        member = container.member_at(found, place, name, max_pixels)
        try:
            image_HWC = self._read(found, place, member, max_pixels)
        except InputError as error:
            raise InputError(f"{name} cannot be decoded: {error}") from None
        digest.require(found, place, image_HWC, self._hash_key, name)
        return image_HWC

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """The image that the decoder will show for a picture, without a container."""
        require_draw(draw or 0)
        image_HWC = required(picture.image_HWC)
        if self.is_lossless:
            return image_HWC.copy()
        return self._model.shown(self._written(image_HWC)[1])

    def code_bits(self, stream: bytes) -> int:
        """The bits of all sections of a stream, in whole bytes: the numbers of coders are in them.

        Raises:
            InputError: the stream is damaged or was written by another encoder.
        """
        return 8 * self._open(stream, "stream").code_bytes

    def nominal_bits(self, height: int, width: int) -> None:
        """There is no fixed length."""
        return None

    @property
    def _hash_key(self) -> bytes:
        return self.writer_fingerprint if self.is_lossless else self.reader_fingerprint

    def _hashed(self, image_HWC: np.ndarray, state: Any) -> bytes:
        """The hash of what decoders show for an image; empty where pictures are not checked.

        Args:
            image_HWC: the image.
            state: the model's state after the last layer, for a lossy model.
        """
        if self._coded.kind == "gaussian":
            return b""
        shown_HWC = image_HWC if self.is_lossless else self._model.shown(state)
        return digest.hashed(shown_HWC, self._hash_key)

    def _packed(
        self, members: Sequence[Member], hashes: Sequence[bytes], shared: tuple[bytes, ...] = ()
    ) -> bytes:
        writer, digests = self.writer_fingerprint, None
        if self._coded.kind == "lossless":
            writer = writer[: container.EXACT_FINGERPRINT_BYTES]
            digests = digest.of_exact(hashes)
        elif self._coded.kind == "uniform":
            digests = digest.of(hashes, self.reader_fingerprint)
        return container.pack(Container(writer, tuple(members), shared, digests))

    def _open(self, stream: bytes, name: str) -> Container:
        found = container.open_for(stream, self.codec_id, self.writer_fingerprint, name)
        if found.is_exact != self.is_lossless:
            raise InputError(f"{name} cannot be decoded: its checks are not those of this codec")
        return found

    def _written(self, image_HWC: np.ndarray) -> tuple[bytes, Any]:
        """A picture as a range-coded stream, and a lossy model's state after the last layer."""
        encoder, coder, state = Encoder(), self._latent_coder(self._number), None
        for number, tile in enumerate(self._coded.tiles(*image_HWC.shape[:2])):
            part_HWC = np.ascontiguousarray(cut(image_HWC, tile))
            state = coder.encode(encoder, self._model, part_HWC, Place(self._seed, number))
            if self.is_lossless:
                values_N = part_HWC.reshape(-1).astype(np.int64)
                logistic.coder(self._model.likelihood(state)).encode(encoder, values_N)
        return encoder.data(self._filled_bytes(*image_HWC.shape[:2])), state

    def _read(self, found: Container, place: int, member: Member, max_pixels: int) -> np.ndarray:
        """The image of a picture of a container."""
        number, sections = _sections(found, member)
        if number == BITS_BACK and self.is_lossless:
            return self._unchained(found, place, sections, max_pixels)
        if len(sections) != 1:
            raise _other_sections()
        return self._shown(number, member.height, member.width, sections[0])

    def _shown(self, number: int, height: int, width: int, data: bytes) -> np.ndarray:
        """The inverse of `_written`, for a picture of a size."""
        coder = self._latent_coder(number)
        self._require_length(height, width, data)
        decoder = Decoder(data)
        if not self.is_lossless:
            finish = partial(decoder.finish, self._filled_bytes(height, width))
            place = Place(self._seed, 0)
            state = coder.decode(decoder, self._model, (height, width), place, finish)
            return self._model.shown(state)
        image_HWC = np.empty((height, width, 3), np.uint8)
        for count, tile in enumerate(self._coded.tiles(height, width)):
            size, place = (tile.height, tile.width), Place(self._seed, count)
            state = coder.decode(decoder, self._model, size, place, _nothing)
            values_N = logistic.coder(self._model.likelihood(state)).decode(decoder)
            cut(image_HWC, tile)[...] = values_N.reshape(*size, 3)
        decoder.finish()
        return image_HWC

    def _latent_coder(self, number: int) -> LatentCoder:
        """The coder of a number, by which the model's latents can be coded one image at a time.

        Raises:
            InputError: there is no coder of that number for this model.
        """
        if number == RELATIVE_ENTROPY and self._coded.kind != "uniform":
            return self._relative_entropy
        if number == UNIVERSAL and self._coded.kind == "uniform":
            return Universal()
        raise InputError(f"its coder of latents, number {number}, is none that this codec has")

    def _require_length(self, height: int, width: int, data: bytes) -> None:
        """Refuse the stream of a size that is shorter than any that so many pixels have."""
        bits = 0.99 * 3 * height * width * self._coded.least_bits - _SLACK_BITS
        least = max(int(bits) // 8, self._filled_bytes(height, width))
        if len(data) < least:
            raise InputError(
                f"{height}×{width} pixels take at least {least} bytes, the code has {len(data)}"
            )

    def _filled_bytes(self, height: int, width: int) -> int:
        """The number of bytes to which the stream of a size is filled up."""
        if self.is_lossless:
            return 0
        return -(-height // _SIDE_OF_A_BYTE) * -(-width // _SIDE_OF_A_BYTE)

    def _chained(
        self, pictures: Sequence[Picture]
    ) -> tuple[list[Member], list[bytes], tuple[bytes, ...]]:
        """The pictures of a container, their hashes, and the chains that hold them."""
        members, hashes, chains = list[Member](), list[bytes](), list[bytes]()
        images: list[np.ndarray] = []
        for place in range(len(pictures)):
            images.append(required(pictures[place].image_HWC))
            members.append(Member(*images[-1].shape[:2]))
            hashes.append(self._hashed(images[-1], None))
            last = place + 1 == len(pictures)
            if last or _pixels(images) >= _CHAIN_PIXELS:
                if len(chains) == _MOST_CHAINS:
                    raise InputError(
                        f"one file holds at most {_MOST_CHAINS} chains of bits-back, of"
                        f" {_CHAIN_PIXELS} pixels each: write several files"
                    )
                parts = self._parts(images)
                # One image alone would be stored as a whole by the codec of the opening.
                chains.append(bits_back.encode(self._model, parts, opening=len(parts) > 1))
                images = []
        return members, hashes, tuple(chains)

    def _unchained(
        self, found: Container, place: int, sections: Sequence[bytes], max_pixels: int
    ) -> np.ndarray:
        """A picture from the chain that holds it, which is read whole."""
        sizes = [(one.height, one.width) for one in found.members]
        chains = list(_chains(sizes))
        if len(chains) != len(sections):
            raise _other_sections()
        which = next(i for i, chain in enumerate(chains) if place in chain)
        data, chain = sections[which], chains[which]
        for other in chain:
            container.member_at(found, other, "its chain", max_pixels)
        key = (data, sizes[chain.start : chain.stop])
        if self._latest is None or self._latest[0] != key:
            self._latest = (key, self._images(*key))
        return self._latest[1][place - chain.start].copy()

    def _images(self, data: bytes, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """All images of a chain; one that is too short is refused before the tile it lacks."""
        tiles = [self._coded.tiles(*size) for size in sizes]
        of_parts = [(tile.height, tile.width) for some in tiles for tile in some]
        parts = iter(bits_back.decode(self._model, of_parts, data))
        images = []
        for size, some in zip(sizes, tiles, strict=True):
            image_HWC = np.empty((*size, 3), np.uint8)
            for tile in some:
                cut(image_HWC, tile)[...] = next(parts)
            images.append(image_HWC)
        return images

    def _parts(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The tiles of images, one after the other."""
        return [
            np.ascontiguousarray(cut(image_HWC, tile))
            for image_HWC in images
            for tile in self._coded.tiles(*image_HWC.shape[:2])
        ]


def least_bits(scale: float) -> float:
    """The least bits that a value of a pixel can cost in a lossless file, on average.

    The likeliest value is the first or the last level where the mean is the middle of that level,
    or a little farther out, as the means of the coder are rounded (`gencomp.coding.logistic`).

    Args:
        scale: the scale of the likelihood, of values on [−½, ½].
    """
    half = 0.5 / (logistic.LEVELS * scale)
    return math.log2(1 + math.exp(-half - 1 / 16))


def settings_of(writing: CodecSection) -> relative_entropy.Settings:
    """The settings of relative entropy coding: the effort's, but for values that are named."""
    named = {
        name: value
        for name in relative_entropy.Settings._fields
        if (value := getattr(writing, name)) is not None
    }
    return relative_entropy.EFFORTS[writing.effort]._replace(**named)


def _fitting(kind: Kind, coder: CoderName | None) -> CoderName:
    """The coder that is to write the files of a kind of model.

    Raises:
        InputError: it cannot.
    """
    fitting = _FITTING[kind]
    if coder is None:
        return fitting[0]
    if coder not in fitting:
        what = {
            "lossless": "a lossless model",
            "gaussian": "a lossy model, whose receiver cannot give bits back,",
            "uniform": "a model with uniform posteriors",
        }[kind]
        raise InputError(
            f"codec.coder is {coder}, but the latents of {what} are coded by {' or '.join(fitting)}"
        )
    return coder


def _sections(found: Container, member: Member) -> tuple[int, list[bytes]]:
    """The number of the coder, and the picture's section or, if it has none, those of all."""
    if found.shared:
        head, sections = found.shared[0], [*found.shared[1:], *member.sections]
        if len(head) != 1:
            raise _other_sections()
        return head[0], sections
    if len(member.sections) != 1 or not member.sections[0]:
        raise _other_sections()
    return member.sections[0][0], [member.sections[0][1:]]


def _nothing() -> None:
    """What is to be done between the latents of a lossless picture and its values."""


def _other_sections() -> InputError:
    return InputError("its sections are not those of this codec")


def _chains(sizes: Sequence[tuple[int, int]]) -> Iterator[range]:
    """The places of the pictures of each chain."""
    start, pixels = 0, 0
    for place, (height, width) in enumerate(sizes):
        pixels += height * width
        if pixels >= _CHAIN_PIXELS or place + 1 == len(sizes):
            yield range(start, place + 1)
            start, pixels = place + 1, 0


def _pixels(images: Sequence[np.ndarray]) -> int:
    return sum(image.shape[0] * image.shape[1] for image in images)
