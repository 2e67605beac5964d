"""Real containers: round trips, every decoder of an encoder, refinements, and hostile streams."""

from __future__ import annotations

import hashlib
import math
import pickle

import numpy as np
import pytest
import torch

from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.rate_distortion.perception import uniform_symbol_entropy
from gencomp.system import Picture
from gencomp.systems.urdp import codec as codecs
from gencomp.systems.urdp.codec import UrdpCodec
from tests.gencomp import urdp_cases
from tests.gencomp.other_processes import printed


def pictures(count: int, first: int = 0, side: int = 28) -> list[Picture]:
    """Grey blobs, so that encoders give different codes."""
    numbers = np.random.default_rng(4)
    axis = np.arange(side)
    found = []
    for place in range(count):
        row, column, width = numbers.uniform(4, side - 4, 2).tolist() + [numbers.uniform(2, 6)]
        grey = np.exp(-((axis[:, None] - row) ** 2 + (axis - column) ** 2) / (2 * width**2))
        image = np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
        found.append(Picture(image, index=first + place))
    return found


def finished(stage: str = "end_to_end", **overrides) -> urdp_cases.UrdpSystem:
    """A system whose statistics and tables are those of its images."""
    system = urdp_cases.made(stage, **overrides)
    system.finalise(urdp_cases.supply(system))
    return system


@pytest.fixture(scope="module")
def codec() -> UrdpCodec:
    return finished().codec()


class TestRoundTrips:
    @pytest.mark.parametrize("stage", ["end_to_end", "universal", "refinement"])
    @pytest.mark.parametrize("dither", ["shared", "private", "none"])
    def test_alone_and_jointly(self, stage, dither):
        codec = finished(stage, **({} if stage == "universal" else {"code.dither": dither})).codec()
        batch = pictures(5, first=2**40)
        joint = codec.compress_jointly(batch)
        for place, picture in enumerate(batch):
            promised = codec.reconstruct(picture)
            assert np.array_equal(codec.decompress(codec.compress(picture)), promised)
            assert np.array_equal(codec.decompress(joint, place=place), promised)
        assert codec.compress_jointly(batch) == joint

    @pytest.mark.parametrize("levels", [2, 5, 256])
    def test_levels(self, levels):
        codec = finished(**{"code.levels": levels, "code.latents": 7}).codec()
        joint = codec.compress_jointly(batch := pictures(9))
        assert codec.nominal_bits(28, 28) == 7 * math.log2(levels)
        for place, picture in enumerate(batch):
            assert np.array_equal(codec.decompress(joint, place=place), codec.reconstruct(picture))

    def test_any_indices(self, codec):
        batch = [
            Picture(one.image_HWC, index=index)
            for one, index in zip(pictures(3), (7, 2**64 - 1, 0), strict=True)
        ]
        joint = codec.compress_jointly(batch)
        for place, picture in enumerate(batch):
            assert np.array_equal(codec.decompress(joint, place=place), codec.reconstruct(picture))

    def test_the_index_decides_the_dither(self, codec):
        """The same image under 200 indices has many codes, which a fixed dither could not give."""
        image = pictures(1)[0].image_HWC
        shown = {codec.reconstruct(Picture(image, index=index)).tobytes() for index in range(200)}
        assert len(shown) > 100

    def test_a_receiver_s_own_dither_has_draws(self):
        codec = finished(**{"code.dither": "private"}).codec()
        stream = codec.compress(pictures(1)[0])
        draws = [codec.decompress(stream, draw=draw) for draw in (None, 0, 1, 2)]
        assert np.array_equal(draws[0], draws[1])
        assert not np.array_equal(draws[1], draws[2])
        assert not np.array_equal(draws[2], draws[3])
        assert np.array_equal(codec.decompress(stream, draw=2), draws[3])

    @pytest.mark.parametrize("bits", [0, 1, 2, 8])
    def test_shared_bits_choose_among_so_many_dithers(self, bits):
        codec = finished(**{"code.shared_bits": bits}).codec()
        image = pictures(1)[0].image_HWC
        shown = {codec.reconstruct(Picture(image, index=i)).tobytes() for i in range(4 << bits)}
        assert len(shown) <= 1 << bits
        assert len(shown) > (1 << bits) / 4
        stream = codec.compress(Picture(image, index=5))
        expected = codec.reconstruct(Picture(image, index=5))
        assert np.array_equal(codec.decompress(stream), expected)


