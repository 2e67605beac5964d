"""Decoders and encoders of VAEs, GANs and AAEs: published sizes, starting weights, values."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.networks.decoders import (
    Blur,
    Decoder,
    aae_decoder,
    dcgan_decoder,
    linear_decoder,
    load_aae,
    mlp_decoder,
)
from gencomp.networks.vae import GaussianPixels, Posterior, dcgan_encoder, mlp_encoder

WIDE = (1024, 1024, 1024)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def layers(network: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in network]


class TestSizes:
    @pytest.mark.parametrize(
        ("latent_dim", "decoder", "encoder"),
        [(2, 2_905_872, 2_907_140), (10, 2_914_064, 2_923_540), (100, 3_006_224, 3_108_040)],
    )
    def test_the_deep_vae(self, latent_dim: int, decoder: int, encoder: int) -> None:
        with torch.device("meta"):
            assert parameters(mlp_decoder(latent_dim)) == decoder
            assert parameters(aae_decoder(latent_dim)) == decoder
            assert parameters(mlp_encoder(784, WIDE, latent_dim)) == encoder

    def test_multiply_adds_of_the_deep_decoder(self) -> None:
        for latent_dim, expected in [(2, 2_902_016), (10, 2_910_208), (100, 3_002_368)]:
            with torch.device("meta"):
                linear = [m for m in mlp_decoder(latent_dim) if isinstance(m, nn.Linear)]
            assert sum(m.weight.numel() for m in linear) == expected

    def test_generators_and_linear_maps(self) -> None:
        with torch.device("meta"):
            assert parameters(mlp_decoder(10, (512,))) == 10 * 512 + 512 + 512 * 784 + 784
            assert parameters(mlp_decoder(10, (512, 512))) == 407_824 + 512 * 513
            assert parameters(linear_decoder(100)) == 79_184
            assert parameters(mlp_encoder(784, (), 100)) == 157_000
            assert parameters(dcgan_decoder(100)) == 11_429_632

    def test_multiply_adds_of_the_dcgan(self) -> None:
        """102.6 million an image: each transposed convolution at its input's size."""
        with torch.device("meta"):
            decoder = dcgan_decoder(100)
        linear = decoder[0].weight.numel()
        convolutions = [m for m in decoder if isinstance(m, nn.ConvTranspose2d)]
        total = linear + sum(
            m.weight.numel() * side**2 for m, side in zip(convolutions, (2, 4, 8, 16), strict=True)
        )
        assert total == pytest.approx(102.6e6, rel=5e-4)


class TestShapes:
    def test_perceptrons_are_linear_and_pointwise_layers_alone(self) -> None:
        tanh = ["Linear", "Tanh"] * 3 + ["Linear", "Sigmoid"]
        assert layers(mlp_decoder(10)) == tanh
        assert layers(aae_decoder(10)) == [name.replace("Tanh", "ReLU") for name in tanh]
        assert layers(mlp_decoder(10, (512,))) == ["Linear", "Tanh", "Linear", "Sigmoid"]
        assert layers(linear_decoder(10)) == ["Linear"]
        assert layers(mlp_encoder(784, WIDE, 10)) == tanh[:-1]
        assert layers(mlp_encoder(784, (), 10)) == ["Linear"]
        sizes = [m.out_features for m in mlp_encoder(64, (32, 8), 3) if isinstance(m, nn.Linear)]
        assert sizes == [32, 8, 6]

    def test_the_dcgan(self) -> None:
        decoder = dcgan_decoder(6, width=4).eval()
        up = ["GlobalBatchNorm2d", "ReLU", "ConvTranspose2d"]
        assert layers(decoder) == ["Linear", "Unflatten", *up * 4, "Tanh", "Flatten"]
        assert [m.num_features for m in decoder if isinstance(m, nn.BatchNorm2d)] == [32, 16, 8, 4]
        x_BN = decoder(torch.randn(5, 6))
        assert x_BN.shape == (5, 3 * 32 * 32) and float(x_BN.detach().abs().max()) < 1
        assert dcgan_decoder(6, width=4, channels=1)(torch.randn(5, 6)).shape == (5, 1024)
        assert dcgan_encoder(6, width=4)(x_BN).shape == (5, 12)
        assert dcgan_encoder(6, 4, 1)(torch.randn(3, 1024)).shape == (3, 12)

    def test_state_dicts_of_torchs_own_batch_norm_fit_the_dcgan(self) -> None:
        decoder = dcgan_decoder(6, width=4)
        theirs = nn.Sequential(
            *(
                nn.BatchNorm2d(m.num_features) if isinstance(m, nn.BatchNorm2d) else m
                for m in dcgan_decoder(6, width=4)
            )
        )
        decoder.load_state_dict(theirs.state_dict())
        z_BK = torch.randn(3, 6)
        assert torch.equal(decoder.eval()(z_BK), theirs.eval()(z_BK))


