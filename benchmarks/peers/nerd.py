"""Curves of NERD's generators of digits, by chains and by samples of the prior as published.

    python benchmarks/peers/nerd.py MNIST_FOLDER NERD_FOLDER OUT [--files 1.000 3.000] [--images 16]

NERD_FOLDER holds NERD_MNIST_lmbda-*.pt of github.com/leieric/NERD-RCC (MIT licence, copyright 2022
Eric Lei). Each generator was trained for one β, and is measured here at all β up to `--beta-max`,
with running statistics in its batch norms, on test digits enlarged to 32×32 as there. The same
images are measured by `gencomp slurm ais` with its certificates, and by banks of samples of the
prior. Everything that is finished is kept in OUT, and the same command goes on. The result is a
table and a figure.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cluster.results.curves import MeasuredCurve

ROOT = Path(__file__).resolve().parents[2]


class Generator(nn.Module):
    """The generator of a file of NERD: N(0, I) in 128 dimensions to digits of 32×32 on [0, 1]."""

    latent_dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.latent_to_features = nn.Sequential(nn.Linear(128, 1024), nn.ReLU())
        layers: list[nn.Module] = []
        for inputs, outputs in ((256, 128), (128, 64), (64, 32)):
            layers += [_upsampling(inputs, outputs), nn.ReLU(), nn.BatchNorm2d(outputs)]
        self.features_to_image = nn.Sequential(*layers, _upsampling(32, 1), nn.Sigmoid())

    def load_weights(self, path: Path) -> None:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict({name.removeprefix("generator."): t for name, t in tensors.items()})

    def decode(self, z_BK: Tensor) -> Tensor:
        return self.features_to_image(self.latent_to_features(z_BK).view(-1, 256, 2, 2))

    def target(self, images_BCHW: Tensor) -> Tensor:
        """Digits of 28×28 as NERD was given them: enlarged to 32×32, rounded, divided by 255."""
        grey_BHW = images_BCHW[:, 0].long()
        return enlarged(enlarged(grey_BHW).mT).mT[:, None] / 255


def _upsampling(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)


def enlarged(grey_BHW: Tensor, size: int = 32) -> Tensor:
    """Grey values whose rows are enlarged to a width, linearly, in integers, rounded half up."""
    width = grey_BHW.shape[-1]
    # In units of 1/(2·size) of a source pixel, output i reads at (2i + 1)·width - size.
    place = (2 * torch.arange(size) + 1) * width - size
    left = place.div(2 * size, rounding_mode="floor")
    share = place - left * 2 * size
    first, second = (grey_BHW[..., index.clamp(0, width - 1)] for index in (left, left + 1))
    return (first * (2 * size - share) + second * share + size).div(2 * size, rounding_mode="floor")


# R in bits and D of the notebook in the repository: MNIST's training images, banks of 40,000, batch
# statistics, and for each β the generator that was trained for it.
PUBLISHED = {
    0.05: (0.000, 57.85),
    0.1: (0.582, 52.69),
    0.15: (2.870, 39.67),
    0.2: (4.928, 31.25),
    0.25: (6.535, 26.19),
    0.3: (7.779, 23.14),
    0.4: (9.610, 19.49),
    0.5: (10.813, 17.58),
    1.0: (13.238, 15.13),
    2.0: (14.359, 14.60),
    10.0: (15.126, 14.45),
}
# R in bits and D by Blahut and Arimoto's algorithm in the same place, where the reconstructions are
# the 60,000 images themselves.
BLAHUT_ARIMOTO = (
    *((0.42, 76.59), (0.83, 71.43), (1.39, 65.54), (2.73, 53.88), (4.29, 43.08), (6.02, 33.06)),
    *((6.91, 28.51), (7.76, 24.45), (11.15, 10.77), (14.66, 1.14), (15.17, 0.42)),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("nerd", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", nargs="+", default=["0.300", "1.000", "3.000"])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--temperatures", type=int, default=400)
    parser.add_argument("--beta-max", type=float, default=3.0)
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 40_000])
    parser.add_argument("--banks", type=int, default=5, help="banks of each size")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "peers")]
    gencomp("shards", "build", "mnist", arguments.mnist, "--out", arguments.out / "mnist")
    measured = {name: measure(name, arguments) for name in arguments.files}
    report = table(measured)
    (arguments.out / "nerd.md").write_text(report, encoding="utf-8")
    draw(measured, arguments.out / "nerd.png")
    print(report)


def gencomp(*words: object) -> None:
    command = [sys.executable, "-m", "gencomp.cli", *map(str, words)]
    subprocess.run(command, check=True, cwd=ROOT / "benchmarks" / "peers", env=_environment())


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The curve of one generator by chains, with its certificates, and by banks of samples."""
    weights = (arguments.nerd / f"NERD_MNIST_lmbda-{name}.pt").resolve()
    path = (arguments.out / f"curve-{name}").resolve()
    gencomp(
        *("slurm", "ais", "--executor", "local", "--jobs", arguments.jobs),
        *("--model", "nerd:Generator", "--weights", weights, "--output", path),
        *("--shards", (arguments.out / "mnist").resolve(), "--images", arguments.images),
        *("--beta-max", arguments.beta_max, "--temperatures", arguments.temperatures),
        *("--chains", arguments.chains, "--leapfrog", 5, "--block", 4, "--points", 40),
        *("--bdmc-images", 8, "--bdmc-betas", arguments.beta_max / 10, arguments.beta_max),
        *("--certify", "--certify-betas", arguments.beta_max),
    )
    from cluster.results import curves

    (curve,) = curves.read([str(path)])
    kept = arguments.out / f"banks-{name}-{'-'.join(map(str, arguments.samples))}.json"
    if not kept.exists():
        found = {n: banks(curve, n, arguments.banks) for n in arguments.samples}
        kept.write_text(json.dumps(found), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    return {"curve": curve, "banks": {int(n): one for n, one in found.items()}}


def banks(curve: MeasuredCurve, samples: int, count: int) -> dict[str, Any]:
    """Means over the images of a curve at its β, of some banks of samples of the prior."""
    from cluster.evaluations.curve import context
    from gencomp.rate_distortion import prior_sampling

    decoder = context.open_decoder(curve.evaluation)
    images_BCHW = context.read_images(curve.evaluation, curve.plan.rows)
    x_IN = decoder.target(images_BCHW)
    beta_T = torch.tensor(curve.table.beta_T)
    started = time.process_time()
    found = [
        prior_sampling.estimate(
            decoder.decode, decoder.prior, x_IN, beta_T, samples=samples, seed=seed
        )
        for seed in range(count)
    ]
    seconds = (time.process_time() - started) / count
    stacked = {
        name: torch.stack([getattr(one, f"{name}_IT") for one in found])
        for name in ("log_z", "rate", "distortion", "ess")
    }
    return {
        "seconds": seconds,
        "log_z_IT": stacked["log_z"].mean(0).tolist(),
        "log_z_error_T": (stacked["log_z"].mean(1).std(0) / math.sqrt(count)).tolist(),
        **{f"{name}_T": one.mean((0, 1)).tolist() for name, one in stacked.items()},
    }


SHOWN = (0.1, 0.3, 1.0, 3.0)  # the β of the table


def table(measured: Mapping[str, Any]) -> str:
    """What each method finds at some β, and how far the certificates let it be wrong."""
    lines = [
        "| generator | β | by | R + βD, nats | above the chains, in pairs | R, bits | D | ESS |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in measured.items():
        curve: MeasuredCurve = one["curve"]
        content = curve.table
        chains_IT = content.rate_IT + content.beta_T * content.distortion_IT
        for beta in SHOWN:
            at = int(np.abs(np.log(content.beta_T / beta)).argmin())
            head = f"| {name} | {content.beta_T[at]:.3g}"
            lines.append(
                f"{head} | chains | {chains_IT[:, at].mean():.2f} | "
                f"| {content.rate_IT[:, at].mean() / math.log(2):.2f}"
                f" | {content.distortion_IT[:, at].mean():.2f}"
                f" | {content.ess_IT[:, at].mean():.1f} of {curve.plan.settings.chains} |"
            )
            for samples, bank in one["banks"].items():
                difference_I = -np.array(bank["log_z_IT"])[:, at] - chains_IT[:, at]
                error = difference_I.std(ddof=1) / math.sqrt(len(difference_I))
                lines.append(
                    f"{head} | {samples:,} samples"
                    f" | {-bank['log_z_T'][at]:.2f} ± {bank['log_z_error_T'][at]:.2f}"
                    f" | {difference_I.mean():+.2f} ± {error:.2f}"
                    f" | {bank['rate_T'][at] / math.log(2):.2f} | {bank['distortion_T'][at]:.2f}"
                    f" | {bank['ess_T'][at]:,.1f} |"
                )
    lines += ["", *(line for name, one in measured.items() for line in certificates(name, one))]
    return "\n".join(lines) + "\n"


def certificates(name: str, one: Mapping[str, Any]) -> list[str]:
    """The gaps of a generator's curve on simulated images, and what it misses of measured ones."""
    means = one["curve"].means
    gaps = [
        f"- {name}, β = {gap['beta']:.3g}: the gap is {gap['gap']:.2f} ± "
        f"{gap['gap_standard_error']:.2f} nats on {gap['images']} simulated images, at most "
        f"{gap['worst_gap']:.2f}."
        for gap in means["bdmc"]
    ]
    missed = [
        f"- {name}, β = {found['beta']:.3g}: chains from modes find {found['missed']:.2f} ± "
        f"{found['missed_standard_error']:.2f} nats that the curve misses on the measured images; "
        f"{len(found['flagged'])} of {found['images']} are flagged."
        for found in means["certificate"]
    ]
    seconds = ", ".join(f"{n:,}: {bank['seconds']:.1f}" for n, bank in one["banks"].items())
    return [*gaps, *missed, f"- {name}: CPU-seconds of a bank of samples: {seconds}."]


def draw(measured: Mapping[str, Any], path: Path) -> None:
    """R and D of each generator, and how far banks of samples lie above its chains."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(measured), 7.4), layout="constrained")
    panels = figure.subplots(2, len(measured), squeeze=False, sharey="row")
    for column, (name, one) in enumerate(measured.items()):
        content = one["curve"].table
        upper, lower = panels[:, column]
        rate_T, distortion_T = content.rate_IT.mean(0), content.distortion_IT.mean(0)
        chains_IT = content.rate_IT + content.beta_T * content.distortion_IT
        upper.plot(distortion_T, rate_T / math.log(2), color="C0", label="chains (AIS)")
        for colour, (samples, bank) in zip(("C1", "C2", "C3"), one["banks"].items(), strict=False):
            rate = np.array(bank["rate_T"]) / math.log(2)
            label = f"{samples:,} samples of the prior"
            upper.plot(bank["distortion_T"], rate, "--", color=colour, label=label)
            upper.axhline(math.log2(samples), color=colour, linewidth=0.6)
            difference_IT = -np.array(bank["log_z_IT"]) - chains_IT
            error_T = difference_IT.std(0, ddof=1) / math.sqrt(len(difference_IT))
            lower.errorbar(
                content.beta_T, difference_IT.mean(0), 2 * error_T, color=colour, label=label
            )
        rates, distortions = zip(*PUBLISHED.values(), strict=True)
        upper.plot(distortions, rates, "k.", label="published: a generator for each β")
        rates, distortions = zip(*BLAHUT_ARIMOTO, strict=True)
        upper.plot(distortions, rates, "x", color="0.5", label="published: Blahut-Arimoto, 60,000")
        upper.set(title=f"generator of β = {float(name):g}", xlabel="D, summed squared error")
        upper.set(ylim=(0, 30), xlim=(0, 60))
        lower.axhline(0, color="C0", linewidth=1)
        lower.set(xscale="log", xlabel="β", yscale="symlog")
    panels[0, 0].set_ylabel("R, bits")
    panels[1, 0].set_ylabel("R + βD above that of the chains, nats")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
