"""The codec decodes what the encoder showed, from a file of the stated size, or refuses."""

from __future__ import annotations

import copy
import hashlib
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp import quantizer
from gencomp.coding import container, noise
from gencomp.errors import InputError
from gencomp.system import Picture
from gencomp.systems.common.code_tables import CodeTables
from gencomp.systems.dplc import codec as codec_module
from gencomp.systems.dplc.codec import DplcCodec
from tests.gencomp.systems.dplc.test_coders import codec as system


def images(n: int, seed: int = 0) -> np.ndarray:
    """Noise at several contrasts about several greys, so that codes differ."""
    generator = np.random.default_rng(seed)
    grey = generator.uniform(0, 255, (n, 1, 1, 3))
    return (grey + generator.normal(size=(n, 64, 64, 3)) * 60).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def codec() -> DplcCodec:
    made = system().codec()
    assert isinstance(made, DplcCodec)
    return made


@pytest.fixture(scope="module")
def unsalted() -> DplcCodec:
    made = system(**{"codec.salt_bits": 0}).codec()
    assert isinstance(made, DplcCodec)
    return made


def most_bytes(made: DplcCodec, height: int, width: int) -> int:
    """The bytes of a section of the fixed length."""
    return math.ceil((made.nominal_bits(height, width) + made.salt_bits) / 8)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"codec.salt_bits": 0},
        {"codec.salt_bits": 13},
        {"networks.levels": 3},
        {"networks.levels": 256},
        {"networks.code_channels": 8},
        {"networks.stochastic": False},
        {"networks.residual_blocks": 0},
        {"networks.latent_batch_norm": False},
    ],
    ids=str,
)
def test_what_is_decoded_is_what_the_encoder_showed(overrides: dict[str, object]) -> None:
    made = system(**overrides).codec()
    assert isinstance(made, DplcCodec)
    streams = [made.compress(Picture(image)) for image in images(3)]
    for image, stream in zip(images(3), streams, strict=True):
        decoded = made.decompress(stream)
        assert decoded.dtype == np.uint8 and decoded.shape == (64, 64, 3)
        assert np.array_equal(decoded, made.reconstruct(Picture(image)))
        found = container.unpack(stream)
        assert found.code_bytes <= most_bytes(made, 64, 64)
        assert len(stream) - found.code_bytes <= 21
        assert made.code_bits(stream) == 8 * found.code_bytes


def test_rate_of_the_paper() -> None:
    made = system(**{"networks.code_channels": 8}).codec()
    assert made is not None and made.nominal_bits(64, 64) == 128
    # 16 bytes of code and one of salt at most, and 21 of container, 6 of which are digests.
    assert len(made.compress(Picture(images(1)[0]))) <= 16 + 1 + 21


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_both_coders_are_used(levels: int) -> None:
    """Images like those that the tables have counted are entropy-coded; without tables, or for
    codes that they find unlikely, symbols are packed. Both decode."""
    source = system(**{"networks.code_channels": 8, "networks.levels": levels})
    tables = source.networks["code_tables"]
    assert isinstance(tables, CodeTables)
    x = torch.from_numpy(images(64)).permute(0, 3, 1, 2).float() / 127.5 - 1
    encoder = source.networks["code_encoder"]
    tables.count([quantizer.quantize_hard(encoder(x), quantizer.cells(levels))])
    known = source.codec()
    tables.counts.zero_()
    unknown = source.codec()
    assert isinstance(known, DplcCodec) and isinstance(unknown, DplcCodec)
    fixed = most_bytes(known, 64, 64)

    def length(made: DplcCodec, image: np.ndarray) -> int:
        stream = made.compress(Picture(image))
        assert np.array_equal(made.decompress(stream), made.reconstruct(Picture(image)))
        return container.unpack(stream).code_bytes

    assert np.mean([length(known, image) for image in images(64)]) < 0.8 * fixed
    # By luck an even coder ends a byte earlier.
    assert {length(unknown, image) for image in images(3)} <= {fixed - 1, fixed}


