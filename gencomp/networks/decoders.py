"""Decoders of the deep generative models whose rate-distortion curves have been published.

They are those of Huang, Makhzani, Cao and Grosse, *Evaluating Lossy Compression Rates of Deep
Generative Models*, ICML 2020: multilayer perceptrons and a linear map for MNIST digits (VAE, GAN,
AAE), and a DCGAN for 32×32 images. Each decoder is one `nn.Sequential` from latents [B, k] to
images [B, n], flattened from [channels, height, width]; a perceptron consists of linear and
pointwise layers only.

    MLP generator 1   k-1024-1024-1024-784   tanh, sigmoid    mlp_decoder(k)
    MLP generator 2   k-512-784              tanh, sigmoid    mlp_decoder(k, (512,))
    MLP generator 3   k-512-512-784          tanh, sigmoid    mlp_decoder(k, (512, 512))
    AAE decoder       k-1024-1024-1024-784   ReLU, sigmoid    aae_decoder(k), load_aae
    linear decoder    k-784                                   linear_decoder(k)
    DCGAN             k-1024×2×2-…-3×32×32   ReLU, tanh       dcgan_decoder(k)
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d

DIGIT_SIDE = 28
DIGIT_VALUES = DIGIT_SIDE**2
DCGAN_SIDE = 32
_DCGAN_SEED_SIDE = 2  # the side of the map that four transposed convolutions enlarge to 32×32


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of the given sizes, with an activation between them and none at the end."""
    layers: list[nn.Module] = []
    for size, next_size in itertools.pairwise(sizes):
        layers += [nn.Linear(size, next_size), activation()]
    return nn.Sequential(*layers[:-1])


def mlp_decoder(
    latent_dim: int,
    widths: Sequence[int] = (1024, 1024, 1024),
    values: int = DIGIT_VALUES,
    activation: Callable[[], nn.Module] = nn.Tanh,
) -> nn.Sequential:
    """A perceptron with layers k-widths-n and a last sigmoid, which gives images in (0, 1)."""
    return nn.Sequential(*mlp((latent_dim, *widths, values), activation), nn.Sigmoid())


def linear_decoder(latent_dim: int, values: int = DIGIT_VALUES) -> nn.Sequential:
    """The decoder W z + b; its curve has a closed form (`gencomp.rate_distortion.closed_form`)."""
    return mlp((latent_dim, values))


def aae_decoder(latent_dim: int) -> nn.Sequential:
    """The decoder of the adversarial autoencoder (AAE), with ReLU in place of tanh."""
    return mlp_decoder(latent_dim, activation=nn.ReLU)