READER = """
import hashlib, pickle
folder = sys.argv[1]
codec = pickle.load(open(f"{folder}/codec", "rb"))
for count, stream in pickle.load(open(f"{folder}/streams", "rb")):
    shown = [codec.decompress(stream, place=place) for place in reversed(range(count))]
    for image_HWC in reversed(shown):
        print(hashlib.sha256(image_HWC).hexdigest())
"""


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param({1: 145, 7: 343, 64: 512}, id="a thousand in all"),
        pytest.param(dict.fromkeys((1, 7, 64), 1000), id="a thousand each", marks=pytest.mark.slow),
    ],
)
def test_other_processes_show_the_same(codec, tmp_path, counts):
    """Digits in files of 1, 7 and 64, read backwards, with one thread and with two."""
    batch = pictures(1000, first=123)
    hashes = [hashlib.sha256(codec.reconstruct(one)).hexdigest() for one in batch]
    streams, expected = [], []
    for size, count in counts.items():
        first = len(expected) % 1000
        for start in range(first, first + count, size):
            part = slice(start, min(start + size, first + count))
            streams.append((part.stop - start, codec.compress_jointly(batch[part])))
            expected += hashes[part]
    (tmp_path / "streams").write_bytes(pickle.dumps(streams))
    (tmp_path / "codec").write_bytes(pickle.dumps(codec))
    assert len(expected) == sum(counts.values())
    for threads in (1, 2):
        assert printed(READER, tmp_path, threads, "on") == expected


class TestSizes:
    @pytest.mark.parametrize(
        ("latents", "levels", "size"),
        [(3, 3, 595), (3, 4, 750), (4, 4, 1000), (6, 3, 1189), (10, 8, 3750), (20, 8, 7500)],
    )
    def test_a_thousand_pictures_at_the_fixed_length(self, latents, levels, size):
        """Symbols without structure, for which the tables of a uniform latent save nothing."""
        system = urdp_cases.made(**{"code.latents": latents, "code.levels": levels})
        layer = codecs.CodedLayer(
            system.networks["encoder"], system.networks["tables"], system.layers[0].code
        )
        symbols = np.random.default_rng(0).integers(0, levels, (1000, latents))
        units = np.zeros((1000, latents))
        payload, coded = codecs._written(symbols, units, layer)
        assert len(codecs.fixed_length.pack(symbols, levels)) == size
        assert len(payload) <= size
        assert np.array_equal(codecs._symbols(payload, coded, units, layer), symbols)

    def test_symbols_cost_their_entropy_given_the_dither(self):
        """Uniform latents of 3 levels: 1.361 bits a symbol where the fixed length has 1.585."""
        system = urdp_cases.made()
        code = system.layers[0].code
        layer = codecs.CodedLayer(system.networks["encoder"], system.networks["tables"], code)
        f = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5000, 3)))
        units = code.keyed_units(seed=1, indices_B=range(5000))
        symbols = codecs.coding.symbols(f, torch.from_numpy(units), code).numpy()
        payload, coded = codecs._written(symbols, units, layer)
        assert coded
        # The standard error of the mean over 15,000 symbols is below 0.006 bits.
        assert 8 * len(payload) / 15_000 == pytest.approx(uniform_symbol_entropy(3), abs=0.02)
        assert np.array_equal(codecs._symbols(payload, coded, units, layer), symbols)

    def test_one_container_of_many(self, codec):
        joint = codec.compress_jointly(pictures(1000, first=1 << 60))
        assert codec.code_bits(joint) <= 8 * 595
        assert len(joint) - codec.code_bits(joint) / 8 <= 40


