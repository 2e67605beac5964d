"""Files of generative compression: their parts, what they decode to, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from gencomp.coding import container, label_maps
from gencomp.errors import InputError
from gencomp.system import Batch, Picture
from gencomp.systems.gan_compression.codec import GanCodec
from tests.gencomp.gan_cases import CLASSES, MODES, coded, draws, made, picture

NOISY = {"networks.noise_channels": 3, "code.salt_bits": 8}
WITH_INSTANCES = {"data.maps": ["label", "instance"], "labels.instances": "instance"}
# The bytes around the code of one picture of at most 127 pixels a side: 21, and for files of more
# than one part the number of parts and the length of each but the last.
AROUND = {"distortion": 21, "global": 21, "global_plus": 21, "conditional": 23, "selective": 24}
# The parts of a file in each mode.
PARTS = {
    "distortion": ("latents",),
    "global": ("latents",),
    "global_plus": ("latents",),
    "conditional": ("labels", "latents"),
    "selective": ("labels", "mask", "latents"),
}


def selective(**more: Any) -> GanCodec:
    return coded("selective", **WITH_INSTANCES, **more).codec()


def sections(stream: bytes) -> tuple[bytes, ...]:
    return container.unpack(stream).members[0].sections


@pytest.mark.parametrize("case", ("distortion", *MODES))
class TestRoundTrips:
    def test_any_size(self, case: str) -> None:
        codec = coded(case).codec()
        for number, (height, width) in enumerate([(17, 17), (32, 70), (100, 33), (64, 64)]):
            one = picture(height, width, seed=number)
            stream = codec.compress(one)
            shown_HWC = codec.decompress(stream)
            assert shown_HWC.shape == (height, width, 3) and shown_HWC.dtype == np.uint8
            assert np.array_equal(shown_HWC, codec.reconstruct(one))
            assert codec.compress(one) == stream
            assert len(stream) == codec.code_bits(stream) // 8 + AROUND[case]

    def test_parts(self, case: str) -> None:
        codec = coded(case).codec()
        stream = codec.compress(picture(64, 80))
        found = container.part_bits(container.unpack(stream), codec.parts)
        assert codec.parts == tuple(found) == PARTS[case]
        assert sum(found.values()) == codec.code_bits(stream)
        nominal = codec.nominal_bits(64, 80)
        if case == "selective":
            assert nominal is None
        else:
            assert nominal is not None and found["latents"] <= -(-nominal // 8) * 8

    def test_many_in_one_file(self, case: str) -> None:
        codec = coded(case).codec()
        pictures = [picture(40 + 8 * n, 64, seed=n) for n in range(3)]
        stream = codec.compress_jointly(pictures)
        for place, one in enumerate(pictures):
            assert np.array_equal(codec.decompress(stream, place=place), codec.reconstruct(one))
        assert len(stream) < sum(len(codec.compress(one)) for one in pictures)
        with pytest.raises(InputError, match="there is no number 3"):
            codec.decompress(stream, place=3)

    def test_every_changed_byte_is_found(self, case: str) -> None:
        codec = coded(case).codec()
        stream = codec.compress(picture(40, 40))
        for place in range(len(stream)):
            damaged = bytearray(stream)
            damaged[place] ^= 1 << place % 8
            with pytest.raises(InputError, match=r"a\.gcp"):
                codec.decompress(bytes(damaged), name="a.gcp")


class TestWhatIsSent:
    def test_maps_that_the_decoder_does_not_need(self) -> None:
        """Without any map, and with other ones, the file is the same."""
        for case in ("distortion", "global", "global_plus"):
            codec, one = coded(case).codec(), picture(48, 48)
            assert codec.compress(one) == codec.compress(Picture(one.image_HWC))

    def test_labels_and_instances_come_back(self) -> None:
        codec = coded("conditional", **WITH_INSTANCES).codec()
        one = picture(70, 60)
        labels, instances, _ = sections(codec.compress(one))
        labels_HW = label_maps.decode(labels, 70, 60, CLASSES)
        assert np.array_equal(labels_HW, one.maps["label"])
        numbers_HW = label_maps.decode(instances, 70, 60, 65536, given_HW=labels_HW)
        ids = np.unique(one.maps["instance"])
        assert np.array_equal(ids[numbers_HW], one.maps["instance"])

    def test_unknown_ids_are_the_last_class(self) -> None:
        codec, one = coded("conditional").codec(), picture(48, 48)
        label_HW = one.maps["label"].astype(np.int64)
        beyond = Picture(one.image_HWC, {"label": np.where(label_HW == CLASSES - 1, 255, label_HW)})
        assert codec.compress(beyond) == codec.compress(one)

    def test_numbers_of_instances_do_not_matter(self) -> None:
        """Boundaries are what the decoder sees of them."""
        codec, one = coded("conditional", **WITH_INSTANCES).codec(), picture(48, 48)
        others = {**one.maps, "instance": 7 * one.maps["instance"].astype(np.int64) - 3}
        assert codec.compress(Picture(one.image_HWC, others)) == codec.compress(one)

    @pytest.mark.parametrize(
        ("maps", "sentence"),
        [
            ({}, "it has no map label, which this codec needs"),
            ({"label": np.zeros((48, 47), np.uint8)}, "uint8 values of shape 48×47"),
            ({"label": np.zeros((48, 48), np.float32)}, "float32 values"),
        ],
    )
    def test_maps_that_do_not_fit(self, maps: Mapping[str, np.ndarray], sentence: str) -> None:
        codec, one = made("conditional").codec(), picture(48, 48)
        with pytest.raises(InputError, match=sentence):
            codec.compress(Picture(one.image_HWC, maps))

    def test_images_that_do_not_fit(self) -> None:
        codec = made("global").codec()
        for image in (np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32)):
            with pytest.raises(InputError, match="takes RGB images of 8 bits"):
                codec.compress(Picture(image))


class TestSelective:
    def test_what_is_kept(self) -> None:
        """Classes by id or name, instances, a box, a mask, and all of these together."""
        one = picture(64, 64, seed=3)
        label_HW, instance_HW = one.maps["label"], one.maps["instance"]
        chosen = int(instance_HW.max())
        mask_HW = np.zeros((64, 64), np.uint8)
        mask_HW[10, 50] = 255
        box_HW = np.zeros((64, 64), bool)
        box_HW[20:25, 8:40] = True
        wide_HW = np.zeros((64, 64), bool)
        wide_HW[20:25, 8:] = True
        names = {"labels.class_names": ["ground", "disc", "bar", "square"]}
        cases: list[tuple[dict[str, Any], np.ndarray]] = [
            ({"codec.keep": [1]}, label_HW == 1),
            ({"codec.keep": "bar, 1", **names}, (label_HW == 1) | (label_HW == 2)),
            ({"codec.keep": []}, np.zeros((64, 64), bool)),
            ({"codec.keep_instances": str(chosen)}, instance_HW == chosen),
            ({"codec.keep_box": "8,20,32,5"}, box_HW),
            ({"codec.keep_box": [8, 20, 900, 5]}, wide_HW),
            ({"codec.keep": [2], "codec.keep_box": [8, 20, 32, 5]}, (label_HW == 2) | box_HW),
        ]
        for more, kept_HW in cases:
            codec = selective(**more)
            stream = codec.compress(one)
            found_HW = label_maps.decode(sections(stream)[2], 8, 8, 2)
            expected_HW = kept_HW.reshape(8, 8, 8, 8).any(axis=(1, 3))
            assert np.array_equal(found_HW, expected_HW), more
            assert np.array_equal(codec.decompress(stream), codec.reconstruct(one))
            both = codec.compress(Picture(one.image_HWC, {**one.maps, "mask": mask_HW}))
            expected_HW[1, 6] = True
            found_HW = label_maps.decode(sections(both)[2], 8, 8, 2)
            assert np.array_equal(found_HW, expected_HW)

    def test_a_mask_is_enough(self) -> None:
        one = picture(64, 64)
        codec = selective()
        with pytest.raises(InputError, match="say which regions to keep"):
            codec.compress(one)
        mask_HW = np.ones((64, 64), bool)
        assert codec.compress(Picture(one.image_HWC, {**one.maps, "mask": mask_HW}))

    def test_what_is_not_kept_costs_nothing(self) -> None:
        one = picture(64, 64)
        codec = selective(**{"codec.keep": []})
        *_, mask, latents = sections(codec.compress(one))
        assert len(latents) == 0 and len(mask) <= 2
        # With everything kept, the code is that of all latents.
        codec = selective(**{"codec.keep": [0, 1, 2, 3]})
        *_, mask, latents = sections(codec.compress(one))
        assert len(mask) <= 2 and 0 < len(latents) <= 64 * 8 * np.log2(5) / 8 + 1

    def test_outside_the_regions_pixels_have_no_influence(self) -> None:
        """Another image far from what is kept gives the same file."""
        codec, one = selective(**{"codec.keep_box": [0, 0, 16, 16]}), picture(160, 160)
        other_HWC = one.image_HWC.copy()
        other_HWC[80:] = 255 - other_HWC[80:]
        assert codec.compress(Picture(other_HWC, one.maps)) == codec.compress(one)
        # Near it, the encoder sees them.
        other_HWC[16:] = 255 - one.image_HWC[16:]
        assert codec.compress(Picture(other_HWC, one.maps)) != codec.compress(one)

    @pytest.mark.parametrize(
        ("more", "sentence"),
        [
            ({"codec.keep_instances": [9999]}, "names 9999, which the map instance"),
            ({"codec.keep_box": [64, 0, 2, 2]}, "begins at 64,0, but the image has 64×64 pixels"),
        ],
    )
    def test_regions_that_are_not_there(self, more: dict[str, Any], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            selective(**more).compress(picture(64, 64))

    @pytest.mark.parametrize(
        ("more", "sentence"),
        [
            ({"codec.keep": "person"}, "the class person, but a class is a number from 0 to 3"),
            ({"codec.keep": [4]}, "the class 4"),
            ({"codec.keep": "٣"}, "the class ٣"),
            ({"codec.keep": [-1]}, r"codec\.keep"),
            ({"codec.keep": False}, r"codec\.keep"),
            ({"codec.keep": [True]}, r"codec\.keep"),
            ({"codec.keep": [""]}, r"codec\.keep"),
            ({"codec.keep_box": [0, 0, True, 2]}, r"codec\.keep_box"),
            ({"codec.keep_box": [0, 0, 0, 2]}, r"codec\.keep_box"),
            ({"codec.keep_instances": True}, r"codec\.keep_instances"),
            ({"codec.keep_instances": [1]}, r"labels\.instances names none"),
            ({"labels.map": "mask", "data.maps": ["mask"]}, "neither may be called mask"),
            ({"labels.instances": "label"}, "they must be two maps"),
        ],
    )
    def test_recipes_that_are_refused(self, more: dict[str, Any], sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            made("selective", **more)

    def test_only_selective_files_keep_regions(self) -> None:
        with pytest.raises(InputError, match="only files of mode selective keep some regions"):
            made("conditional", **{"codec.keep": [1]})


class TestFingerprints:
    def test_settings_that_weights_do_not_show(self) -> None:
        """Systems of equal weights whose files mean something else."""
        found = [
            coded("global", **more).codec().writer_fingerprint
            for more in (
                {},
                {"networks.norm": "instance"},
                {"networks.padding": "tf_same"},
                {"networks.noise_channels": 1},
                {"networks.noise_channels": 1, "code.salt_bits": 3},
            )
        ]
        assert len(set(found)) == len(found)

    @pytest.mark.parametrize(
        ("case", "network", "writes"),
        [
            ("global", "encoder", True),
            ("global", "decoder", False),
            ("conditional", "label_encoder", True),
            ("selective", "label_encoder", False),
            ("selective", "lift", False),
        ],
    )
    def test_who_writes_and_who_reads(self, case: str, network: str, writes: bool) -> None:
        """Another decoder of the same encoder reads the file, and shows another image."""
        one, other = coded(case), coded(case)
        with torch.no_grad():
            weights = next(other.networks[network].parameters())
            weights.add_(torch.randn_like(weights))
        writer, reader = one.codec(), other.codec()
        assert writer.reader_fingerprint != reader.reader_fingerprint
        assert (writer.writer_fingerprint != reader.writer_fingerprint) == writes
        stream = writer.compress(picture(64, 64))
        if writes:
            with pytest.raises(InputError, match="was written by the encoder"):
                reader.decompress(stream)
        else:
            assert not np.array_equal(reader.decompress(stream), writer.decompress(stream))

    def test_discriminators_are_no_part(self) -> None:
        one, other = coded("global"), coded("global")
        with torch.no_grad():
            next(other.networks["discriminator"].parameters()).add_(1)
        assert one.codec().reader_fingerprint == other.codec().reader_fingerprint


class TestNoise:
    def test_draws(self) -> None:
        codec = coded("global", **NOISY).codec()
        stream = codec.compress(picture(64, 64))
        shown = {draw: codec.decompress(stream, draw=draw).tobytes() for draw in (None, 0, 1, 2)}
        assert shown[None] == shown[0] and len(set(shown.values())) == 3
        assert shown[2] == codec.reconstruct(picture(64, 64), draw=2).tobytes()
        with pytest.raises(InputError, match="a draw is a number"):
            codec.decompress(stream, draw=-1)

    def test_equal_codes_are_shown_as_different_images(self) -> None:
        system = coded("global", **NOISY)
        with torch.no_grad():  # an encoder that sees nothing
            for parameter in system.networks["encoder"].parameters():
                parameter.zero_()
        codec = system.codec()
        shown = {codec.reconstruct(picture(48, 48, seed=n)).tobytes() for n in range(4)}
        assert len(shown) == 4

    def test_without_noise_there_is_no_salt(self) -> None:
        codec = coded("global").codec()
        stream = codec.compress(picture(64, 64))
        assert np.array_equal(codec.decompress(stream, draw=7), codec.decompress(stream))


def test_images_that_would_take_too_much_memory() -> None:
    """They are refused before any work, also where a file claims them."""
    many = {"networks.norm": "instance", "networks.width": 4}
    many |= {"labels.classes": 100, "labels.class_names": []}
    for case, more, side, most in (
        ("global", {"networks.norm": "instance", "networks.width": 60}, 1600, "2236962 pixels"),
        ("conditional", many, 1200, "1342177 pixels"),
        ("global", {"networks.width": 20}, 7400, "53687091 pixels"),
    ):
        codec = made(case, **more).codec()
        sentence = f"at most {most} .*, not {side}×{side}"
        with pytest.raises(InputError, match=sentence):
            codec.compress(Picture(np.zeros((side, side, 3), np.uint8)))
        member = container.Member(side, side, (b"",) * len(codec.parts))
        stream = container.pack(container.Container(codec.writer_fingerprint, (member,)))
        with pytest.raises(InputError, match=sentence):
            codec.decompress(stream)


def test_windows_decode_to_the_whole_image() -> None:
    """An image of several windows is what the networks show of it as a whole, up to rounding."""
    system, one = coded("conditional"), picture(560, 600)
    codec = system.codec()
    shown_HWC = codec.decompress(codec.compress(one))
    image_1CHW = torch.from_numpy(one.image_HWC).permute(2, 0, 1)[None]
    row = torch.zeros(1, dtype=torch.int64)
    whole = Batch(image_1CHW, row, row, row, {"label": torch.from_numpy(one.maps["label"])[None]})
    with torch.no_grad():
        whole_1CHW = system.reconstruct(whole, draws(0, 1))
    difference_HWC = np.abs(whole_1CHW[0].permute(1, 2, 0).numpy().astype(int) - shown_HWC)
    # A latent at the border of two levels may fall to either side in float32.
    assert np.mean(difference_HWC > 1) < 1e-2