class TestSizes:
    @pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 64), (63, 130), (200, 7)], ids=str)
    def test_any_size(self, codec: DplcCodec, size: tuple[int, int]) -> None:
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        stream = codec.compress(Picture(image))
        (found,) = container.unpack(stream).members
        decoded = codec.decompress(stream)
        assert (found.height, found.width) == size and decoded.shape == image.shape
        assert np.array_equal(decoded, codec.reconstruct(Picture(image)))
        assert len(found.sections[0]) <= most_bytes(codec, *size)

    @pytest.mark.parametrize(
        ("size", "tiles"), [((1, 1), 1), ((64, 65), 2), ((129, 129), 9), ((512, 768), 96)]
    )
    def test_stated_rate(self, codec: DplcCodec, size: tuple[int, int], tiles: int) -> None:
        assert codec.nominal_bits(*size) == tiles * 2 * 16

    def test_rates_that_are_no_whole_bits(self) -> None:
        """Three levels: all tiles are one number, so rounding up happens once."""
        made = system(**{"networks.levels": 3}).codec()
        assert made is not None
        assert made.nominal_bits(64, 64) == math.ceil(32 * math.log2(3))
        assert made.nominal_bits(640, 640) == math.ceil(3200 * math.log2(3))

    def test_tiles_are_coded_for_themselves(self, unsalted: DplcCodec) -> None:
        """What a tile holds does not touch the others, but by the salt; only the first has the
        place of a lone image."""
        codec = unsalted
        rows = images(12).reshape(3, 4, 64, 64, 3)
        image = rows.swapaxes(1, 2).reshape(192, 256, 3)
        whole = codec.decompress(codec.compress(Picture(image)))
        assert np.array_equal(whole[:64, :64], codec.reconstruct(Picture(rows[0, 0])))
        other = image.copy()
        other[64:128, 64:128] = 255 - other[64:128, 64:128]
        changed = codec.decompress(codec.compress(Picture(other)))
        differs = (whole != changed).reshape(3, 64, 4, 64, 3).any((1, 3, 4))
        assert differs[1, 1] and differs.sum() == 1

    def test_equal_tiles_get_noise_of_their_own(self, codec: DplcCodec) -> None:
        decoded = codec.reconstruct(Picture(np.tile(images(1)[0], (1, 3, 1))))
        parts = {decoded[:, at : at + 64].tobytes() for at in (0, 64, 128)}
        assert len(parts) == 3

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (1, 65536)])
    def test_sizes_that_no_file_holds(self, codec: DplcCodec, size: tuple[int, int]) -> None:
        with pytest.raises(InputError, match="takes images of 1 to 65535 pixels a side"):
            codec.nominal_bits(*size)
        with pytest.raises(InputError, match="takes images of 1 to 65535 pixels a side"):
            codec.compress(Picture(np.zeros((*size, 3), np.uint8)))


class TestDraws:
    def test_each_is_its_own_and_the_same_for_ever(self, codec: DplcCodec) -> None:
        image = images(1)[0]
        stream = codec.compress(Picture(image))
        seen = [codec.decompress(stream, draw=draw) for draw in (None, 0, 1, 2, 2**64 - 1)]
        assert np.array_equal(seen[0], seen[1])
        assert np.array_equal(seen[0], codec.reconstruct(Picture(image)))
        assert np.array_equal(seen[3], codec.reconstruct(Picture(image), draw=2))
        assert len({one.tobytes() for one in seen}) == 4

    def test_without_noise_they_are_all_the_same(self) -> None:
        made = system(**{"networks.stochastic": False}).codec()
        assert isinstance(made, DplcCodec)
        picture = Picture(images(1)[0])
        assert np.array_equal(made.reconstruct(picture, draw=7), made.reconstruct(picture))
        assert np.array_equal(
            made.decompress(made.compress(picture), draw=7), made.reconstruct(picture)
        )

    def test_refusal(self, codec: DplcCodec) -> None:
        with pytest.raises(InputError, match="a draw is a number from 0 to"):
            codec.reconstruct(Picture(images(1)[0]), draw=-1)
        with pytest.raises(InputError, match="a draw is a number from 0 to"):
            codec.decompress(codec.compress(Picture(images(1)[0])), draw=2**64)


