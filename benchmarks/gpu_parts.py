"""The parts of `gpu.py` beside training: the device itself, curves, codecs and messages."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_bench import PRECISIONS, Bench, Measurement, Precision, Values, float32_products
from gpu_systems import BY_NAME, training_of

from gencomp.errors import InputError
from gencomp.system import Picture

FORCES = ("float32", "tf32", "bfloat16")
CODECS = ("dplc_codec_celeba", "urdp_svhn", "irec_rvae_imagenet32", "gan_cityscapes")
# The pictures that codecs code: those of larger recipes take minutes in float64.
LARGEST_PICTURE = (64, 128)
MESSAGES_MB = (1, 64, 512)


def measurements(bench: Bench, part: str) -> Iterator[Measurement]:
    """The measurements of one of the parts of this file."""

    def one(name: str, work: Callable[..., Values], *more: Any) -> Measurement:
        return Measurement(part, name, partial(work, bench, *more), f"{part} {name}")

    match part:
        case "yardstick":
            for precision in PRECISIONS:
                yield one(f"product {precision}", measure_product, precision)
            for precision in PRECISIONS:
                yield one(f"convolution {precision}", measure_convolution, precision)
            yield one("copy", measure_copy)
        case "ais":
            for forces in FORCES:
                yield one(f"forces {forces}", measure_ais, forces)
        case "codec":
            for name in CODECS:
                yield one(name, measure_codec, name)
        case "relative_entropy":
            for name in ("T32", "T1000"):
                yield one(f"{name} on the CPU", measure_relative_entropy, name)
        case "allreduce":
            for megabytes in MESSAGES_MB:
                yield one(f"{megabytes} MB", measure_allreduce, megabytes)


# --- the device -----------------------------------------------------------------------------------


def rate(bench: Bench, work: Callable[[], object], amount: float) -> float:
    """What is done in a second, by calls that follow each other and do `amount` each."""
    calls = 5
    work()
    seconds, _ = bench.median(work, calls)
    return calls * amount / seconds


def tensor_type(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def measure_product(bench: Bench, precision: Precision) -> Values:
    side = bench.pick(8192 if bench.on_gpu else 1024, 128)
    a, b = torch.randn(2, side, side, device=bench.device).to(tensor_type(precision))
    made = torch.empty_like(a)
    with float32_products(precision), torch.no_grad():
        found = rate(bench, lambda: torch.mm(a, b, out=made), 2 * side**3) / 1e12
    bench.rates[precision] = found
    return {"rate": found, "unit": "TFLOP/s", "size": f"{side}³"}


def measure_convolution(bench: Bench, precision: Precision) -> Values:
    batch, channels, side = bench.pick((64 if bench.on_gpu else 4, 256, 64), (2, 16, 16))
    options: Any = {"device": bench.device, "dtype": tensor_type(precision)}
    x_BCHW = torch.randn(batch, channels, side, side, **options)
    x_BCHW = x_BCHW.to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False, **options)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    operations = 2 * batch * side**2 * channels**2 * 9
    with float32_products(precision), torch.no_grad():
        found = rate(bench, lambda: layer(x_BCHW), operations) / 1e12
    size = f"{batch}×{channels}×{side}×{side}"
    return {"rate": found, "unit": "TFLOP/s", "size": size}


def measure_copy(bench: Bench) -> Values:
    megabytes = bench.pick(1024 if bench.on_gpu else 128, 1)
    source = torch.ones(megabytes << 18, device=bench.device)
    target = torch.empty_like(source)
    found = rate(bench, lambda: target.copy_(source), 2 * source.nbytes) / 1e9
    return {"rate": found, "unit": "GB/s", "size": f"{megabytes} MiB, read and written"}


# --- rate-distortion curves -----------------------------------------------------------------------


def measure_ais(bench: Bench, forces: Precision) -> Values:
    from gencomp.rate_distortion import ais, schedules
    from gencomp.rate_distortion.distortion import SquaredError
    from gencomp.rate_distortion.tuning import Tuning

    images, chains, leapfrog = bench.pick((16, 16, 20), (2, 2, 2))
    training = training_of(bench, BY_NAME["dplc_wae_celeba"])
    decoder = training.system.latent_decoder()
    assert decoder is not None
    x_IN = decoder.target(training.batch.images_BCHW[:images])
    betas = schedules.sigmoid(10.0, 10_000)
    tuning = Tuning(
        betas=betas,
        step_sizes=np.full(len(betas), 0.01),
        leapfrog=leapfrog,
        latent_dim=decoder.latent_dim,
        prior=decoder.prior.identity,
        seed=6,
        low_precision_until=0.0 if forces == "float32" else math.inf,
    )
    distortion = SquaredError(decoder.decode, x_IN, forces)
    walk = ais.Walk(distortion, decoder.prior, tuning, seed=7, image_ids=range(images))
    state = ais.start(walk, chains)

    def transition() -> None:
        nonlocal state
        state, _ = ais.advance(walk, state)

    z_BK = torch.randn(images * chains, decoder.latent_dim, device=bench.device)
    x_BN = x_IN.repeat_interleave(chains, 0)

    def gradient() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=forces == "bfloat16"):
            leaf_BK = z_BK.detach().requires_grad_()
            value_BN = decoder.decode(leaf_BK)
        torch.autograd.grad(value_BN, leaf_BK, (value_BN.detach() - x_BN).to(value_BN.dtype))

    with float32_products("float32"):
        transition()
        seconds, count = bench.median(transition)
    with float32_products(forces):
        gradient()
        of_gradient, _ = bench.median(gradient)
    return {
        "transitions_s": 1 / seconds,
        "ms": 1e3 * seconds,
        "gradient_ms": 1e3 * of_gradient,
        "of_gradients": leapfrog * of_gradient / seconds,
        "chains": images * chains,
        "leapfrog": leapfrog,
        "transitions": count,
    }


# --- codecs ---------------------------------------------------------------------------------------


def measure_codec(bench: Bench, name: str) -> Values:
    """A codec of weights that were trained on the device, made there and again on the CPU."""
    case = BY_NAME[name]
    training = training_of(bench, case)
    training.turn()
    sides = [min(pair) for pair in zip(case.size, LARGEST_PICTURE, strict=True)]
    batch = training.images(bench.pick(64, 16), *sides)
    finalise = bench.seconds(lambda: training.system.finalise(training.supply("finalise", batch)))
    images_BHWC = batch.images_BCHW.permute(0, 2, 3, 1).cpu().numpy()
    pictures = [Picture(images_BHWC[i], index=i) for i in range(bench.pick(3, 1))]
    values: Values = {"finalise_s": finalise}
    try:
        codec = training.system.codec()
        assert codec is not None
        begin = time.perf_counter()
        streams = [codec.compress(one) for one in pictures]
        encoded = time.perf_counter()
        shown = [codec.decompress(stream) for stream in streams]
        decoded = time.perf_counter()
        training.system.to(torch.device("cpu"))
        on_cpu = training.system.codec()
        assert on_cpu is not None
        again = [on_cpu.decompress(stream) for stream in streams]
    except InputError as refusal:
        return {**values, "round_trip": f"refused: {refusal}"}
    expected = [codec.reconstruct(one) for one in pictures]
    exact = all(map(np.array_equal, shown, expected)) and all(map(np.array_equal, again, expected))
    return {
        **values,
        "encode_ms": 1e3 * (encoded - begin) / len(pictures),
        "decode_ms": 1e3 * (decoded - encoded) / len(pictures),
        "bytes": sum(map(len, streams)) / len(pictures),
        "same_codec": codec.reader_fingerprint == on_cpu.reader_fingerprint,
        "round_trip": "exact" if exact else "other pixels",
    }


def measure_relative_entropy(bench: Bench, name: str) -> Values:
    """Blocks that are coded at once, by numpy on the CPU, whatever device is measured."""
    from gencomp.coding.relative_entropy import Key, Plan, decode, overhead, schedules, search

    target = getattr(overhead, name)
    pieces, blocks = {"T32": (20, bench.pick(100, 4)), "T1000": (117, bench.pick(10, 1))}[name]
    made, size = Plan(schedules.POWER_LAW, pieces), len(target.mean_D)
    codes = search([target] * blocks, [made] * blocks, Key(1), 36, 20)  # makes the tables too
    encode, _ = bench.median(lambda: search([target] * blocks, [made] * blocks, Key(1), 36, 20))
    decoding, _ = bench.median(lambda: decode(codes, [size] * blocks, Key(1)))
    return {"encoded_s": blocks / encode, "decoded_s": blocks / decoding, "blocks": blocks}


# --- messages -------------------------------------------------------------------------------------


def measure_allreduce(bench: Bench, megabytes: int) -> Values:
    import torch.distributed as dist

    backend = "nccl" if bench.on_gpu else "gloo"
    size = bench.pick(megabytes, megabytes / 64)
    message = torch.ones(round(size * 250_000), device=bench.device)
    with tempfile.TemporaryDirectory(prefix="gencomp-gpu-") as folder:
        dist.init_process_group(
            backend,
            store=dist.FileStore(str(Path(folder) / "store"), 1),
            rank=0,
            world_size=1,
            timeout=timedelta(seconds=60),
        )
        try:
            dist.all_reduce(message)
            seconds, _ = bench.median(lambda: dist.all_reduce(message))
        finally:
            dist.destroy_process_group()
    return {
        "backend": backend,
        "gb_s": message.nbytes / seconds / 1e9,
        "us": 1e6 * seconds,
        "mb": message.nbytes / 1e6,
    }
