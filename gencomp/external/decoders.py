"""Decoders that were not trained here, named by `module:attribute` and a file of weights.

The attribute is a callable without arguments, such as a class or a function, that makes a
`torch.nn.Module` with

    latent_dim        the number k of latent dimensions, an int
    decode(z)         maps latents [B, k] to mean images [B, ...] of n values each, or to (mean, log
                      variance); it treats each row alone and is differentiable. Where `decode` is
                      an `nn.Sequential` of linear and pointwise layers, samplers compute its
                      gradient without autograd.
    x_logvar          optional: the log variance of the pixels, one number or n numbers; None if
                      there is none
    value_range       optional: the values of the pixels 0 and 255 on the model's scale, by default
                      (0, 1)
    target(images)    optional, instead of value_range: maps uint8 [B, 3, H, W] to [B, ...] on the
                      model's scale. By default n = 3·H·W values are those of all three colours, and
                      n = H·W values those of a grey image
    prior             optional: a `gencomp.rate_distortion.priors.Prior`, or anything with `sample`
                      and `log_prob` such as a torch distribution; by default N(0, I)
    load_weights(path)  optional: reads a file of weights of any other kind

The weights are a checkpoint of torch (a dictionary with the key `state_dict`) or a .safetensors
file; their names must be exactly those of the module. Nothing in such a file is executed:
checkpoints are read with `weights_only=True`. The module itself is code that runs, so name no
module that you do not trust.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.external.weights import called, load_weights, named
from gencomp.rate_distortion.priors import FromDistribution, Gaussian, Prior
from gencomp.system import LatentDecoder

_CPU = torch.device("cpu")
# Some generators draw noise once and keep it for a while.
_REPEATS = 24
_PROTOCOL = ("latent_dim", "identity", "draw", "potential_and_grad", "grad")


class Model(NamedTuple):
    """A decoder and its identity.

    Attributes:
        decoder: the decoder on its device, in evaluation mode, without gradients of its weights.
        identity: the SHA-256 of the reference, all tensors of the module's state, its log variance,
            its scale and its prior. It does not cover the module's code.
    """

    decoder: LatentDecoder
    identity: str


def open_model(
    reference: str,
    weights: Path | None = None,
    *,
    directory: Path | None = None,
    device: torch.device = _CPU,
) -> Model:
    """Open a user's decoder and load its weights.

    Args:
        reference: the "module:attribute" described above.
        weights: the file of the weights; None for a module that brings its own.
        directory: the directory that is searched for the module after the installed modules; by
            default the current directory.
        device: the device that the decoder runs on.

    Raises:
        InputError: a part is missing, does not fit or cannot be read; one sentence says which.
    """
    module = _build(reference, directory or Path.cwd())
    if weights is not None:
        load_weights(module, weights, reference)
    module.to(device).eval().requires_grad_(False)
    latent_dim = getattr(module, "latent_dim", None)
    if not isinstance(latent_dim, int) or isinstance(latent_dim, bool) or latent_dim < 1:
        raise InputError(f"{reference} has latent_dim {latent_dim!r}, but it must be 1, 2, ...")
    state = _fingerprint(reference, module, weights)
    prior = _prior(module, latent_dim, reference, state)
    probe = _probe(module, latent_dim, device, reference)
    log_variance = _log_variance(module, probe, reference)
    decoder = LatentDecoder(
        decode=_decode(module, probe),
        target=_target(module, probe, reference),
        prior=prior,
        values=probe.mean_BN.shape[1],
        log_variance=log_variance,
    )
    variance = None if log_variance is None else log_variance.double().tolist()
    scale = "its own" if hasattr(module, "target") else _value_range(module, reference)
    text = f"{state}\n{prior.identity}\nlog variance {variance}\nscale {scale}"
    return Model(decoder, hashlib.sha256(text.encode()).hexdigest())


def _build(reference: str, directory: Path) -> nn.Module:
    name, _, attribute = reference.partition(":")
    if not all(map(str.isidentifier, [*name.split("."), attribute])):
        raise InputError(
            f"the model is {reference!r}, but it must be module:attribute, such as my_models:make"
        )
    found = _import(name, directory)
    build = getattr(found, attribute, None)
    if build is None:
        place = getattr(found, "__file__", None) or "no file"
        raise InputError(f"module {name} ({place}) has no {attribute}")
    if not callable(build) or isinstance(build, nn.Module):
        raise InputError(
            f"{reference} is a {type(build).__name__}, but it must be a class or a function that"
            " makes the model"
        )
    # Weights that are drawn and not loaded must at least be the same in every process.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        module = called(reference, build)
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{reference} makes a {type(module).__name__}, but it must make a torch.nn.Module"
        )
    if not callable(getattr(module, "decode", None)):
        raise InputError(
            f"{reference} makes a {type(module).__name__}, which has no method decode(z)"
        )
    return module


def _import(name: str, directory: Path) -> Any:
    place = str(directory.absolute())
    if place not in sys.path:  # the path stays: the module may import its neighbours later
        sys.path.append(place)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"there is no module {name}, neither installed nor in {place}"
            ) from None
        raise InputError(f"module {name} cannot be imported: {error}") from error
    except Exception as error:
        raise InputError(f"module {name} cannot be imported: {named(error)}") from error


class _Probe(NamedTuple):
    """The answers of `decode` to a few latents."""

    z_BK: Tensor
    mean: Tensor  # in the shape in which `decode` gives it
    log_variance: Tensor | None

    @property
    def mean_BN(self) -> Tensor:
        return self.mean.flatten(1)


def _probe(module: nn.Module, latent_dim: int, device: torch.device, reference: str) -> _Probe:
    """Decode three latents, several times, and the first of them alone.

    Raises:
        InputError: `decode` does not answer one finite, differentiable image for each latent,
            always the same.
    """
    generator = torch.Generator().manual_seed(0)
    z_BK = torch.randn(3, latent_dim, generator=generator).to(device, _dtype(module))
    what = f"decode of {reference}"
    probe = _Probe(z_BK, *_outputs(module, z_BK.requires_grad_(), what))
    mean = probe.mean
    if not isinstance(mean, Tensor) or mean.ndim < 2 or len(mean) != 3 or not mean.numel():
        answer = list(mean.shape) if isinstance(mean, Tensor) else f"a {type(mean).__name__}"
        raise InputError(
            f"{what} answers {answer} to latents {list(z_BK.shape)}, but it must answer one image"
            " for each row"
        )
    if not mean.is_floating_point() or not mean.isfinite().all():
        raise InputError(f"{what} must answer finite floating-point values")
    if not mean.requires_grad:
        raise InputError(
            f"{what} answers values that have no gradient with respect to z: it must compute with"
            " torch (no NumPy, no detach, no no_grad)"
        )
    probe = probe._replace(z_BK=z_BK.detach(), mean=mean.detach())
    tolerance = 1e-4 * float(probe.mean.abs().max())
    for _ in range(_REPEATS):
        again = _outputs(module, probe.z_BK, what)[0]
        if not torch.allclose(again, probe.mean, rtol=1e-3, atol=tolerance):
            raise InputError(
                f"{what} gives another image when it is called again with the same latent, but the"
                " image must depend on nothing but the latent (no noise, no counter)"
            )
    alone = _outputs(module, probe.z_BK[:1], what)[0]
    if not torch.allclose(alone[0], probe.mean[0], rtol=1e-3, atol=tolerance):
        raise InputError(f"{what} gives another image for a latent when others stand beside it")
    return probe


@torch.enable_grad()
def _outputs(module: nn.Module, z_BK: Tensor, what: str) -> tuple[Any, Any]:
    """The mean, and the log variance if there is one."""
    answer = called(what, module.decode, z_BK)  # type: ignore[arg-type]
    if isinstance(answer, tuple | list):
        if len(answer) != 2:
            raise InputError(
                f"{what} answers {len(answer)} things, but it must answer the mean or (mean, log"
                " variance)"
            )
        return answer[0], answer[1]
    return answer, None


def _decode(module: nn.Module, probe: _Probe) -> Callable[[Tensor], Tensor]:
    """The module's `decode` with flattened images; the layers of a chain stay visible."""
    decode: Any = module.decode
    if isinstance(decode, nn.Sequential):
        return decode if probe.mean.ndim == 2 else nn.Sequential(*decode, nn.Flatten()).eval()

    def flattened(z_BK: Tensor) -> Tensor:
        answer = decode(z_BK)
        return (answer[0] if isinstance(answer, tuple | list) else answer).flatten(1)

    return flattened