def test_streams_depend_on_the_image(codec: DplcCodec) -> None:
    assert len({codec.compress(Picture(image)) for image in images(20)}) > 1


def test_the_codec_is_a_copy(codec: DplcCodec) -> None:
    source = system()
    made = source.codec()
    assert made is not None
    before = made.compress(Picture(images(1)[0]))
    with torch.no_grad():
        for parameter in source.networks.parameters():
            parameter.zero_()
    assert made.compress(Picture(images(1)[0])) == before
    assert all(p.dtype == torch.float32 for p in source.networks.parameters())


def test_threads_and_the_state_of_the_system_do_not_matter() -> None:
    source = system()
    image = images(1)[0]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            source.networks.train(count == 2)
            made = source.codec()
            assert made is not None
            stream = made.compress(Picture(image))
            results.append((stream, made.decompress(stream).tobytes(), made.reader_fingerprint))
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_batches_do_not_matter(codec: DplcCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles through the networks one by one, in fours and all 48 at once: the same bits."""
    image = images(48).reshape(6, 8, 64, 64, 3).swapaxes(1, 2).reshape(384, 512, 3)
    seen = []
    for at_once in (4, 1, 5, 48):
        monkeypatch.setattr(codec_module, "_TILES_AT_ONCE", at_once)
        stream = codec.compress(Picture(image))
        seen.append((stream, codec.decompress(stream).tobytes()))
    assert len(set(seen)) == 1


def test_noise_is_half_a_cell_about_0_and_keyed_by_the_symbols(codec: DplcCodec) -> None:
    symbols = np.random.default_rng(0).integers(0, 2, (640, 32))
    several = np.concatenate([codec._noise(one, 5, 0) for one in symbols])
    half = 1 / codec.levels
    assert several.min() >= -half and several.max() < half and several.std() > 0.57 * half
    noise = codec._noise(symbols[0], 5, 3)
    assert np.array_equal(noise, codec._noise(symbols[0], 5, 3))
    assert not np.array_equal(noise, codec._noise(symbols[0], 5, 4))
    assert not np.array_equal(noise, codec._noise(symbols[0], 6, 3))


class TestRefusals:
    @pytest.mark.parametrize("size", [(64, 64), (100, 190)], ids=str)
    def test_every_length(self, codec: DplcCodec, size: tuple[int, int]) -> None:
        image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
        stream = codec.compress(Picture(image))
        for cut in range(len(stream)):
            with pytest.raises(InputError, match="cannot be decoded"):
                codec.decompress(stream[:cut])
        with pytest.raises(InputError, match="cannot be decoded"):
            codec.decompress(stream + b"\0")

    @pytest.mark.parametrize("size", [(64, 64), (100, 190)], ids=str)
    def test_every_changed_byte(self, codec: DplcCodec, size: tuple[int, int]) -> None:
        """All values of the first and last ten bytes and of every fifth, one flip of the others."""
        image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
        stream = codec.compress(Picture(image))
        for at in range(len(stream)):
            every = at < 10 or at >= len(stream) - 10 or at % 5 == 0
            for mask in range(1, 256) if every else (1 << at % 8,):
                damaged = bytearray(stream)
                damaged[at] ^= mask
                with pytest.raises(InputError):
                    codec.decompress(bytes(damaged))

    @given(section=st.binary(max_size=12), size=st.sampled_from([(64, 64), (70, 64)]))
    @settings(max_examples=60)
    def test_any_section_in_a_valid_container(
        self, codec: DplcCodec, section: bytes, size: tuple[int, int]
    ) -> None:
        """Refused, or decoded in full to an image of the stated size."""
        stream = container.pack(
            container.Container(codec.writer_fingerprint, (container.Member(*size, (section,)),))
        )
        try:
            decoded = codec.decompress(stream)
        except InputError as error:
            assert str(error).startswith("stream cannot be decoded: ")
        else:
            assert decoded.shape == (*size, 3)

    @given(st.binary(max_size=60))
    def test_garbage(self, codec: DplcCodec, garbage: bytes) -> None:
        with pytest.raises(InputError, match="cannot be decoded"):
            codec.decompress(garbage)

    def test_another_model(self, codec: DplcCodec) -> None:
        other = system(**{"networks.levels": 4}).codec()
        assert other is not None
        with pytest.raises(
            InputError, match=r"written by the encoder .* codec dplc, .* give the run that wrote it"
        ):
            other.decompress(codec.compress(Picture(images(1)[0])))

    def test_another_size_in_a_valid_container(self, codec: DplcCodec) -> None:
        """A section that is too short or too long for the image, or one too many."""
        found = container.unpack(codec.compress(Picture(images(1)[0])))
        ((section,),) = (one.sections for one in found.members)
        for sections, sentence in (
            ((bytes(6),), "at most 5 bytes, the code has 6"),
            ((bytes(1),), "(take at least|is damaged)"),
            ((section, section), "it has 2 sections"),
        ):
            stream = container.pack(
                container.Container(found.fingerprint, (container.Member(64, 64, sections),))
            )
            with pytest.raises(InputError, match=f"my.gcp cannot be decoded: .*{sentence}"):
                codec.decompress(stream, name="my.gcp")

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((64, 64), np.uint8),
            np.zeros((64, 64, 4), np.uint8),
            np.zeros((64, 64, 3), np.float32),
        ],
        ids=lambda a: f"{a.dtype}{a.shape}",
    )
    def test_images_of_another_kind(self, codec: DplcCodec, image: np.ndarray) -> None:
        with pytest.raises(InputError, match="takes RGB images of 8 bits"):
            codec.compress(Picture(image))


class TestJointContainers:
    """Crops of several sizes in one file."""

    SIZES = ((64, 64), (64, 64), (30, 100), (1, 1), (129, 64))

    def pictures(self) -> list[Picture]:
        generator = np.random.default_rng(11)
        return [
            Picture(generator.integers(0, 256, (*size, 3), dtype=np.uint8), index=i)
            for i, size in enumerate(self.SIZES)
        ]

    def test_every_picture_is_what_it_is_alone(self, codec: DplcCodec) -> None:
        stream = codec.compress_jointly(self.pictures())
        for place, picture in enumerate(self.pictures()):
            alone = codec.compress(picture)
            decoded = codec.decompress(stream, place=place)
            assert np.array_equal(decoded, codec.decompress(alone))
            assert np.array_equal(decoded, codec.reconstruct(picture))
            again = codec.decompress(stream, place=place, draw=3)
            assert np.array_equal(again, codec.reconstruct(picture, draw=3))
            member = container.unpack(stream).members[place]
            assert (member,) == container.unpack(alone).members

    def test_they_cost_less_than_alone(self, codec: DplcCodec) -> None:
        alone = [codec.compress(picture) for picture in self.pictures()]
        stream = codec.compress_jointly(self.pictures())
        assert codec.code_bits(stream) == sum(map(codec.code_bits, alone))
        assert len(stream) < sum(map(len, alone)) - 10 * (len(alone) - 2)

    def test_one_picture_is_a_file_of_its_own(self, codec: DplcCodec) -> None:
        (picture, *_) = self.pictures()
        assert codec.compress_jointly([picture]) == codec.compress(picture)

    def test_refusals(self, codec: DplcCodec) -> None:
        stream = codec.compress_jointly(self.pictures())
        with pytest.raises(InputError, match=r"my.gcp holds 5 pictures, there is no number 5"):
            codec.decompress(stream, place=5, name="my.gcp")
        with pytest.raises(InputError, match="at least one picture"):
            codec.compress_jointly([])
        for at in range(len(stream)):
            damaged = bytearray(stream)
            damaged[at] ^= 1 << at % 8
            with pytest.raises(InputError):
                codec.decompress(bytes(damaged))


@pytest.fixture(scope="module")
def decoders() -> list[DplcCodec]:
    """Codecs of one encoder: as it came, with another generator, and with another B."""
    source = system().networks
    found = [DplcCodec(source, 2, 8)]
    for name in ("generator", "latent_mapper"):
        changed = copy.deepcopy(source)
        with torch.no_grad():
            for parameter in changed[name].parameters():
                parameter.mul_(1.5)
        found.append(DplcCodec(changed, 2, 8))
    return found


class TestSeveralDecoders:
    """Decoders that share an encoder read its streams; one of another encoder does not."""

    def test_one_stream(self, decoders: list[DplcCodec]) -> None:
        picture = Picture(images(1)[0])
        streams = [made.compress(picture) for made in decoders]
        stream = streams[0]
        # They differ in the digests of what each decoder shows.
        assert len({container.unpack(one).members for one in streams}) == 1
        assert len({container.unpack(one).digests for one in streams}) == len(decoders)
        shown = [made.decompress(stream) for made in decoders]
        for made, image in zip(decoders, shown, strict=True):
            assert np.array_equal(image, made.reconstruct(picture))
        assert len({image.tobytes() for image in shown}) == len(decoders)
        assert len({made.writer_fingerprint for made in decoders}) == 1
        assert len({made.reader_fingerprint for made in decoders}) == len(decoders)

    @pytest.mark.parametrize("name", ["code_encoder", "code_tables"])
    def test_another_encoder_is_refused(self, decoders: list[DplcCodec], name: str) -> None:
        """Its weights, or the counts of its tables only."""
        changed = copy.deepcopy(system().networks)
        list(changed[name].state_dict().values())[-1].view(-1)[:1] += 1
        other = DplcCodec(changed, 2, 8)
        stream = other.compress(Picture(images(1)[0]))
        for made in decoders:
            sentence = (
                f"my.gcp was written by the encoder {other.writer_fingerprint.hex()} and cannot be"
                f" decoded by the codec dplc, .*{made.writer_fingerprint.hex()}"
            )
            with pytest.raises(InputError, match=sentence):
                made.decompress(stream, name="my.gcp")
            with pytest.raises(InputError, match="was written by the encoder"):
                made.code_bits(stream)


class TestFingerprints:
    def test_the_reader_is_every_weight_and_buffer(self) -> None:
        networks = system().networks
        one = DplcCodec(networks, 2, 8)
        assert one.reader_fingerprint == DplcCodec(copy.deepcopy(networks), 2, 8).reader_fingerprint
        assert one.reader_fingerprint != DplcCodec(networks, 4, 8).reader_fingerprint
        assert one.writer_fingerprint != DplcCodec(networks, 4, 8).writer_fingerprint
        for name, tensor in networks.state_dict().items():
            old = tensor.clone()
            last = tensor.view(-1)[-1:]  # a parent may lie before the last symbol
            last += 1 if tensor.dtype == torch.int64 else 1e-3
            other = DplcCodec(networks, 2, 8)
            assert other.reader_fingerprint != one.reader_fingerprint, name
            writes = name.startswith(("code_encoder.", "code_tables."))
            assert (other.writer_fingerprint != one.writer_fingerprint) == writes, name
            tensor.copy_(old)

    def test_the_reader_is_a_hash_that_stays(self) -> None:
        """It keys the decoder's noise and its digests: decoded images must stay what they are."""
        networks = system().networks
        digest = hashlib.blake2b(b"dplc 2 8", digest_size=8)
        for name, tensor in sorted(networks.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        assert DplcCodec(networks, 2, 8).reader_fingerprint == digest.digest()

    def test_the_salt_is_a_part_of_both(self) -> None:
        networks = system().codec()._networks  # type: ignore[union-attr]
        one, other = DplcCodec(networks, 2, 8), DplcCodec(networks, 2, 0)
        assert one.writer_fingerprint != other.writer_fingerprint
        assert one.reader_fingerprint != other.reader_fingerprint


class Grey(torch.nn.Module):
    """A code encoder that sees no detail, so that many pictures have one code."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.encoder(x_BCHW * 0)


@pytest.fixture(scope="module")
def blind() -> dict[int, DplcCodec]:
    """Codecs by their salt's bits, for which all pictures have the same code."""
    networks = copy.deepcopy(system().networks)
    networks["code_encoder"] = Grey(networks["code_encoder"])
    return {bits: DplcCodec(networks, 2, bits) for bits in (0, 8)}


class TestSalt:
    """Pictures with equal codes are shown as different images, each one always as the same."""

    def test_equal_codes_are_shown_as_different_images(self, blind: dict[int, DplcCodec]) -> None:
        """200 pictures of one code with salts of 8 bits show as many images as 200 balls hit of 256
        boxes, 139 ± 5, and without a salt one."""
        shown, sections = set(), set()
        for image in images(200):
            shown.add(blind[8].reconstruct(Picture(image)).tobytes())
            sections.add(blind[8]._payload.pack(blind[8]._encode(image), 0))
        assert len(sections) == 1  # the code without its salt
        assert 139 - 5 * 5 < len(shown) < 139 + 5 * 5
        alike = {blind[0].reconstruct(Picture(image)).tobytes() for image in images(5)}
        assert len(alike) == 1

    def test_files_are_those_of_the_picture_and_count_it(self, blind: dict[int, DplcCodec]) -> None:
        streams = {
            bits: [made.compress(Picture(image)) for image in images(4)]
            for bits, made in blind.items()
        }
        for bits, made in blind.items():
            assert streams[bits] == [made.compress(Picture(image)) for image in images(4)]
            for image, stream in zip(images(4), streams[bits], strict=True):
                assert np.array_equal(made.decompress(stream), made.reconstruct(Picture(image)))
        assert len(set(streams[8])) == 4 and len(set(streams[0])) == 1
        salted, plain = (blind[bits].code_bits(streams[bits][0]) for bits in (8, 0))
        assert salted == plain + 8

    def test_shape_and_pixels_decide_it(self) -> None:
        one = np.zeros((2, 3, 3), np.uint8)
        salts = {noise.salt_of(image, 24) for image in (one, one.reshape(3, 2, 3), one + 1)}
        assert len(salts) == 3
        assert noise.salt_of(one, 24) == noise.salt_of(one.copy(), 24) < 2**24
        assert noise.salt_of(one, 0) == 0

    def test_a_decoder_without_noise_has_none(self) -> None:
        made = system(**{"networks.stochastic": False}).codec()
        assert isinstance(made, DplcCodec) and made.salt_bits == 0

    def test_draws_are_draws_with_any_salt(self, blind: dict[int, DplcCodec]) -> None:
        """The variance over draws is that without a salt: at the same mean, within 4 standard
        errors of 40 draws of two pictures (probability 1e-4 with these seeds fixed)."""
        picture = Picture(images(1)[0])
        spreads = []
        for made in blind.values():
            shown = np.stack([made.reconstruct(picture, draw=i) for i in range(1, 41)])
            spreads.append(shown.astype(float).var(axis=0, ddof=1).mean())
        assert spreads[0] > 0
        assert spreads[1] == pytest.approx(spreads[0], rel=4 * math.sqrt(2 / 39) * math.sqrt(2))


class TestDigests:
    """A decoder shows the pixels that it has shown to the writer, or refuses by name."""

    @staticmethod
    def moved(made: DplcCodec, amount: float) -> DplcCodec:
        """The same decoder by name, whose arithmetic gives values that differ by `amount`."""
        other = copy.deepcopy(made)
        generator = other._networks["generator"]
        generator.register_forward_hook(lambda _, inputs, x_BCHW: x_BCHW + amount)
        assert other.reader_fingerprint == made.reader_fingerprint
        return other

    def test_a_pixel_that_flips_is_refused(self, codec: DplcCodec) -> None:
        """The smallest shift of all values that flips at least a value of one picture."""
        pictures = [Picture(image) for image in images(3)]
        shown = [codec.reconstruct(picture) for picture in pictures]
        amount = 1e-12
        while True:
            other = self.moved(codec, amount)
            again = [other.reconstruct(picture) for picture in pictures]
            flips = [int((a != b).sum()) for a, b in zip(shown, again, strict=True)]
            if any(flips):
                break
            amount *= 1.5
        assert amount < 1e-3 and max(flips) < 200
        stream = codec.compress_jointly(pictures)
        for place, count in enumerate(flips):
            if count:
                sentence = "my.gcp decodes to other pixels here than where it was written"
                with pytest.raises(InputError, match=sentence):
                    other.decompress(stream, place=place, name="my.gcp")
                with pytest.raises(InputError, match=sentence):
                    other.decompress(codec.compress(pictures[place]), name="my.gcp")
            else:
                assert np.array_equal(other.decompress(stream, place=place), shown[place])
            # Other draws have no digest.
            assert other.decompress(stream, place=place, draw=1).shape == (64, 64, 3)

    def test_another_decoder_of_the_encoder_reads(self, decoders: list[DplcCodec]) -> None:
        picture = Picture(images(1)[0])
        first, *others = decoders
        stream = first.compress(picture)
        for other in others:
            assert np.array_equal(other.decompress(stream), other.reconstruct(picture))
            with pytest.raises(InputError, match="decodes to other pixels here"):
                self.moved(other, 0.5).decompress(other.compress(picture))

    def test_a_stream_without_digests_is_read(self, codec: DplcCodec) -> None:
        picture = Picture(images(1)[0])
        found = container.unpack(codec.compress(picture))
        plain = container.pack(container.Container(found.fingerprint, found.members))
        assert np.array_equal(codec.decompress(plain), codec.reconstruct(picture))
        assert len(plain) == len(codec.compress(picture)) - 6


class TestLimits:
    """What a stream claims is checked before any work, in little memory."""

    def refused(self, codec: DplcCodec, stream: bytes, sentence: str, **limits: int) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(InputError, match=f"my.gcp .*{sentence}"):
                codec.decompress(stream, name="my.gcp", **limits)
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()

    def claiming(self, codec: DplcCodec, sizes: list[tuple[int, int]], section: bytes) -> bytes:
        members = tuple(container.Member(*size, (section,)) for size in sizes)
        return container.pack(container.Container(codec.writer_fingerprint, members))

    def test_claims_are_checked_first(
        self, codec: DplcCodec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(codec._payload._entropy, "decode", None)
        monkeypatch.setattr(DplcCodec, "_decode", None)
        tiny = self.claiming(codec, [(8192, 8192)], bytes(14))
        assert len(tiny) == 31
        self.refused(codec, tiny, "symbols of 2 levels take at least")
        huge = self.claiming(codec, [(65535, 65535)], bytes(14))
        self.refused(codec, huge, r"65535×65535 pixels, .* \(--max-pixels\)")
        self.refused(codec, huge, "symbols of 2 levels take at least", max_pixels=2**32)
        self.refused(codec, self.claiming(codec, [(64, 65)], b"abc"), "64×65", max_pixels=4159)
        many = self.claiming(codec, [(65535, 65535)] * 60_000, b"")
        self.refused(codec, many, "65535×65535 pixels")
        self.refused(codec, many, "take at least", max_pixels=2**32)

    def test_a_valid_small_file_of_13_gigabytes_is_refused(self) -> None:
        """Tables that know every symbol make it as small as it can be; still it is 3 KB."""
        networks = copy.deepcopy(system().networks)
        tables = networks["code_tables"]
        tables.counts[:] = 0
        tables.counts[..., 0] = 10**6
        made = DplcCodec(networks, 2, 8)
        rows, columns = 1024, 1024
        section = made._payload.pack(np.zeros((rows * columns, 32), np.int64), 7)
        assert 2500 < len(section) < 8000
        stream = self.claiming(made, [(65535, 65535)], section)
        self.refused(made, stream, "65535×65535 pixels, .* limit of 67108864")

    def test_the_limit_is_the_receivers(self, codec: DplcCodec) -> None:
        image = images(1)[0]
        stream = codec.compress(Picture(image))
        assert np.array_equal(
            codec.decompress(stream, max_pixels=4096), codec.reconstruct(Picture(image))
        )
        self.refused(
            codec, stream, "64×64 pixels, which is more than the limit of 4095", max_pixels=4095
        )