def test_starting_weights_of_the_dcgan() -> None:
    """Standard deviations within 4 standard errors (error rate below 1e-3 in all)."""
    torch.manual_seed(0)
    for network in (dcgan_decoder(20, width=16), dcgan_encoder(20, width=16)):
        network.requires_grad_(False)
        for module in network.modules():
            if not list(module.parameters(recurse=False)):
                continue
            weight = module.weight
            assert isinstance(weight, Tensor)
            error = 4 * 0.02 / (2 * weight.numel()) ** 0.5
            assert float(weight.std()) == pytest.approx(0.02, abs=error)
            if isinstance(module, nn.BatchNorm2d):
                assert float(weight.mean()) == pytest.approx(1, abs=4 * 0.02 / len(weight) ** 0.5)
                assert not module.bias.any()


class TestBlur:
    @pytest.mark.parametrize(
        ("std", "weights"),
        [
            (0.5, (2.6387e-4, 0.106451, 0.786571)),
            (1, (0.054489, 0.244201, 0.402620)),
            (2, (0.152469, 0.221841, 0.251379)),
            (5, (0.192051, 0.203926, 0.208046)),
        ],
    )
    def test_weights(self, std: float, weights: tuple[float, float, float]) -> None:
        expected_5 = torch.tensor([*weights, weights[1], weights[0]])
        kernel_HW = Blur(std).kernel_11HW[0, 0]
        torch.testing.assert_close(
            kernel_HW, torch.outer(expected_5, expected_5), rtol=1e-4, atol=0
        )
        # An impulse in the middle gives the kernel, and its sum is kept.
        x_1N = torch.zeros(1, 784)
        x_1N[0, 14 * 28 + 14] = 1
        y_HW = Blur(std)(x_1N).unflatten(1, (28, 28))[0]
        torch.testing.assert_close(y_HW[12:17, 12:17], kernel_HW)
        assert float(y_HW.sum()) == pytest.approx(1)

    def test_the_least_is_the_identity(self) -> None:
        torch.set_default_dtype(torch.float64)
        try:
            x_BN = torch.rand(2, 784)
            torch.testing.assert_close(Blur(0.1)(x_BN), x_BN, rtol=0, atol=4e-21)
        finally:
            torch.set_default_dtype(torch.float32)

    def test_edges_are_mirrored(self) -> None:
        x_BN = torch.rand(1, 6 * 7, generator=torch.Generator().manual_seed(0))
        blur = Blur(1.3, 6, 7).double()
        y_HW = blur(x_BN.double()).unflatten(1, (6, 7))[0]
        padded = np.pad(x_BN.double().unflatten(1, (6, 7))[0].numpy(), 2, mode="reflect")
        expected = (padded[:5, :5] * blur.kernel_11HW[0, 0].numpy()).sum()
        assert float(y_HW[0, 0]) == pytest.approx(expected)

    def test_a_blurred_decoder_loads_the_weights_of_the_sharp_one(self) -> None:
        torch.manual_seed(0)
        sharp = mlp_decoder(3, (8,))
        blurred = nn.Sequential(*mlp_decoder(3, (8,)), Blur(2))
        blurred.load_state_dict(sharp.state_dict())
        z_BK = torch.randn(2, 3)
        assert torch.equal(blurred(z_BK), Blur(2)(sharp(z_BK)))
        assert Decoder(blurred, 3).decode is blurred

    def test_no_width(self) -> None:
        with pytest.raises(InputError, match=r"deviation is 0, but it must be positive"):
            Blur(0)


