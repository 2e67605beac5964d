"""Networks in float64 on a CPU, whose convolutions are matrix products.

torch computes a float64 convolution image by image with the channels first, at a thirtieth of a
core's speed where few channels come out. A matrix product has the core's speed, and a convolution
with K = kh·kw taps is one in two ways:

    patches        y[i, j] = W p[i, j]              p[i, j] is the window at i, j: K·C values
    shifted sums   y[i, j] = Σ_k (W_k x)[i, j + k]  one product of all W_k [O·K, C] and all pixels

Patches hold K·C values for each pixel that comes out, and the product of the shifted sums O·K
values for each pixel that goes in. So the second way is for few output channels, and for few pixels
that become many. A transposed convolution is a convolution for each phase of its stride.

A layer differs from torch's by the order of its sums: by some 1e-16 of the sum of its terms'
magnitudes. The values of an image depend on the other images of a batch, on the number of threads
and on the processor in no other way.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from gencomp.networks.gdn import Gdn
from gencomp.networks.weight_norm import WeightNorm

Pair = tuple[int, ...]  # one number for rows and one for columns

# The values of a matrix between two steps: 4 MiB stay in the caches, and are worth their weights.
_BLOCK = 1 << 19


def in_float64(network: nn.Module) -> nn.Module:
    """A frozen copy of a network that computes in float64 on the CPU, in evaluation mode.

    Inside any `nn.Sequential`, a batch norm with running statistics becomes a part of the
    convolution or the linear layer before it. Kernels with weight normalisation are computed once.
    Convolutions become products. Those with groups, with
    dilation or with another padding than a number of zeros stay as they are, like all other layers
    but `Gdn`, which works through an image some rows at a time.
    """
    made = copy.deepcopy(network).cpu().double().eval().requires_grad_(False)
    for module in list(made.modules()):
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    return _with_products(made)


class Convolution(nn.Module):
    """A convolution from [B, C, H, W] to [B, O, H', W'] as products.

    Args:
        weight_OCKK: the taps, [O, C, kh, kw].
        bias_O: the bias, or None.
        stride: the distance from window to window.
        padding: the number of zeros on either side of the image.
    """

    def __init__(
        self,
        weight_OCKK: Tensor,
        bias_O: Tensor | None = None,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
    ) -> None:
        super().__init__()
        self.weight_OKKC = weight_OCKK.permute(0, 2, 3, 1).contiguous()
        self.bias_O = _bias(bias_O, self.weight_OKKC)
        self.stride, self.padding = stride, padding

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel = self.weight_OKKC.shape[1:3]
        windows = tuple(map(_windows, x_BCHW.shape[2:], kernel, self.stride, self.padding))
        first = tuple(-zeros for zeros in self.padding)
        return correlate(x_BCHW, self.weight_OKKC, self.bias_O, first, windows, self.stride)


class TransposedConvolution(nn.Module):
    """A transposed convolution from [B, C, H, W] to [B, O, H', W'], a convolution for each phase.

    In each direction, the tap k takes the pixel i to the pixel s·i − p + k. So the pixels s·q + a
    of phase a get the taps k = a + p − s·d, one for each integer d that gives a tap:

        y[s·q + a] = Σ_d W_{a + p − s·d} x[q + d]

    The offsets d follow each other, so each phase is a convolution of stride 1.

    Args:
        weight_COKK: the taps, [C, O, kh, kw], in no direction fewer than the stride.
        bias_O: the bias, or None.
        stride, padding, output_padding: those of `nn.ConvTranspose2d`.
    """

    def __init__(
        self,
        weight_COKK: Tensor,
        bias_O: Tensor | None = None,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        output_padding: Pair = (0, 0),
    ) -> None:
        super().__init__()
        weight_OKKC = weight_COKK.permute(1, 2, 3, 0)
        self.bias_O = _bias(bias_O, weight_OKKC)
        self.kernel = tuple(weight_OKKC.shape[1:3])
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        rows, columns = map(_phases, self.kernel, stride, padding)
        # For each phase: its place, the offset of its first window, and its taps.
        self.phases = [
            (a, b, (row, column), weight_OKKC[:, of_row, of_column].flip(1, 2).contiguous())
            for a, (row, of_row) in enumerate(rows)
            for b, (column, of_column) in enumerate(columns)
        ]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = map(
            _enlarged,
            x_BCHW.shape[2:],
            self.kernel,
            self.stride,
            self.padding,
            self.output_padding,
        )
        y_BHWO = x_BCHW.new_empty(len(x_BCHW), *size, len(self.bias_O))
        y_BOHW = y_BHWO.permute(0, 3, 1, 2)
        for a, b, first, weight_OKKC in self.phases:
            y_BOQQ = y_BOHW[:, :, a :: self.stride[0], b :: self.stride[1]]
            if y_BOQQ.numel():
                windows = tuple(y_BOQQ.shape[2:])
                correlate(x_BCHW, weight_OKKC, self.bias_O, first, windows, out_BOHW=y_BOQQ)
        return y_BOHW


def correlate(
    x_BCHW: Tensor,
    weight_OKKC: Tensor,
    bias_O: Tensor,
    first: Pair,
    windows: Pair,
    stride: Pair = (1, 1),
    out_BOHW: Tensor | None = None,
) -> Tensor:
    """Weighted sums over the windows of images that lie in zeros, [B, O, H', W'].

    The window [i, j] begins at the pixel [d + s·i, e + t·j], for the first window's [d, e] and the
    stride [s, t]. Its outputs are b + Σ_{k, l} W[:, k, l] x[d + s·i + k, e + t·j + l].

    Args:
        x_BCHW: the images; it is fastest if their channels are last in memory.
        weight_OKKC: the weights of a window, [O, kh, kw, C].
        bias_O: the bias b.
        first: the place of the first window; it is negative for one that begins before the image.
        windows: the number H' and W' of windows.
        stride: the distance from window to window.
        out_BOHW: where to put the outputs; None for a tensor of their own.
    """
    x_BHWC = x_BCHW.permute(0, 2, 3, 1).contiguous()
    outputs, channels = len(weight_OKKC), x_BHWC.shape[3]
    pixels = x_BHWC.shape[1] * x_BHWC.shape[2]
    # A value of the products is used once more than a value of the patches.
    if 2 * outputs * pixels <= channels * windows[0] * windows[1]:
        y_BOHW = _shifted_sums(x_BHWC, weight_OKKC, bias_O, first, windows, stride)
        return y_BOHW if out_BOHW is None else out_BOHW.copy_(y_BOHW)
    return _patches(x_BHWC, weight_OKKC, bias_O, first, windows, stride, out_BOHW)


def _patches(
    x_BHWC: Tensor,
    weight_OKKC: Tensor,
    bias_O: Tensor,
    first: Pair,
    windows: Pair,
    stride: Pair,
    out_BOHW: Tensor | None = None,
) -> Tensor:
    """Compute `correlate` by products of patches [windows, kh·kw·C] and weights, channels last."""
    batch, *size, _ = x_BHWC.shape
    outputs, *kernel, _ = weight_OKKC.shape
    if out_BOHW is None:
        out_BOHW = x_BHWC.new_empty(batch, *windows, outputs).permute(0, 3, 1, 2)
    out_BHWO = out_BOHW.permute(0, 2, 3, 1)
    vertical, horizontal = map(_margins, size, kernel, first, windows, stride)
    # `F.pad` copies the image, even where it only leaves rows and columns out.
    inside_BHWC = x_BHWC[:, _inside(size[0], vertical), _inside(size[1], horizontal)]
    zeros = [max(0, count) for count in (*horizontal, *vertical)]
    padded_BHWC = F.pad(inside_BHWC, (0, 0, *zeros)) if any(zeros) else inside_BHWC
    unfolded_BHWCKK = padded_BHWC.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    unfolded_BHWKKC = unfolded_BHWCKK.permute(0, 1, 2, 4, 5, 3)
    weight_NO = weight_OKKC.view(outputs, -1).t()
    for images, rows in _blocks(batch, windows[0], windows[1] * len(weight_NO)):
        patches_MN = unfolded_BHWKKC[images, rows].reshape(-1, len(weight_NO))
        # What a block gives is put in its place while it is in the caches.
        y_MO = torch.addmm(bias_O, patches_MN, weight_NO)
        own_BHWO = out_BHWO[images, rows]
        own_BHWO.copy_(y_MO.view(own_BHWO.shape))
    return out_BOHW


def _shifted_sums(
    x_BHWC: Tensor, weight_OKKC: Tensor, bias_O: Tensor, first: Pair, windows: Pair, stride: Pair
) -> Tensor:
    """Compute `correlate` by sums of parts of one product, [O·kh·kw, pixels], channels first."""
    batch, height, width, channels = x_BHWC.shape
    outputs, *kernel, _ = weight_OKKC.shape
    weight_NC = weight_OKKC.view(-1, channels)
    y_OBHW = bias_O[:, None, None, None].repeat(1, batch, *windows)
    for images, rows in _blocks(batch, height, width * len(weight_NC)):
        block_BHWC = x_BHWC[images, rows]
        products_NM = weight_NC @ block_BHWC.view(-1, channels).t()
        products_OKKBHW = products_NM.view(outputs, *kernel, *block_BHWC.shape[:3])
        for row, column in itertools.product(range(kernel[0]), range(kernel[1])):
            shift = first[0] + row - rows.start
            i, of_i = _meeting(shift, stride[0], block_BHWC.shape[1], windows[0])
            j, of_j = _meeting(first[1] + column, stride[1], width, windows[1])
            y_OBHW[:, images, i, j] += products_OKKBHW[:, row, column, :, of_i, of_j]
    return y_OBHW.transpose(0, 1)


class _Normalisation(nn.Module):
    """The layer `Gdn` of [B, C, H, W], as many rows at a time as the caches hold."""

    def __init__(self, layer: Gdn) -> None:
        super().__init__()
        self.inverse = layer.inverse
        self.gamma_CC, self.beta_C = layer.gamma_CC.detach(), layer.beta_C.detach()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        y_BHWC = torch.empty_like(x_BHWC, memory_format=torch.contiguous_format)
        batch, height, width, channels = x_BHWC.shape
        for images, rows in _blocks(batch, height, 4 * width * channels):
            own_BHWC = x_BHWC[images, rows]
            powers_BHWC = F.linear(own_BHWC.square(), self.gamma_CC, self.beta_C)
            factors_BHWC = powers_BHWC.sqrt_() if self.inverse else powers_BHWC.rsqrt_()
            torch.mul(own_BHWC, factors_BHWC, out=y_BHWC[images, rows])
        return y_BHWC.permute(0, 3, 1, 2)


def _blocks(images: int, rows: int, values: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of several images, or of rows of one, for rows of so many values of a matrix."""
    rows_at_once = max(1, _BLOCK // max(1, values))
    images_at_once = max(1, rows_at_once // rows)
    for image in range(0, images, images_at_once):
        for row in range(0, rows, rows_at_once):
            yield slice(image, image + images_at_once), slice(row, row + rows_at_once)


def _windows(size: int, taps: int, stride: int, padding: int) -> int:
    """The number of windows of a convolution."""
    return (size + 2 * padding - taps) // stride + 1


def _enlarged(size: int, taps: int, stride: int, padding: int, output_padding: int) -> int:
    """The size of a transposed convolution's output."""
    return (size - 1) * stride - 2 * padding + taps + output_padding


def _phases(taps: int, stride: int, padding: int) -> list[tuple[int, slice]]:
    """The first offset d of each phase, and its taps, the last of which belongs to that offset."""
    found = []
    for place in range(padding, padding + stride):
        own = range(place % stride, taps, stride)
        found.append(((place - own[-1]) // stride, slice(own.start, None, stride)))
    return found


def _margins(size: int, taps: int, first: int, windows: int, stride: int) -> tuple[int, int]:
    """The zeros before and after an image that its windows need; negative where they leave out."""
    return -first, first + (windows - 1) * stride + taps - size


def _inside(size: int, margins: tuple[int, int]) -> slice:
    """What is left of an image where margins leave a part of it out."""
    return slice(max(0, -margins[0]), size - max(0, -margins[1]))


def _meeting(shift: int, stride: int, size: int, windows: int) -> tuple[slice, slice]:
    """The windows i whose pixel shift + stride·i is one of `size` pixels, and these pixels."""
    begin = max(0, -(shift // stride))
    end = max(begin, min(windows, (size - 1 - shift) // stride + 1))
    pixel = shift + stride * begin
    return slice(begin, end), slice(pixel, pixel + stride * (end - begin), stride)


def _bias(bias_O: Tensor | None, weight_OKKC: Tensor) -> Tensor:
    return weight_OKKC.new_zeros(len(weight_OKKC)) if bias_O is None else bias_O.detach()


def _fold_batch_norms(layers: nn.Sequential) -> None:
    """Make batch norms a part of the layers before them, in place.

    With the running mean m and variance v, g (W x + b − m) / √(v + ε) + h is a layer of the same
    kind with the weights g W / √(v + ε).
    """
    for place, (layer, norm) in enumerate(itertools.pairwise(list(layers))):
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) or norm.running_mean is None:
            continue
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            layers[place] = fuse_conv_bn_eval(layer, norm, transposed)
        elif isinstance(layer, nn.Linear):
            layers[place] = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        layers[place + 1] = nn.Identity()


def _with_products(module: nn.Module) -> nn.Module:
    """The module with products for its convolutions, itself or inside it."""
    if isinstance(module, WeightNorm):
        module = module.plain()
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _product(module)
    if isinstance(module, Gdn):
        return _Normalisation(module)
    for name, child in module.named_children():
        setattr(module, name, _with_products(child))
    return module


def _product(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """The convolution as products, or the layer itself where they do not cover it."""
    weight, bias_O, padding = layer.weight.detach(), layer.bias, layer.padding
    if layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
        return layer
    if isinstance(padding, str):
        return layer
    if isinstance(layer, nn.Conv2d):
        return Convolution(weight, bias_O, layer.stride, padding)
    if any(taps < step for taps, step in zip(layer.kernel_size, layer.stride, strict=True)):
        return layer
    return TransposedConvolution(weight, bias_O, layer.stride, padding, layer.output_padding)
