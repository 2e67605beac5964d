"""The codec: files by three coders come back, exactly or nearly, or are refused by name."""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from gencomp.coding import container, logistic
from gencomp.coding.container import Container, Member
from gencomp.coding.latent_model import Floats, Gaussian
from gencomp.errors import InputError
from gencomp.system import Picture
from gencomp.systems.irec import codec as module
from gencomp.systems.irec.codec import Coded, IrecCodec, least_bits
from gencomp.systems.irec.ideal import gaussian_nats, of_picture, uniform_nats
from gencomp.systems.irec.latent_models import tiles
from gencomp.systems.irec.writing import CodecSection
from tests.gencomp.mangled_streams import sealed
from tests.gencomp.systems.irec import codec_cases
from tests.gencomp.systems.irec.codec_cases import KINDS, LOSSLESS, LOSSY, body, codec

CROPS = codec_cases.crops(6)


@pytest.mark.parametrize("kind", KINDS)
class TestRoundTrip:
    def test_alone(self, kind: str) -> None:
        writer = codec(kind)
        for picture in CROPS:
            stream = writer.compress(picture)
            shown = writer.decompress(stream, max_pixels=40 * 40)
            assert np.array_equal(shown, writer.reconstruct(picture))
            assert shown.shape == picture.image_HWC.shape and shown.dtype == np.uint8
            assert np.array_equal(shown, picture.image_HWC) or kind in LOSSY
            assert np.array_equal(shown, writer.decompress(stream, draw=7))
            found = container.unpack(stream)
            assert writer.code_bits(stream) == 8 * found.code_bytes
            assert found.members[0].sections[0][0] == {"bits_back": 1, "universal": 2}.get(kind, 0)
        assert writer.nominal_bits(64, 64) is None

    def test_jointly(self, kind: str) -> None:
        writer = codec(kind)
        stream = writer.compress_jointly(CROPS)
        alone = [writer.compress(picture) for picture in CROPS]
        assert len(stream) < sum(map(len, alone))
        for place in (3, 0, 5, 3):
            shown = writer.decompress(stream, place=place)
            assert np.array_equal(shown, writer.reconstruct(CROPS[place]))
        with pytest.raises(InputError, match="holds 6 pictures, there is no number 6"):
            writer.decompress(stream, place=6)
        assert writer.compress_jointly(CROPS[:1]) == alone[0] == writer.compress(CROPS[0])

    def test_a_pixel_and_a_line(self, kind: str) -> None:
        writer = codec(kind)
        for size in ((1, 1), (1, 9), (7, 1)):
            picture = Picture(np.full((*size, 3), 200, np.uint8))
            shown = writer.decompress(writer.compress(picture))
            assert np.array_equal(shown, writer.reconstruct(picture))

    def test_bad_pictures_are_refused(self, kind: str) -> None:
        for image_HWC in (
            np.zeros((4, 4), np.uint8),
            np.zeros((4, 4, 3)),
            np.zeros((0, 4, 3), np.uint8),
        ):
            for use in (codec(kind).compress, codec(kind).reconstruct):
                with pytest.raises(InputError, match=r"takes (RGB )?images"):
                    use(Picture(image_HWC))
        with pytest.raises(InputError, match="at least one picture"):
            codec(kind).compress_jointly([])