def _log_variance(module: nn.Module, probe: _Probe, reference: str) -> Tensor | None:
    """The log variance from `x_logvar` or from `decode`, one number [] or [n], if there is one."""
    stated, what = getattr(module, "x_logvar", None), f"x_logvar of {reference}"
    if stated is None and probe.log_variance is not None:
        what = f"the log variance that decode of {reference} answers"
        stated = torch.as_tensor(probe.log_variance)
        if stated.ndim and len(stated) == len(probe.z_BK):
            if not (stated == stated[:1]).all():
                raise InputError(
                    f"{what} depends on z, but only a constant one is allowed: let decode answer"
                    " the mean alone"
                )
            stated = stated[0]
    if stated is None:
        return None
    try:
        log_variance = torch.as_tensor(stated, device=probe.z_BK.device).detach()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} is a {type(stated).__name__}, but it must be numbers") from None
    log_variance = log_variance.to(torch.promote_types(log_variance.dtype, torch.float32))
    values = probe.mean_BN.shape[1]
    if log_variance.numel() not in (1, values):
        raise InputError(
            f"{what} has {log_variance.numel()} values, but it must have 1 or {values}, one for"
            " each value of an image"
        )
    if not log_variance.isfinite().all():
        raise InputError(f"{what} must be finite")
    return log_variance.reshape(()) if log_variance.numel() == 1 else log_variance.flatten()


