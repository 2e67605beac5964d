"""The codec decodes what the encoder showed, from a file of the stated size, or refuses."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp.coding import container
from gencomp.errors import InputError
from gencomp.systems.dplc.codec import DplcCodec, fingerprint
from tests.gencomp.test_systems_dplc_coders import codec as system


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


@pytest.mark.parametrize(
    "overrides",
    [
        {},
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
    assert made is not None
    streams = [made.compress(image) for image in images(3)]
    for image, stream in zip(images(3), streams, strict=True):
        decoded = made.decompress(stream)
        assert decoded.dtype == np.uint8 and decoded.shape == (64, 64, 3)
        assert np.array_equal(decoded, made.reconstruct(image))
        found = container.unpack(stream)
        payload = math.ceil(made.payload_bits(64, 64) / 8)
        assert [len(section) for section in found.sections] == [payload]
        assert 8 * len(stream) == 8 * payload + found.overhead_bits


def test_rate_of_the_paper() -> None:
    made = system(**{"networks.code_channels": 8}).codec()
    assert made is not None and made.payload_bits(64, 64) == 128
    # 16 bytes of code, 23 of container and the codec's name.
    assert len(made.compress(images(1)[0])) == 16 + 23 + len("dplc")


def test_streams_depend_on_the_image(codec: DplcCodec) -> None:
    assert len({codec.compress(image) for image in images(20)}) > 1


def test_the_codec_is_a_copy(codec: DplcCodec) -> None:
    source = system()
    made = source.codec()
    assert made is not None
    before = made.compress(images(1)[0])
    with torch.no_grad():
        for parameter in source.networks.parameters():
            parameter.zero_()
    assert made.compress(images(1)[0]) == before
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
            stream = made.compress(image)
            results.append((stream, made.decompress(stream).tobytes(), made.fingerprint))
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_an_image_decodes_alone_as_in_a_batch(codec: DplcCodec) -> None:
    """The networks, run on a batch in float64, give the decoder's bytes image by image."""
    from gencomp import quantizer
    from gencomp.coding import fixed_length

    several = images(4)
    streams = [codec.compress(image) for image in several]
    payloads = [container.unpack(stream).sections[0] for stream in streams]
    nets = codec._networks
    x = torch.from_numpy(several).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.no_grad():
        symbols = quantizer.quantize_hard(nets["code_encoder"](x), codec.levels)
        packed = [fixed_length.pack(one.numpy(), codec.levels) for one in symbols]
        values = quantizer.symbols_to_values(symbols, codec.levels, dtype=torch.float64)
        noise = torch.cat([codec._noise(payload) for payload in payloads])
        decoded = (nets["generator"](nets["latent_mapper"](values, noise)) + 1) * 127.5
    assert packed == payloads
    as_bytes = decoded.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for i, stream in enumerate(streams):
        assert np.array_equal(as_bytes[i], codec.decompress(stream))


def test_noise_is_uniform_and_keyed(codec: DplcCodec) -> None:
    """Half a cell about 0; 10,240 numbers, five standard errors."""
    several = torch.cat([codec._noise(bytes([i, j])) for i in range(20) for j in range(32)])
    half = 1 / codec.levels
    assert several.abs().max() <= half
    assert several.mean().item() == pytest.approx(0, abs=5 * half / math.sqrt(3 * several.numel()))
    assert several.var().item() == pytest.approx(half**2 / 3, rel=0.05)
    assert torch.equal(codec._noise(b"ab"), codec._noise(b"ab"))
    assert not torch.equal(codec._noise(b"ab"), codec._noise(b"ac"))


class TestRefusals:
    @pytest.mark.parametrize("cut", [0, 1, 3, 10, 20, -1])
    def test_truncated(self, codec: DplcCodec, cut: int) -> None:
        stream = codec.compress(images(1)[0])
        with pytest.raises(InputError, match=r"^my\.gcp cannot be decoded: "):
            codec.decompress(stream[:cut], name="my.gcp")

    @settings(max_examples=80)
    @given(data=st.data())
    def test_any_changed_byte(self, codec: DplcCodec, data: st.DataObject) -> None:
        stream = bytearray(codec.compress(images(1)[0]))
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(InputError):
            codec.decompress(bytes(stream))

    @given(st.binary(max_size=60))
    def test_garbage(self, codec: DplcCodec, garbage: bytes) -> None:
        with pytest.raises(InputError, match="cannot be decoded"):
            codec.decompress(garbage)

    def test_another_model(self, codec: DplcCodec) -> None:
        other = system(**{"networks.levels": 4}).codec()
        assert other is not None
        with pytest.raises(
            InputError, match=r"written by the model dplc .* give the run that wrote it"
        ):
            other.decompress(codec.compress(images(1)[0]))

    def test_another_size_in_a_valid_container(self, codec: DplcCodec) -> None:
        found = container.unpack(codec.compress(images(1)[0]))
        for height, sections in ((32, found.sections), (64, found.sections * 2)):
            stream = container.pack(
                container.Container(found.codec_id, found.fingerprint, height, 64, sections)
            )
            with pytest.raises(InputError, match="is not one 64×64 image"):
                codec.decompress(stream)
        short = container.Container(
            found.codec_id, found.fingerprint, 64, 64, (found.sections[0][:-1],)
        )
        with pytest.raises(InputError):
            codec.decompress(container.pack(short))

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((64, 64), np.uint8),
            np.zeros((32, 64, 3), np.uint8),
            np.zeros((64, 64, 4), np.uint8),
            np.zeros((64, 64, 3), np.float32),
        ],
        ids=lambda a: f"{a.dtype}{a.shape}",
    )
    def test_images_of_another_kind(self, codec: DplcCodec, image: np.ndarray) -> None:
        with pytest.raises(InputError, match="takes 64×64 RGB images of 8 bits"):
            codec.compress(image)

    def test_rate_of_another_size(self, codec: DplcCodec) -> None:
        with pytest.raises(InputError, match="64×64"):
            codec.payload_bits(32, 32)


class TestFingerprint:
    def test_names_every_weight_and_buffer(self) -> None:
        networks = system().networks
        one = fingerprint(networks, 2)
        assert len(one) == 8 and one == fingerprint(copy.deepcopy(networks), 2)
        assert one != fingerprint(networks, 4)
        for name, tensor in networks.state_dict().items():
            old = tensor.clone()
            first = tensor.view(-1)[:1]
            first += 1 if tensor.dtype == torch.int64 else 1e-3
            assert fingerprint(networks, 2) != one, name
            tensor.copy_(old)
        assert fingerprint(networks, 2) == one