class TestReceiversChoice:
    def test_five_decoders_read_one_stream(self):
        base = finished()
        state = {"encoder": base.networks.state_dict()}
        systems = [base]
        for seed in range(4):
            other = urdp_cases.made("universal")
            other.load_frozen(state)
            torch.manual_seed(seed)
            for parameter in other.networks["decoder"].parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            systems.append(other)
        batch = pictures(4, first=9)
        joint = base.codec().compress_jointly(batch)
        shown = []
        for system in systems:
            codec = system.codec()
            assert codec.writer_fingerprint == base.codec().writer_fingerprint
            images = [codec.decompress(joint, place=place) for place in range(4)]
            for image, picture in zip(images, batch, strict=True):
                assert np.array_equal(image, codec.reconstruct(picture))
            shown.append(np.stack(images).tobytes())
            assert codec.compress_jointly(batch)[:9] == joint[:9]
        assert (
            len(set(shown)) == len({system.codec().reader_fingerprint for system in systems}) == 5
        )

    def test_another_encoder_s_decoder_is_refused(self, codec):
        stream = codec.compress(pictures(1)[0])
        other = finished(**{"code.levels": 4}).codec()
        with pytest.raises(InputError, match="cannot be decoded by the codec urdp"):
            other.decompress(stream)

    def test_a_drifted_encoder_is_another_one(self):
        base, drifted = (
            finished(),
            urdp_cases.made("universal", **{"encoder.statistics": "drifting"}),
        )
        state = {"encoder": base.networks.state_dict()}
        drifted.initialise(state, urdp_cases.supply(drifted))
        stream = base.codec().compress(pictures(1)[0])
        drifted.codec().decompress(stream)
        urdp_cases.update(drifted, "critic")
        with pytest.raises(InputError, match="cannot be decoded"):
            drifted.codec().decompress(stream)

    def test_points_between_two_decoders(self):
        base, other = finished(), urdp_cases.made("universal")
        other.load_frozen({"encoder": base.networks.state_dict()})
        picture = pictures(1, first=3)[0]
        stream = base.codec().compress(picture)
        ends = [one.codec().decompress(stream).astype(float) for one in (base, other)]
        for share in (0.0, 0.25, 1.0):
            mixed = base.mixed_codec(other, share)
            image = mixed.decompress(stream)
            assert np.array_equal(image, mixed.reconstruct(picture))
            expected = (1 - share) * ends[0] + share * ends[1]
            assert np.abs(image - expected).max() <= 1
        with pytest.raises(InputError, match="decoders of different encoders"):
            base.mixed_codec(finished(**{"code.levels": 4}), 0.5)


class TestRefinement:
    @pytest.fixture(scope="class")
    @staticmethod
    def pair() -> tuple[UrdpCodec, UrdpCodec]:
        base = finished()
        refined = urdp_cases.made("refinement", **{"code.levels": 4, "code.latents": 2})
        refined.load_frozen({"encoder": base.networks.state_dict()})
        refined.finalise(urdp_cases.supply(refined))
        return base.codec(), refined.codec()

    def test_it_is_a_layer_that_can_be_left_out(self, pair):
        base, refined = pair
        batch = pictures(6)
        stream = refined.compress_jointly(batch)
        cut = codecs.without_refinement(stream)
        assert len(cut) < len(stream)
        for place, picture in enumerate(batch):
            promised = base.reconstruct(picture)
            assert np.array_equal(base.decompress(stream, place=place), promised)
            assert np.array_equal(base.decompress(cut, place=place), promised)
            fine = refined.decompress(stream, place=place)
            assert np.array_equal(fine, refined.reconstruct(picture))
        with pytest.raises(InputError, match="holds no refinement, which this decoder needs"):
            refined.decompress(cut)
        with pytest.raises(InputError, match="holds no refinement that could be left out"):
            codecs.without_refinement(cut)

    def test_containers_of_other_forms_have_none(self, pair):
        """Those of other methods have other shared sections, or pictures with their own."""
        _, refined = pair
        whole = container.unpack(refined.compress_jointly(pictures(3)))
        head, base, fine = whole.shared
        own = tuple(one._replace(sections=(b"1",)) for one in whole.members)
        for members, shared in (
            (whole.members, (b"", base, fine)),
            (whole.members, (bytes([head[0] | 8]) + head[1:], base, fine)),
            (whole.members, (head + bytes(9), base, fine)),
            (whole.members, (head, base, fine[:6])),
            (whole.members, (head, base, fine, b"1")),
            (own, whole.shared),
        ):
            other = container.pack(container.Container(whole.fingerprint, members, shared))
            with pytest.raises(InputError, match="holds no refinement that could be left out"):
                codecs.without_refinement(other)

    def test_its_rate_is_that_of_both_layers(self, pair):
        base, refined = pair
        assert base.nominal_bits(28, 28) == pytest.approx(4.7549, abs=5e-5)
        assert refined.nominal_bits(28, 28) == pytest.approx(4.7549 + 4, abs=5e-5)
        stream = refined.compress_jointly(pictures(50))
        assert base.code_bits(stream) < refined.code_bits(stream) <= 8 * (30 + 25)

    def test_another_base_is_refused(self, pair):
        _, refined = pair
        stranger = finished(**{"code.levels": 4}).codec()
        with pytest.raises(InputError, match="cannot be decoded"):
            refined.decompress(stranger.compress(pictures(1)[0]))

    def test_another_refinement_is_refused(self, pair):
        base, refined = pair
        stream = container.unpack(refined.compress(pictures(1)[0]))
        shared = (*stream.shared[:2], b"\0" * 6 + stream.shared[2][6:])
        forged = container.pack(container.Container(stream.fingerprint, stream.members, shared))
        base.decompress(forged)
        with pytest.raises(InputError, match="refinement was written by another encoder"):
            refined.decompress(forged)


