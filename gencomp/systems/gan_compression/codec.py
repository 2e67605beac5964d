"""The codec of generative compression: label map, mask and code of an image in one file.

A picture has a section for each part that its decoder needs, in this order:

| section | of | what |
|---|---|---|
| `labels` | conditional, selective | the class of every pixel (`gencomp.coding.label_maps`) |
| `instances` | the same, with labels.instances | the instance of every pixel, given the classes |
| `mask` | selective | whether the latents of each 8×8 pixels are kept |
| `latents` | every mode | the symbols of all latents, or of those that are kept |

A code is the C symbols of one place, and the codes of an image are its places row by row
(`gencomp.coding.payload`). Places that are not kept cost nothing. A map that the decoder does not
need, such as that of mode global_plus, is never sent. Instances are numbered anew in a file, in the
order of their ids, because the decoder sees their boundaries alone.

Networks run in float64 (`gencomp.networks.float64`), and digests of the decoded pixels find the
rare value that another processor rounds otherwise. With channel norms, layers at more than an
eighth of the resolution work in windows, so memory is about ten of the innermost maps. Instance
norms need the whole image. Sizes are limited accordingly. The decoder's noise is a function of the
reader, the sections, the draw, and a few bits of salt before the latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gencomp.coding import container, digest, fixed_length, label_maps
from gencomp.coding.fingerprint import fingerprint
from gencomp.coding.noise import keyed_uniform, require_draw, salt_of
from gencomp.coding.payload import PayloadCoder
from gencomp.coding.tables import Integers
from gencomp.errors import InputError
from gencomp.networks.float64 import in_float64
from gencomp.networks.gan_compression.autoencoder import STRIDE, Decoder, Encoder
from gencomp.networks.padding import extended
from gencomp.networks.windows import in_windows
from gencomp.system import Picture
from gencomp.systems.common import pixels
from gencomp.systems.common.pictures import require_size, required
from gencomp.systems.gan_compression import labels
from gencomp.systems.gan_compression.channel import Channel
from gencomp.systems.gan_compression.code import Code
from gencomp.systems.gan_compression.kept import kept_pixels
from gencomp.systems.gan_compression.recipe import GanRecipe
from gencomp.systems.gan_compression.writing import MASK

CODEC_ID = "gan_compression"
# The number in headings of fingerprints, which changes when streams of one number change.
_FORMAT = 1
_READER_FINGERPRINT_BYTES = 8
# Cells of 16×16 pixels of the squares that are computed at once, at most, and how far the layers at
# more than an eighth of the resolution see: 3 + 1 + 2 + 4 + 8 pixels down, 2 cells and 4 pixels up.
_SIDE, _REACH = 32, 3
# Float64 values of a map of a window, of 512 MiB. Planes of labels may need smaller windows.
_OF_WINDOW = 1 << 26
# Pixels of an image times the channels at full size: where the whole image is computed at once, a
# map of so many float64 values has 1 GiB; in windows, an innermost map has a sixteenth of these
# values, 512 MiB, and about ten are alive at a time.
_MOST_AT_ONCE, _MOST_IN_WINDOWS = 1 << 27, 1 << 30


class Received(NamedTuple):
    """What a file says of a picture.

    Attributes:
        height, width: the size of the image.
        known_1FHW: the features of its labels, [1, F, H/16, W/16]; None without labels.
        kept_HW: the latents that are kept, bool; None where all are.
        symbols_TC: the symbols of the latents that are kept.
        salt: the salt.
        sections: the sections that say so.
    """

    height: int
    width: int
    known_1FHW: Tensor | None
    kept_HW: np.ndarray | None
    symbols_TC: Integers
    salt: int
    sections: tuple[bytes, ...]


class GanCodec:
    """The codec of one checkpoint, which implements `gencomp.system.Codec`.

    Args:
        networks: the networks of sender and receiver, which are copied.
        channel: the way from images to images.
        recipe: the recipe of the networks.
    """

    codec_id = CODEC_ID

    def __init__(self, networks: nn.ModuleDict, channel: Channel, recipe: GanRecipe) -> None:
        self._networks = nn.ModuleDict({name: in_float64(net) for name, net in networks.items()})
        self._channel, self._recipe = channel, recipe
        code, encoder = self._networks["code"], self._networks["encoder"]
        decoder = self._networks["decoder"]
        assert isinstance(code, Code) and isinstance(encoder, Encoder)
        assert isinstance(decoder, Decoder)
        self._code, self._encoder, self._decoder = code, encoder, decoder
        self._salt_bits = recipe.code.salt_bits if channel.noise_channels else 0
        self._payload = PayloadCoder(code.tables.tables(), self._salt_bits)
        self.parts = self._parts()
        of_labels = recipe.labels
        mask = (MASK,) if channel.mode == "selective" else ()
        self.maps: tuple[str, ...] = (*of_labels.maps(), *mask) if of_labels.sent else ()
        heading = _heading(recipe, self._salt_bits)
        conditional = ("label_encoder",) if channel.mode == "conditional" else ()
        writer = {name: networks[name] for name in ("encoder", "code", *conditional)}
        self.writer_fingerprint = fingerprint(
            heading, nn.ModuleDict(writer), container.FINGERPRINT_BYTES
        )
        # It is the key of the decoder's noise, so it must never change.
        self.reader_fingerprint = fingerprint(heading, networks, _READER_FINGERPRINT_BYTES)

    def compress(self, picture: Picture) -> bytes:
        """The container of a picture, with the maps that the decoder needs.

        Ids of classes beyond the last one are sent as the last one. The map `mask` says which
        pixels are kept in mode selective.

        Raises:
            InputError: the image has another type, a size that this codec does not take, or not the
                maps that it needs, or what is kept does not fit it.
        """
        return self.compress_jointly([picture])

    def compress_jointly(self, pictures: Sequence[Picture]) -> bytes:
        """One container of pictures of any sizes, each with the sections that it has alone.

        Raises:
            InputError: there is no picture, or `compress` refuses one of them.
        """
        members, hashes = [], []
        for picture in pictures:
            sent = self._sent(picture)
            members.append(container.Member(sent.height, sent.width, sent.sections))
            hashes.append(digest.hashed(self._shown(sent, None), self.reader_fingerprint))
        digests = digest.of(hashes, self.reader_fingerprint)
        return container.pack(
            container.Container(self.writer_fingerprint, tuple(members), digests=digests)
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

        Streams hold all maps that the decoder needs, so `maps` are not used. All draws are the same
        without channels of noise.

        Raises:
            InputError: the stream is damaged, was written by another encoder or decodes to other
                pixels than where it was written, there is no such picture or draw, or it claims
                more pixels than are allowed.
        """
        require_draw(draw or 0)
        found = container.open_for(stream, self.codec_id, self.writer_fingerprint, name)
        member = container.member_at(found, place, name, max_pixels)
        try:
            image_HWC = self._shown(self._received(member), draw)
        except InputError as error:
            raise InputError(f"{name} cannot be decoded: {error}") from None
        if not draw:
            digest.require(found, place, image_HWC, self.reader_fingerprint, name)
        return image_HWC

    def reconstruct(self, picture: Picture, *, draw: int | None = None) -> np.ndarray:
        """The image that the decoder will show for a picture, without a container."""
        require_draw(draw or 0)
        return self._shown(self._sent(picture), draw)

    def code_bits(self, stream: bytes) -> int:
        """The bits of all sections of a stream, labels and masks included, in whole bytes.

        Raises:
            InputError: the stream is damaged or was written by another encoder.
        """
        found = container.open_for(stream, self.codec_id, self.writer_fingerprint, "stream")
        return 8 * found.code_bytes

    def nominal_bits(self, height: int, width: int) -> int | None:
        """The bits of an image's latents at the fixed length of C·log2(L) a place.

        The labels of mode conditional are not among them. In mode selective the regions that are
        kept decide, so there is no such number.

        Raises:
            InputError: no container can hold an image of this size.
        """
        require_size(height, width)
        if self._channel.mode == "selective":
            return None
        return fixed_length.packed_bits(
            self._places(height, width) * self._recipe.code.channels, self._recipe.code.levels
        )

    def _parts(self) -> tuple[str, ...]:
        settings, mode = self._recipe.labels, self._channel.mode
        found = ["labels"] * settings.sent
        found += ["instances"] * (settings.sent and settings.instances is not None)
        return (*found, *["mask"] * (mode == "selective"), "latents")

    def _places(self, height: int, width: int) -> int:
        rows, columns = self._channel.latent_size(height, width)
        return rows * columns

    @torch.no_grad()
    def _sent(self, picture: Picture) -> Received:
        """What the file of a picture will say."""
        image_HWC = required(picture.image_HWC)
        height, width = image_HWC.shape[:2]
        self._require_memory(height, width)
        maps = self._maps_of(picture)
        cells_HW = None
        if self._channel.mode == "selective":
            cells_HW = self._kept_cells(picture, maps)
        known_1FHW = self._known(maps, height, width)
        symbols_HWC = self._symbols(image_HWC, known_1FHW)
        symbols_TC = symbols_HWC[cells_HW] if cells_HW is not None else _rows(symbols_HWC)
        salt = salt_of(image_HWC, self._salt_bits)
        settings, sections = self._recipe.labels, []
        if settings.sent:
            classes_HW = maps[settings.map]
            sections.append(label_maps.encode(classes_HW, settings.classes))
            if settings.instances is not None:
                instances_HW = maps[settings.instances]
                sections.append(
                    label_maps.encode(instances_HW, label_maps.MAX_CLASSES, given_HW=classes_HW)
                )
        if cells_HW is not None:
            sections.append(label_maps.encode(cells_HW.astype(np.uint8), 2))
        sections.append(self._payload.pack(symbols_TC, salt))
        return Received(height, width, known_1FHW, cells_HW, symbols_TC, salt, tuple(sections))

    @torch.no_grad()
    def _received(self, member: container.Member) -> Received:
        """What a file says; the parts that are quickly refused are read first.

        Raises:
            InputError: a section is damaged, or the image is too large.
        """
        height, width = member.height, member.width
        if len(member.sections) != len(self.parts):
            raise InputError(
                f"it has {len(member.sections)} sections, but this codec writes {len(self.parts)}"
            )
        self._require_memory(height, width)
        section = dict(zip(self.parts, member.sections, strict=True))
        cells_HW, count = None, self._places(height, width)
        if "mask" in section:
            size = self._channel.latent_size(height, width)
            cells_HW = label_maps.decode(section["mask"], *size, 2).astype(bool)
            count = int(cells_HW.sum())
        symbols_TC, salt = self._payload.unpack(section["latents"], count)
        settings, maps = self._recipe.labels, {}
        if "labels" in section:
            classes_HW = label_maps.decode(section["labels"], height, width, settings.classes)
            maps[settings.map] = classes_HW
            if settings.instances is not None:
                maps[settings.instances] = label_maps.decode(
                    section["instances"],
                    height,
                    width,
                    label_maps.MAX_CLASSES,
                    given_HW=classes_HW,
                )
        known_1FHW = self._known(maps, height, width)
        return Received(height, width, known_1FHW, cells_HW, symbols_TC, salt, member.sections)

    def _maps_of(self, picture: Picture) -> dict[str, np.ndarray]:
        """The maps that the decoder needs, as they are sent."""
        settings = self._recipe.labels
        if not settings.sent:
            return {}
        size = picture.image_HWC.shape[:2]
        classes_HW = _map(picture, settings.map, size)
        found = {settings.map: classes_HW.astype(np.int64).clip(0, settings.classes - 1)}
        if settings.instances is not None:
            ids, numbers = np.unique(_map(picture, settings.instances, size), return_inverse=True)
            if len(ids) > label_maps.MAX_CLASSES:
                raise InputError(
                    f"the map {settings.instances} has {len(ids)} instances, but files hold at most"
                    f" {label_maps.MAX_CLASSES}"
                )
            found[settings.instances] = numbers.reshape(size).astype(np.int64)
        return found

    def _kept_cells(self, picture: Picture, maps: Mapping[str, np.ndarray]) -> np.ndarray:
        """The latents of the regions that are kept, bool [H/8, W/8]."""
        settings, size = self._recipe.labels, picture.image_HWC.shape[:2]
        instances, mask = settings.instances, MASK in picture.maps
        kept_HW = kept_pixels(
            self._recipe.codec,
            settings,
            maps[settings.map],
            _map(picture, instances, size) if instances is not None else None,
            _map(picture, MASK, size) if mask else None,
        )
        kept_1HW = extended(torch.from_numpy(kept_HW)[None], *self._channel.size(*size))
        return labels.cells(kept_1HW, self._channel.stride)[0, 0].numpy() > 0

    def _symbols(self, image_HWC: np.ndarray, known_1FHW: Tensor | None) -> Integers:
        """The symbols of all latents of an image, [H/s, W/s, C]."""
        height, width = image_HWC.shape[:2]
        size = self._channel.size(height, width)
        image_1CHW = extended(torch.tensor(image_HWC).permute(2, 0, 1)[None], *size)

        def features(rows: slice, columns: slice) -> Tensor:
            part_1CHW = _pixels_of(image_1CHW, rows, columns).contiguous()
            return self._encoder.features(part_1CHW.double() / 127.5 - 1)

        scale = STRIDE // self._channel.stride
        h_1FHW = self._in_windows(features, size, scale)
        if self._channel.mode == "conditional":
            assert known_1FHW is not None
            h_1FHW = torch.cat([h_1FHW, known_1FHW], 1)
        w_1CHW = self._encoder.last(h_1FHW)
        return self._code.symbols(w_1CHW)[0].permute(1, 2, 0).numpy()

    @torch.no_grad()
    def _shown(self, received: Received, draw: int | None) -> np.ndarray:
        """The uint8 image [H, W, 3] of what a file says."""
        height, width = received.height, received.width
        size = self._channel.size(height, width)
        values_TC = self._code.values(torch.from_numpy(received.symbols_TC), torch.float64)
        rows, columns = self._channel.latent_size(height, width)
        code_NC = values_TC
        if received.kept_HW is not None:
            code_NC = values_TC.new_zeros(rows * columns, values_TC.shape[1])
            code_NC[torch.from_numpy(received.kept_HW.reshape(-1))] = values_TC
        code_1CHW = code_NC.reshape(1, rows, columns, -1).permute(0, 3, 1, 2).contiguous()
        parts = [code_1CHW]
        if self._channel.mode == "selective":
            parts = [self._networks["lift"](code_1CHW)]
        if received.known_1FHW is not None:
            parts.append(received.known_1FHW)
        if self._channel.noise_channels:
            parts.append(self._noise(received, size, draw or 0))
        h_1FHW = self._decoder.first(torch.cat(parts, 1))
        for block in self._decoder.blocks:
            h_1FHW = block(h_1FHW)

        def shown(rows: slice, columns: slice) -> Tensor:
            return pixels.to_bytes(self._decoder.last(h_1FHW[:, :, rows, columns]))

        x_1CHW = self._in_windows(shown, size, STRIDE)
        return np.ascontiguousarray(x_1CHW[0, :, :height, :width].permute(1, 2, 0).numpy())

    def _known(self, maps: Mapping[str, np.ndarray], height: int, width: int) -> Tensor | None:
        """The features of the labels, [1, F, H/16, W/16]; None where none are sent."""
        if not self._recipe.labels.sent:
            return None
        size = self._channel.size(height, width)
        whole = {name: extended(torch.tensor(one)[None], *size) for name, one in maps.items()}

        def features(rows: slice, columns: slice) -> Tensor:
            part = {name: _pixels_of(one, rows, columns) for name, one in whole.items()}
            planes_1KHW = labels.planes(part, self._recipe.labels, torch.float64)
            found: Tensor = self._networks["label_encoder"](planes_1KHW)
            return found

        return self._in_windows(features, size, 1)

    def _noise(self, received: Received, size: tuple[int, int], draw: int) -> Tensor:
        """Standard normal noise, [1, V, H/16, W/16]."""
        shape = (1, self._channel.noise_channels, size[0] // STRIDE, size[1] // STRIDE)
        unit = keyed_uniform(
            b"".join(received.sections), self.reader_fingerprint, shape, 0, draw, received.salt
        )
        # The multiples of 2^-52 in [−1, 1) become those of 2^-53 in (0, 1), without either end.
        return torch.special.ndtri(torch.from_numpy((unit + 1 + 2.0**-53) / 2))

    def _in_windows(
        self, function: Callable[[slice, slice], Tensor], size: tuple[int, int], scale: int
    ) -> Tensor:
        seen = math.isqrt(_OF_WINDOW // self._channels) // STRIDE  # cells of a window
        side = min(_SIDE, max(1, seen - 2 * _REACH)) if self._is_local else None
        return in_windows(function, size[0] // STRIDE, size[1] // STRIDE, scale, side, _REACH)

    @property
    def _is_local(self) -> bool:
        """Whether layers see only what is near."""
        return self._recipe.networks.norm == "channel"

    @property
    def _channels(self) -> int:
        """The most channels at full size: those of the networks, or the planes of labels."""
        of_labels = self._recipe.labels
        return max(self._recipe.networks.width, of_labels.planes if of_labels.sent else 0)

    def _require_memory(self, height: int, width: int) -> None:
        """Refuse an image that would take too much memory."""
        rows, columns = self._channel.size(height, width)
        if self._is_local:
            most, why = _MOST_IN_WINDOWS // self._recipe.networks.width, "at this width of networks"
        else:
            most, why = _MOST_AT_ONCE // self._channels, "with instance norms, which need it whole"
        if rows * columns > most:
            raise InputError(
                f"this codec takes an image of at most {most} pixels {why}, not {height}×{width}"
                f" (continued to {rows}×{columns}): cut the image"
            )


def _heading(recipe: GanRecipe, salt_bits: int) -> str:
    """The settings that weights do not show, and that change what files mean."""
    nets, of_labels = recipe.networks, recipe.labels
    words = [CODEC_ID, _FORMAT, of_labels.mode, recipe.code.levels, salt_bits]
    words += [nets.norm, nets.padding, nets.last_layer]
    if of_labels.sent:
        words += [of_labels.classes, of_labels.instances is not None]
    return " ".join(map(str, words))


def _map(picture: Picture, name: str, size: tuple[int, ...]) -> np.ndarray:
    """A map of a picture, of the image's size.

    Raises:
        InputError: there is no such map, or it has another size or kind of numbers.
    """
    if name not in picture.maps:
        raise InputError(
            f"it has no map {name}, which this codec needs: give it by --maps {name}=PATH"
        )
    found = np.asarray(picture.maps[name])
    if found.shape != tuple(size) or found.dtype.kind not in "iub":
        raise InputError(
            f"its map {name} has {found.dtype} values of shape {'×'.join(map(str, found.shape))},"
            f" but ids of {size[0]}×{size[1]} pixels are needed"
        )
    return found


def _pixels_of(x: Tensor, rows: slice, columns: slice) -> Tensor:
    """The pixels of a window of cells."""
    return x[
        ...,
        STRIDE * rows.start : STRIDE * rows.stop,
        STRIDE * columns.start : STRIDE * columns.stop,
    ]


def _rows(symbols_HWC: Integers) -> Integers:
    return symbols_HWC.reshape(-1, symbols_HWC.shape[2])