def _target(module: nn.Module, probe: _Probe, reference: str) -> Callable[[Tensor], Tensor]:
    """The map from uint8 [B, 3, H, W] to [B, n] in the decoder's type and on its device."""
    values, like = probe.mean_BN.shape[1], probe.mean
    own = getattr(module, "target", None)
    to_values = _scaled(module, values, reference) if own is None else own

    def target(images_BCHW: Tensor) -> Tensor:
        what = f"target of {reference}"
        x = to_values(images_BCHW) if own is None else called(what, to_values, images_BCHW)
        if not isinstance(x, Tensor) or x.flatten(1).shape != (len(images_BCHW), values):
            answer = list(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InputError(
                f"{what} makes {answer} of images {list(images_BCHW.shape)}, but decode gives"
                f" {values} values an image"
            )
        return x.flatten(1).to(like.device, like.dtype)

    return target


def _scaled(module: nn.Module, values: int, reference: str) -> Callable[[Tensor], Tensor]:
    """The map from pixel values 0 to 255 to `value_range`."""
    low, high = _value_range(module, reference)

    def scaled(images_BCHW: Tensor) -> Tensor:
        height, width = images_BCHW.shape[2:]
        if values not in (height * width, 3 * height * width):
            raise InputError(
                f"decode of {reference} gives {values} values an image, but images of"
                f" {height}×{width} pixels have {height * width} grey or {3 * height * width}"
                " colour values"
            )
        grey = values == height * width
        if grey and not (images_BCHW == images_BCHW[:, :1]).all():
            raise InputError(
                f"decode of {reference} gives grey images, but there are images in colour: give the"
                " model a target(images)"
            )
        chosen_BCHW = images_BCHW[:, :1] if grey else images_BCHW
        return low + (high - low) * (chosen_BCHW.double() / 255)

    return scaled


def _value_range(module: nn.Module, reference: str) -> tuple[float, float]:
    stated = getattr(module, "value_range", (0.0, 1.0))
    try:
        low, high = (float(value) for value in stated)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise InputError(
            f"{reference} has value_range {stated!r}, but it must be two increasing numbers"
        )
    return low, high


def _prior(module: nn.Module, latent_dim: int, reference: str, state: str) -> Prior:
    """The module's prior, N(0, I) by default.

    Args:
        module: the user's module.
        latent_dim: the number k of latent dimensions.
        reference: the name of the module in messages.
        state: a hash of the module, which stands for the parameters of a distribution without an
            identity of its own.
    """
    stated: Any = getattr(module, "prior", None)
    if stated is None:
        return Gaussian(latent_dim)
    if all(hasattr(stated, name) for name in _PROTOCOL):
        if stated.latent_dim != latent_dim:
            raise InputError(
                f"the prior of {reference} has latent_dim {stated.latent_dim}, but the model"
                f" {latent_dim}"
            )
        return stated
    if all(callable(getattr(stated, name, None)) for name in ("sample", "log_prob")):
        return FromDistribution(stated, latent_dim, f"{type(stated).__name__} of {state}")
    raise InputError(
        f"the prior of {reference} is a {type(stated).__name__}, but it must be one of"
        " gencomp.rate_distortion.priors or have sample and log_prob"
    )


def _fingerprint(reference: str, module: nn.Module, weights: Path | None) -> str:
    """The SHA-256 of the reference, the module's tensors, and the file that it read by itself."""
    digest = hashlib.sha256(reference.encode())
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    if weights is not None and hasattr(module, "load_weights"):
        # A module that reads a file by itself may keep its content outside its state.
        with weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _dtype(module: nn.Module) -> torch.dtype:
    """The type of the first floating-point weight; float32 for a module without any."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