class TestRefusals:
    def test_pictures(self, codec):
        good = pictures(2)
        with pytest.raises(InputError, match="two pictures have the index 0"):
            codec.compress_jointly([good[0], good[0]])
        with pytest.raises(InputError, match="grey images, not one in colour"):
            colour = good[0].image_HWC.copy()
            colour[3, 3, 1] ^= 255
            codec.compress(Picture(colour))
        with pytest.raises(InputError, match="28×28 pixels, not uint8 of shape 28×30×3"):
            codec.compress(Picture(np.zeros((28, 30, 3), np.uint8)))
        with pytest.raises(InputError, match="index of a picture is 0 to"):
            codec.compress(Picture(good[0].image_HWC, index=-1))
        with pytest.raises(InputError, match="container needs at least one picture"):
            codec.compress_jointly([])

    def test_every_byte_flipped(self, codec):
        stream = codec.compress_jointly(pictures(20))
        numbers = np.random.default_rng(2)
        for place in range(len(stream)):
            damaged = bytearray(stream)
            damaged[place] ^= int(numbers.integers(1, 256))
            with pytest.raises(InputError):
                codec.decompress(bytes(damaged))

    def test_forged_sections(self, codec):
        """Each has a correct checksum, so the codec itself must find what is wrong."""
        good = container.unpack(codec.compress_jointly(pictures(4)))
        head, base = good.shared
        sections = {
            "no sections": (),
            "no symbols": (head,),
            "too many": (head, base, base, base),
            "an empty head": (b"", base),
            "unknown flags": (bytes([head[0] | 64]) + head[1:], base),
            "the flag of a refinement": (bytes([head[0] | 2]) + head[1:], base),
            "a leading zero": (head[:1] + b"\0", base),
            "too long an index": (head[:1] + b"\1" * 9, base),
            "an overflow": (head[:1] + b"\xff" * 8, base),
            "symbols cut": (head, base[:-1]),
            "symbols too many": (head, base + b"\1"),
        }
        for name, shared in sections.items():
            members = good.members if shared else tuple(good.members[:1])
            forged = container.pack(container.Container(good.fingerprint, members, shared))
            with pytest.raises(InputError, match="cannot be decoded"):
                codec.decompress(forged, name=name)
        sizes = container.Container(good.fingerprint, (container.Member(28, 27),), good.shared)
        with pytest.raises(InputError, match="28×27 pixels"):
            codec.decompress(container.pack(sizes))


def test_digests_are_written_only_where_a_pixel_is_at_a_border(codec, monkeypatch):
    batch = pictures(3)
    plain = container.unpack(codec.compress_jointly(batch))
    assert plain.digests is None
    monkeypatch.setattr(codecs, "MARGIN", 0.5)
    close = codec.compress_jointly(batch)
    assert container.unpack(close).digests is not None
    for place, picture in enumerate(batch):
        assert np.array_equal(codec.decompress(close, place=place), codec.reconstruct(picture))
    wrong = finished().codec()
    wrong._decoders[0][0].register_forward_hook(lambda _, inputs, x_BCHW: x_BCHW + 0.1)
    with pytest.raises(InputError, match="decodes to other pixels"):
        wrong.decompress(close)


class TestWorkIsDoneOnce:
    def test_each_picture_is_read_once(self, codec):
        """Pictures may be read from files when they are asked for."""
        read = []

        class Pictures(list):
            def __iter__(self):
                for place in range(len(self)):
                    read.append(place)
                    yield self[place]

        codec.compress_jointly(Pictures(pictures(6)))
        assert read == list(range(6))

    def test_a_container_is_decoded_once_for_all_its_pictures(self, codec, monkeypatch):
        """It is decoded again after another one has been."""
        decoded = []
        whole = codecs._symbols

        def counted(payload, *rest):
            decoded.append(payload)
            return whole(payload, *rest)

        monkeypatch.setattr(codecs, "_symbols", counted)
        batches = pictures(5), pictures(5, first=77)
        joint = [codec.compress_jointly(batch) for batch in batches]
        for which in (0, 1, 0):
            before = len(decoded)
            for place, picture in enumerate(batches[which]):
                image = codec.decompress(joint[which], place=place)
                assert np.array_equal(image, codec.reconstruct(picture))
            assert len(decoded) == before + 1