@pytest.mark.parametrize("kind", LOSSLESS)
class TestLossless:
    def test_a_small_picture_has_15_bytes_of_container(self, kind: str) -> None:
        picture = codec_cases.crops(1, 32, 32)[0]
        stream = codec(kind).compress(picture)
        assert 8 * len(stream) - codec(kind).code_bits(stream) == 8 * 15

    def test_every_byte_and_every_cut_is_found(self, kind: str) -> None:
        picture = Picture(CROPS[0].image_HWC[:6, :5])
        stream = codec(kind).compress(picture)
        for at in range(len(stream)):
            for mask in (1, 0x80, 0xFF):
                damaged = bytearray(stream)
                damaged[at] ^= mask
                with pytest.raises(InputError):
                    codec(kind).decompress(bytes(damaged))
            with pytest.raises(InputError):
                codec(kind).decompress(stream[:at])
        with pytest.raises(InputError):
            codec(kind).decompress(stream + b"\0")

    def test_even_with_the_right_checksum(self, kind: str) -> None:
        """The hash of the image finds what the checksum of the bytes does not."""
        stream = codec(kind).compress(Picture(CROPS[0].image_HWC[:6, :5]))
        whole = body(stream)
        for at in range(3, len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            with pytest.raises(InputError):
                codec(kind).decompress(sealed(bytes(damaged)), max_pixels=10_000)

    def test_a_tiled_picture(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tiles of 16 pixels, coded one after the other."""
        coded = codec(kind)._coded._replace(tiles=lambda height, width: tiles(height, width, 16))
        section = CodecSection(coder=kind)  # type: ignore[arg-type]
        small = IrecCodec(coded, section)
        picture = codec_cases.crops(1, 37, 41)[0]
        stream = small.compress(picture)
        assert np.array_equal(small.decompress(stream), picture.image_HWC)
        joint = small.compress_jointly([picture, *CROPS[:2]])
        assert np.array_equal(small.decompress(joint, place=0), picture.image_HWC)

    def test_claims_without_a_code_are_refused_at_once(self, kind: str) -> None:
        writer = codec(kind)
        stream = writer.compress(CROPS[0])
        found = container.unpack(stream)
        huge = Container(
            found.fingerprint, (Member(8192, 8192, found.members[0].sections),), (), found.digests
        )
        tracemalloc.start()
        began = time.process_time()
        said = "8192×8192 pixels take at least" if kind == "relative_entropy" else ""
        with pytest.raises(InputError, match=rf"a\.gcp cannot be decoded: {said}"):
            writer.decompress(container.pack(huge), name="a.gcp")
        spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30e6 and spent < 1
        with pytest.raises(InputError, match="more than the limit"):
            writer.decompress(stream, max_pixels=1)


class TestChains:
    def test_pictures_in_several_chains(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CHAIN_PIXELS", 600)
        writer = IrecCodec(codec("bits_back")._coded, CodecSection(coder="bits_back"))
        stream = writer.compress_jointly(CROPS)
        assert len(container.unpack(stream).shared) > 2
        for place in (5, 0, 2, 3, 1, 4):
            assert np.array_equal(writer.decompress(stream, place=place), CROPS[place].image_HWC)
        found = container.unpack(stream)
        fewer = Container(found.fingerprint, found.members, found.shared[:-1], found.digests)
        with pytest.raises(InputError, match="sections are not those of this codec"):
            writer.decompress(container.pack(fewer))

    def test_a_chain_that_was_read_is_not_taken_for_pictures_that_it_does_not_hold(self) -> None:
        """A hostile file with the chain of a good one, read right after it."""
        stream = codec("bits_back").compress_jointly(CROPS[:2])
        found = container.unpack(stream)
        hashes = found.digests.pixels if found.digests else b""
        more = Container(
            found.fingerprint,
            (*found.members, Member(4, 4)),
            found.shared,
            container.Digests(b"", hashes + bytes(4)),
        )
        codec("bits_back").decompress(stream)
        with pytest.raises(InputError, match="damaged"):
            codec("bits_back").decompress(container.pack(more), place=2)

    def test_too_many_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CHAIN_PIXELS", 1)
        monkeypatch.setattr(module, "_MOST_CHAINS", 2)
        with pytest.raises(InputError, match=r"at most 2 chains of bits-back.* several files"):
            codec("bits_back").compress_jointly([Picture(np.zeros((2, 2, 3), np.uint8))] * 3)

    def test_a_large_picture_behind_a_small_one_counts(self) -> None:
        """A chain is read whole, so all of its pictures must be within the limit."""
        stream = codec("bits_back").compress_jointly([CROPS[0], CROPS[1]])
        least = min(one.image_HWC[..., 0].size for one in CROPS[:2])
        smaller = [one.image_HWC[..., 0].size for one in CROPS[:2]].index(least)
        with pytest.raises(InputError, match="its chain claims a picture"):
            codec("bits_back").decompress(stream, place=smaller, max_pixels=least)


class TestLossy:
    @pytest.mark.parametrize("kind", LOSSY)
    def test_every_byte_is_found(self, kind: str) -> None:
        stream = codec(kind).compress(CROPS[1])
        for at in range(len(stream)):
            damaged = bytearray(stream)
            damaged[at] ^= 1 << at % 8
            with pytest.raises(InputError):
                codec(kind).decompress(bytes(damaged))

    @pytest.mark.parametrize("kind", ["two_level", "one_level"])
    def test_a_prior_that_differs_in_its_last_bit(self, kind: str) -> None:
        """Relative entropy coding: the image moves by as little."""
        writer = codec(kind)
        reader = IrecCodec(writer._coded._replace(model=Elsewhere(writer._model)), CodecSection())
        for picture in CROPS:
            stream = writer.compress(picture)
            shown = writer.decompress(stream).astype(int)
            assert np.abs(reader.decompress(stream) - shown).max() <= 2

    def test_such_a_prior_is_refused_where_it_would_end_in_garbage(self) -> None:
        writer = codec("universal")
        reader = IrecCodec(writer._coded._replace(model=Elsewhere(writer._model)), CodecSection())
        refused = 0
        for picture in CROPS:
            stream = writer.compress(picture)
            try:
                shown = reader.decompress(stream, name="a.gcp")
            except InputError as error:
                assert "a.gcp" in str(error)
                refused += 1
            else:
                assert np.array_equal(shown, writer.decompress(stream))
        assert refused

    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_a_lossless_picture_is_right_or_refused(self, kind: str) -> None:
        writer = codec(kind)
        section = CodecSection(coder=kind)  # type: ignore[arg-type]
        reader = IrecCodec(writer._coded._replace(model=Elsewhere(writer._model)), section)
        refused = 0
        for picture in CROPS:
            stream = writer.compress(picture)
            try:
                assert np.array_equal(reader.decompress(stream, name="a.gcp"), picture.image_HWC)
            except InputError as error:
                assert "a.gcp" in str(error)
                refused += 1
        assert refused


class Elsewhere:
    """A model on a processor that rounds each hundredth prior mean to the next multiple."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prior(self, state: Any) -> Gaussian:
        mean_D, scale_D = self._model.prior(state)
        moved_D: Floats = mean_D.copy()
        moved_D[::100] += 2.0**-12
        return Gaussian(moved_D, scale_D)


class TestChoices:
    def test_all_files_of_a_run_are_read_by_any_codec_of_it(self) -> None:
        """Neither the coder nor the effort is a part of the fingerprint."""
        writers = [codec("relative_entropy"), codec("bits_back")]
        writers += [codec("relative_entropy", effort=effort) for effort in ("fast", "best")]
        writers.append(codec("relative_entropy", omega=4.0, oversampling=0.05, beams=3))
        assert len({writer.writer_fingerprint for writer in writers}) == 1
        streams = [writer.compress(CROPS[2]) for writer in writers]
        assert len(set(streams)) == len(streams)
        for writer in writers:
            for stream in streams:
                assert np.array_equal(writer.decompress(stream), CROPS[2].image_HWC)

    def test_settings_follow_from_the_effort_unless_they_are_named(self) -> None:
        from gencomp.coding.relative_entropy import EFFORTS

        assert module.settings_of(CodecSection(effort="best")) == EFFORTS["best"]
        found = module.settings_of(CodecSection(effort="fast", beams=7))
        assert found == EFFORTS["fast"]._replace(beams=7)

    @pytest.mark.parametrize(
        ("kind", "coder", "sentence"),
        [
            ("two_level", "bits_back", "a lossy model, whose receiver cannot give bits back, are"),
            ("two_level", "universal", "coded by relative_entropy$"),
            ("universal", "relative_entropy", "uniform posteriors are coded by universal$"),
            ("relative_entropy", "universal", "coded by relative_entropy or bits_back$"),
        ],
    )
    def test_coders_that_do_not_fit_are_refused(self, kind: str, coder: Any, sentence: str) -> None:
        with pytest.raises(InputError, match=rf"codec.coder is {coder}, but .*{sentence}"):
            IrecCodec(codec(kind)._coded, CodecSection(coder=coder))

    def test_numbers_that_no_coder_has_are_refused(self) -> None:
        stream = codec("two_level").compress(CROPS[0])
        found = container.unpack(stream)
        for number in (1, 2, 3, 255):
            section = bytes([number]) + found.members[0].sections[0][1:]
            other = Container(found.fingerprint, (found.members[0]._replace(sections=(section,)),))
            with pytest.raises(InputError, match=f"coder of latents, number {number}, is none"):
                codec("two_level").decompress(container.pack(other))

    def test_another_writer_and_other_checks_are_refused(self) -> None:
        stream = codec("two_level").compress(CROPS[0])
        with pytest.raises(InputError, match="was written by the encoder"):
            codec("one_level").decompress(stream)
        found = container.unpack(codec("relative_entropy").compress(CROPS[0]))
        plain = Container(codec("relative_entropy").writer_fingerprint, found.members)
        with pytest.raises(InputError, match="its checks are not those of this codec"):
            codec("relative_entropy").decompress(container.pack(plain))


class TestIdeal:
    @pytest.mark.parametrize("kind", KINDS)
    def test_files_are_a_little_longer(self, kind: str) -> None:
        """The measured bits against the bound, over some pictures; a sample has its own error."""
        writer = codec(kind)
        ideal = sum(of_picture(writer._coded, picture).bits for picture in CROPS)
        actual = sum(writer.code_bits(writer.compress(picture)) for picture in CROPS)
        if kind == "bits_back":
            actual = writer.code_bits(writer.compress_jointly(CROPS))
        assert 0.9 * ideal < actual < 1.3 * ideal + 64 * len(CROPS)

    def test_is_the_same_every_time(self) -> None:
        first, second = (of_picture(codec("two_level")._coded, CROPS[0]) for _ in range(2))
        assert first.bits == second.bits
        assert np.array_equal(first.image_HWC, second.image_HWC)

    def test_divergences(self) -> None:
        """KL(N(1.5, 0.3²) ‖ N(0, 1)), and the interval about 0.2 of a prior that is narrower."""
        q, p = Gaussian(np.array([1.5]), np.array([0.3])), Gaussian(np.zeros(1), np.ones(1))
        assert gaussian_nats(q, p) == pytest.approx(-math.log(0.3) + (0.09 + 2.25 - 1) / 2)
        mass = (math.erf(0.7 / 0.5 / 2**0.5) + math.erf(0.3 / 0.5 / 2**0.5)) / 2
        narrow = Gaussian(np.zeros(1), np.array([0.5]))
        assert uniform_nats(np.array([0.2]), narrow) == pytest.approx(-math.log(mass))

    def test_measured_bits_are_those_of_the_indices_and_the_residual(self) -> None:
        """Within 1 % and 16 bytes for the whole file."""
        writer = codec("relative_entropy")
        for picture in codec_cases.crops(8, 24, 40, seed=5):
            stream = writer.compress(picture)
            parts = index_and_residual_bits(writer, picture)
            assert parts < 8 * len(stream) <= 1.01 * parts + 8 * 16


def index_and_residual_bits(writer: IrecCodec, picture: Picture) -> float:
    """The bits of the indices at log2 n each, and the ideal bits of the residual."""
    from gencomp.coding.range_coder import Encoder
    from gencomp.systems.irec.latent_coders import Place

    coder = writer._latent_coder(0)
    state = coder.encode(Encoder(), writer._model, picture.image_HWC, Place(writer._seed, 0))
    values_N = picture.image_HWC.reshape(-1).astype(np.int64)
    residual = -logistic.log_likelihood(writer._model.likelihood(state), values_N) / math.log(2)
    return residual + sum(
        len(code.indices) * math.log2(code.candidates) for code in codes_of(writer, picture)
    )


def codes_of(writer: IrecCodec, picture: Picture) -> list[Any]:
    """The codes of all blocks of a picture."""
    from gencomp.coding import relative_entropy
    from gencomp.coding.range_coder import Decoder

    section = container.unpack(writer.compress(picture)).members[0].sections[0]
    dimensions = writer._model.dimensions(*picture.image_HWC.shape[:2])
    layers = relative_entropy.coder(dimensions).decode(Decoder(section[1:]))
    return [code for layer in layers for code in layer]


def test_the_least_bits_of_a_value() -> None:
    """No mean that the model may give makes a value cheaper."""
    for scale in (0.003, 0.02, 0.3):
        edges = np.array([-0.5 + 0.5 / 256, 0.5 - 0.5 / 256, 0.0, 0.3])
        from gencomp.coding.latent_model import Logistic

        for level in (0, 128, 204, 255):
            cost = -np.array(
                [
                    logistic.log_likelihood(Logistic(edges[i : i + 1], scale), np.array([level]))
                    for i in range(len(edges))
                ]
            ) / math.log(2)
            assert (cost >= least_bits(scale)).all()


def test_coded_defaults() -> None:
    coded = codec("two_level")._coded
    assert isinstance(coded, Coded) and coded.least_bits == 0
    assert [tuple(tile) for tile in coded.tiles(3, 5)] == [(0, 0, 3, 5)]