class TestLikelihood:
    @pytest.mark.parametrize("learnt", [True, False])
    def test_it_is_the_normal_density(self, learnt: bool) -> None:
        torch.manual_seed(0)
        pixels = GaussianPixels(0.03, learnt).double()
        x, mean = torch.rand(2, 4, 9, dtype=torch.float64)
        normal = torch.distributions.Normal(mean, math.sqrt(0.03))
        torch.testing.assert_close(pixels(x, mean), normal.log_prob(x).sum(1), rtol=1e-6, atol=0)
        assert bool(list(pixels.parameters())) == learnt
        assert pixels.state_dict().keys() == {"log_variance"}

    def test_the_best_variance_is_the_mean_squared_error(self) -> None:
        x, mean = torch.rand(2, 4, 9, dtype=torch.float64)
        pixels = GaussianPixels(float((x - mean).square().mean()), learnt=True).double()
        pixels(x, mean).sum().backward()
        assert pixels.log_variance.grad is not None
        assert float(pixels.log_variance.grad.abs()) < 1e-5

    def test_the_posterior(self) -> None:
        torch.manual_seed(0)
        code = torch.randn(5, 6)
        posterior = Posterior.of(code)
        q = torch.distributions.Normal(code[:, :3], (code[:, 3:] / 2).exp())
        p = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        expected = torch.distributions.kl_divergence(q, p).sum(1)
        torch.testing.assert_close(posterior.kl_B(), expected)
        normals = torch.randn(5, 3)
        torch.testing.assert_close(posterior.at(normals), q.loc + q.scale * normals)
        assert Posterior.of(code.bfloat16()).mean_BK.dtype == torch.float32


class TestAae:
    @staticmethod
    def arrays(sizes: tuple[int, ...] = (2, 4, 5, 6, 7)) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        found = {}
        for layer, (size, next_size) in enumerate(itertools.pairwise(sizes), start=1):
            found[f"decoder_h{layer}/w_dense"] = rng.normal(size=(size, next_size)).astype("f4")
            found[f"decoder_h{layer}/b_dense"] = rng.normal(size=next_size).astype("f4")
        return found

    def test_the_layout_of_tensorflow(self, tmp_path: Path) -> None:
        arrays = self.arrays()
        np.savez(tmp_path / "aae.npz", **arrays)
        decoder = load_aae(tmp_path / "aae.npz")
        h = z = np.random.default_rng(1).normal(size=(3, 2)).astype("f4")
        for layer in range(1, 5):
            h = h @ arrays[f"decoder_h{layer}/w_dense"] + arrays[f"decoder_h{layer}/b_dense"]
            h = np.maximum(h, 0) if layer < 4 else 1 / (1 + np.exp(-h))
        x_BN = decoder(torch.from_numpy(z))
        np.testing.assert_allclose(x_BN.detach().numpy(), h, rtol=1e-5)
        assert layers(decoder) == layers(aae_decoder(2))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"decoder_h3/b_dense": None},
                "has no array decoder_h3/b_dense; it has decoder_h1/b_dense, ",
            ),
            (
                {"decoder_h2/w_dense": np.zeros((5, 4), "f4")},
                r"decoder_h2/w_dense is \[5, 4\], but the layers beside it need \[4, 5\]",
            ),
            (
                {"decoder_h2/w_dense": np.zeros(5, "f4")},
                r"w_dense is float32 \[5\], but must be a floating-point array of 2 dimensions",
            ),
            ({"decoder_h1/b_dense": np.zeros(4, "i8")}, r"b_dense is int64 \[4\]"),
            ({"decoder_h1/b_dense": np.array([{}], object)}, "b_dense cannot be read: Object arr"),
        ],
    )
    def test_wrong_archives(self, change: dict[str, Any], said: str, tmp_path: Path) -> None:
        arrays = {k: v for k, v in (self.arrays() | change).items() if v is not None}
        np.savez(tmp_path / "aae.npz", **arrays)
        with pytest.raises(InputError, match=said):
            load_aae(tmp_path / "aae.npz")

    def test_wrong_files(self, tmp_path: Path) -> None:
        path = tmp_path / "aae.npz"
        with pytest.raises(InputError, match=r"is not a NumPy archive of weights: .*No such file"):
            load_aae(path)
        path.write_bytes(b"PK\3\4 and no more")
        with pytest.raises(InputError, match="is not a NumPy archive of weights"):
            load_aae(path)
        np.save(tmp_path / "one.npy", np.zeros(3))
        with pytest.raises(InputError, match="is a single array, not a NumPy archive"):
            load_aae(tmp_path / "one.npy")
        np.save(path.with_suffix(".npy"), np.array([print], object), allow_pickle=True)
        with pytest.raises(InputError, match="is not a NumPy archive of weights: Object arrays"):
            load_aae(path.with_suffix(".npy"))