def load_aae(path: str | Path) -> nn.Sequential:
    """Load the decoder of an AAE from a NumPy archive of weights in TensorFlow's layout.

    Args:
        path: an .npz file with the arrays `decoder_h1/w_dense` [in, out] and `decoder_h1/b_dense`
            [out], and so on to `decoder_h4`; the layers have the sizes of the arrays.

    Raises:
        InputError: there is no such archive, or an array is missing, holds Python objects or does
            not fit.
    """
    weights, biases = [], []
    with _open_archive(path) as archive:
        for layer in range(1, 5):
            weights.append(_array(archive, path, f"decoder_h{layer}/w_dense", 2).T)
            biases.append(_array(archive, path, f"decoder_h{layer}/b_dense", 1))
    sizes = [weights[0].shape[1], *(bias.shape[0] for bias in biases)]
    for layer, needed in enumerate(itertools.pairwise(sizes), start=1):
        found = weights[layer - 1].T.shape
        if found != needed:
            raise InputError(
                f"{path}: decoder_h{layer}/w_dense is {list(found)}, but the layers beside it need"
                f" {list(needed)}"
            )
    decoder = mlp_decoder(sizes[0], sizes[1:-1], sizes[-1], nn.ReLU)
    linear = [module for module in decoder if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for module, weight, bias in zip(linear, weights, biases, strict=True):
            module.weight.copy_(torch.from_numpy(weight))
            module.bias.copy_(torch.from_numpy(bias))
    return decoder


def dcgan_decoder(latent_dim: int, width: int = 128, channels: int = 3) -> nn.Sequential:
    """The DCGAN decoder from latents [B, k] to images [B, channels·32·32] in (−1, 1).

    Batch norm and ReLU precede each transposed convolution. Weights start at N(0, 0.02²), batch
    norm scales at N(1, 0.02²). There are 11,429,632 parameters for k = 100. State dicts of networks
    with torch's own batch norm fit.

    Args:
        latent_dim: the number k of latent dimensions.
        width: the number of channels before the last layer.
        channels: the number of channels of the image.
    """
    layers: list[nn.Module] = [
        nn.Linear(latent_dim, 8 * width * _DCGAN_SEED_SIDE**2, bias=False),
        nn.Unflatten(1, (8 * width, _DCGAN_SEED_SIDE, _DCGAN_SEED_SIDE)),
    ]
    for wide, narrow in itertools.pairwise((8 * width, 4 * width, 2 * width, width, channels)):
        layers += [
            GlobalBatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
        ]
    decoder = nn.Sequential(*layers, nn.Tanh(), nn.Flatten())
    initialise_dcgan(decoder)
    return decoder


def initialise_dcgan(network: nn.Module) -> None:
    """Draw a DCGAN's starting weights: N(0, 0.02²), batch norm scales N(1, 0.02²), no shifts."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class Blur(nn.Module):
    """A 5×5 Gaussian filter over flattened grey images, which are mirrored at their edges.

    The weight at offset o is proportional to exp(−(o/s)²/2) in each direction. The filter has no
    state, so a blurred decoder loads the weights of the sharp one.

    Args:
        std: the standard deviation s in pixels.
        height, width: the size of the images in pixels.
    """

    kernel_11HW: Tensor

    def __init__(self, std: float, height: int = DIGIT_SIDE, width: int = DIGIT_SIDE) -> None:
        super().__init__()
        if not std > 0:
            raise InputError(f"the blur's standard deviation is {std}, but it must be positive")
        self.height, self.width = height, width
        weights_5 = torch.exp(-0.5 * (torch.arange(-2.0, 3.0, dtype=torch.float64) / std) ** 2)
        weights_5 /= weights_5.sum()
        kernel_HW = torch.outer(weights_5, weights_5).to(torch.get_default_dtype())
        self.register_buffer("kernel_11HW", kernel_HW[None, None], persistent=False)

    def forward(self, x_BN: Tensor) -> Tensor:
        """Blur images [B, height·width]; the shape stays the same."""
        x_B1HW = x_BN.unflatten(1, (1, self.height, self.width))
        return F.conv2d(F.pad(x_B1HW, (2, 2, 2, 2), mode="reflect"), self.kernel_11HW).flatten(1)


class Decoder(nn.Module):
    """One of the decoders above in the form that `gencomp.external.decoders.open_model` takes.

    The keys of its state dict begin with `decoder.`, as in the checkpoints of the system `vae`.

    Args:
        decoder: the map from latents [B, k] to images [B, n].
        latent_dim: the number k of latent dimensions.
        value_range: the values of the pixels 0 and 255 on the decoder's scale.
    """

    def __init__(
        self,
        decoder: nn.Sequential,
        latent_dim: int,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent_dim, self.value_range = latent_dim, value_range

    @property
    def decode(self) -> nn.Sequential:
        """The chain itself, so that samplers see its layers."""
        return self.decoder


def _open_archive(path: str | Path) -> np.lib.npyio.NpzFile:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a NumPy archive of weights: {error}") from None
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise InputError(f"{path} is a single array, not a NumPy archive (.npz) of weights")
    return found


def _array(archive: np.lib.npyio.NpzFile, path: str | Path, name: str, ndim: int) -> np.ndarray:
    try:
        array = archive[name]
    except KeyError:
        raise InputError(
            f"{path} has no array {name}; it has {', '.join(sorted(archive.files))}"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: the array {name} cannot be read: {error}") from None
    if array.ndim != ndim or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"{path}: {name} is {array.dtype} {list(array.shape)}, but must be a floating-point"
            f" array of {ndim} dimension{'s' * (ndim > 1)}"
        )
    return array
