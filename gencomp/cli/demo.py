"""`gencomp demo`, which does the main job on this machine by the commands that a user types."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from PIL import Image

from gencomp.cli.console import print_table
from gencomp.errors import InputError
from gencomp.exit_codes import DONE

# The row of the test image that becomes a file: a letter, and a crop with much detail.
_LETTER_ROW, _PHOTO_ROW = 0, 410
_SCENE_ROW = 1  # that of a scene with discs among other shapes
# A curve that two jobs measure and two certify within a minute.
_SHORT_CURVE = (
    "--images 4 --bdmc-images 4 --bdmc-betas 0.3 --beta-max 0.3 --temperatures 128 --leapfrog 6"
    " --pilot-images 2 --pilot-temperatures 40 --jobs 2"
)


def demo(
    method: tyro.conf.Positional[Literal["dplc", "urdp", "irec", "gan_compression"]] = "dplc",
    /,
    data: Literal["letters", "photos"] | None = None,
    directory: Path = Path("demo"),
) -> int:
    """Do the main job of a method here, by the commands that one types, and write a report.

    dplc: make shards, train a generator, search codecs on it, measure its rate-distortion curve,
    write a real file. urdp: train an encoder of letters and three decoders of it, write letters to
    one file, and show it through every decoder. irec: train a lossless model and three lossy ones
    of photographs, write their files by relative entropy coding and by bits-back, and hold them
    against PNG, JPEG and WebP. gan_compression: train codecs of labelled scenes against
    discriminators, and write files that keep chosen shapes and make the others from labels alone.
    The same command goes on where an earlier one was stopped.

    Args:
        method: The method.
        data: The images of dplc: letters by default, which a generator learns within a minute, or
            photos, which take several times as long and stay blurred.
        directory: The directory to which everything is written.
    """
    if data is not None and method != "dplc":
        raise InputError(
            f"--data {data} belongs to dplc; the images of {method} are always the same"
        )
    job = _JOBS[data or "letters"] if method == "dplc" else _JOBS[method]
    directory.mkdir(parents=True, exist_ok=True)
    steps = _Steps(directory, job.seconds)
    page = job.run(steps)
    print()
    print_table(
        "seconds",
        ["step", "s"],
        [[title, f"{spent:.0f}"] for title, spent in [*steps.seconds, ("all", steps.total)]],
    )
    print(f"\nThe report: {(directory / page).absolute()}")
    return DONE


class _Steps:
    """The steps of a demo, which run in its directory and are timed.

    `expected` has the seconds that each takes on two idle cores, or nothing if they are not known.
    """

    def __init__(self, directory: Path, expected: Sequence[float]) -> None:
        self.directory = directory
        self.seconds: list[tuple[str, float]] = []
        self._expected = expected

    @property
    def total(self) -> float:
        return sum(spent for _, spent in self.seconds)

    def __call__(self, title: str, *commands: str) -> None:
        place = str(len(self.seconds) + 1)
        if self._expected:
            left = time_left(self._expected, [spent for _, spent in self.seconds])
            place += f" of {len(self._expected)}, {left}"
        print(f"\n== {place}. {title}", flush=True)
        start = time.monotonic()
        for command in commands:
            _gencomp(command, self.directory)
        self.seconds.append((title, time.monotonic() - start))


def time_left(expected: Sequence[float], spent: Sequence[float]) -> str:
    """How long the steps that are not done will take, in words.

    Args:
        expected: The seconds of each step on two idle cores.
        spent: The seconds of each step that is done. If they took longer than expected, so will
            the others; if they took less, their work may have been done before.
    """
    pace = max(1.0, sum(spent) / sum(expected[: len(spent)])) if spent else 1.0
    minutes = pace * sum(expected[len(spent) :]) / 60
    return "less than a minute left" if minutes < 1 else f"about {round(minutes)} min left"


def _urdp(step: _Steps) -> str:
    """One encoder of letters, three decoders of it, and one file that all of them read."""
    from sweeps.results import read_results

    step("Letters of matplotlib's fonts to shards", "shards build glyphs --out data/glyphs")
    step(
        "Train an encoder, and decoders of it for three perception weights, as a chain of sweeps",
        "sweep urdp_lambda_universal_glyphs",
    )
    found = read_results(step.directory / "runs/urdp_lambda_universal_glyphs")
    rows = sorted(found.rows, key=lambda row: row["loss.perception_weight"])
    runs = [f"runs/urdp_lambda_universal_glyphs/trials/{row['trial']}" for row in rows]
    _write_letters(step.directory)
    step(
        "200 letters to one file, which the decoders of the least and the largest λ read",
        f"compress {runs[-1]} letters letters.gcp --joint --overwrite",
        f"decompress {runs[0]} letters.gcp smooth --overwrite",
        f"decompress {runs[-1]} letters.gcp sharp --overwrite",
        f"decompress {runs[0]} letters.gcp between --toward {runs[-1]} --share 0.5 --overwrite",
    )
    drawn = " ".join(runs)
    step(
        "Figures and report",
        f"figure choice letters.gcp {drawn} --images 12 --out choice.png --overwrite",
        f"figure tradeoff runs/urdp_lambda_glyphs {drawn} --out tradeoff.png --overwrite",
        "report --sweep runs/urdp_lambda_universal_glyphs --out report.html",
    )
    return "report.html"


def _irec(step: _Steps) -> str:
    """A lossless model and lossy ones, their files, and the files of engineered codecs."""
    from cluster.ray_runtime import usable_cpus
    from sweeps.results import read_results

    workers = str(min(2, usable_cpus()))
    step("Photographs to shards", "shards build photos --out data/photos")
    step(
        "Train a lossless model, a ResNet VAE of 32×32 crops",
        f"train irec_rvae_photos --name lossless --workers {workers}",
    )
    step("Train lossy models for three λ as a sweep", "sweep irec_beta_photos --name lossy")
    step(
        "Files of the same held-out pictures: by relative entropy coding, by bits-back, as PNG",
        "files runs/lossless --images 48 --lossless png webp",
        "files runs/lossless --images 48 --name bits_back --codec.coder bits_back",
        "files runs/lossy --images 48",
    )
    _write_photographs(step.directory)
    row = max(
        read_results(step.directory / "runs/lossy").rows,
        key=lambda row: row["loss.distortion_weight"],
    )
    lossy = f"runs/lossy/trials/{row['trial']}"
    step(
        "Photographs to files and back, without loss and with it",
        "compress runs/lossless photographs exact --overwrite",
        "decompress runs/lossless exact back --overwrite",
        f"compress {lossy} photographs small --codec.effort best --overwrite",
        f"decompress {lossy} small shown --overwrite",
    )
    _check_same(step.directory / "photographs", step.directory / "back")
    step(
        "Figure and report",
        "figure curves runs/lossy --metrics psnr --classical jpeg,webp --out curves.png"
        " --overwrite",
        "report --sweep runs/lossy --lossless runs/lossless/evaluations/files"
        " runs/lossless/evaluations/bits_back --out report.html",
    )
    return "report.html"


def _gan_compression(step: _Steps) -> str:
    """Codecs of scenes with labels, and files of one scene that keep more and less of it."""
    from cluster.ray_runtime import usable_cpus

    workers = str(min(2, usable_cpus()))
    step("Striped shapes, with labels and instances, to shards", "shards build shapes")
    step(
        "Train codecs with labels in the stream for C = 2 and 8 as a sweep",
        "sweep gan_channels_shapes --name channels",
    )
    step(
        "Train a selective codec, whose files keep chosen regions",
        f"train gan_selective_shapes --name selective --workers {workers}",
    )
    step("Files of held-out scenes, part by part", "files runs/channels --images 40")
    _write_scene(step.directory)
    maps = "--maps label=scene/label.png instance=scene/instance.png"
    compress, kept = "compress runs/selective scene/image.png", ("nothing", "discs", "all")
    step(
        "One scene to three files, which keep nothing, its discs, and everything",
        f"{compress} nothing.gcp --codec.keep [] {maps} --overwrite",
        f"{compress} discs.gcp --codec.keep disc {maps} --overwrite",
        f"{compress} all.gcp --codec.keep ground,disc,square,triangle {maps} --overwrite",
        "decompress runs/selective discs.gcp discs.png --overwrite",
    )
    files = " ".join(f"{name}.gcp" for name in kept)
    step(
        "Figure and report",
        f"figure comparison runs/selective scene/image.png {files} --maps label=scene/label.png"
        " --scale 2 --out selective.png --overwrite",
        "report --sweep runs/channels --figures selective.png --out report.html",
    )
    return "report.html"


def _write_scene(directory: Path) -> None:
    """Write a held-out scene with its maps as images."""
    import shards

    sample = shards.open_set(directory / "data/shapes").split("test").read(_SCENE_ROW)
    (directory / "scene").mkdir(exist_ok=True)
    Image.fromarray(sample.image).save(directory / "scene/image.png")
    for name, map_HW in sample.maps.items():
        Image.fromarray(map_HW).save(directory / f"scene/{name}.png")


def _write_photographs(directory: Path) -> None:
    """Write parts of photographs, of sizes that no model was trained for."""
    from skimage import data

    (directory / "photographs").mkdir(exist_ok=True)
    for name, image_HWC in (
        ("astronaut", data.astronaut()[30:190, 150:290]),
        ("cat", data.chelsea()[60:161, 120:271]),
        ("coffee", data.coffee()[100:229, 200:355]),
    ):
        Image.fromarray(image_HWC).save(directory / f"photographs/{name}.png")


def _check_same(folder: Path, decoded: Path) -> None:
    """Check that lossless files came back as they were."""
    for path in sorted(folder.iterdir()):
        original, found = (np.asarray(Image.open(one / path.name)) for one in (folder, decoded))
        if not np.array_equal(original, found):
            raise RuntimeError(f"{path} did not come back as it was")
    print("every pixel of the lossless files came back")


def _write_letters(directory: Path) -> None:
    """Write 200 held-out letters as images."""
    import shards

    split = shards.open_set(directory / "data/glyphs").split("test")
    (directory / "letters").mkdir(exist_ok=True)
    for row in range(200):
        Image.fromarray(split.read(row).image).save(directory / f"letters/{row:03d}.png")


def _letters(step: _Steps) -> str:
    """A generator of letters, its codecs, and what it allows."""
    from cluster.ray_runtime import usable_cpus
    from sweeps.results import read_results

    workers = str(min(2, usable_cpus()))
    generator, sweep = "runs/dplc_wae_glyphs", "runs/dplc_rates_glyphs"
    step(
        "Letters of matplotlib's fonts to WebDataset shards with a Parquet index",
        "shards build glyphs --size 64 --limit 6000 --out data/glyphs64",
    )
    step(
        "Train the generative model (WAE-MMD) with Ray Train",
        f"train dplc_wae_glyphs --workers {workers}",
    )
    step(
        "Train codecs of three rates on the frozen generator with Ray Tune",
        "sweep dplc_rates_glyphs",
    )
    step(
        "Rate-distortion curve of the generator by AIS, as evaluation jobs",
        f"slurm ais {generator} {_SHORT_CURVE}",
        f"slurm collect {generator}/evaluations/ais",
    )
    trials = [
        f"{sweep}/trials/{row['trial']}" for row in read_results(step.directory / sweep).best()
    ]
    _file(step, "letter", "data/glyphs64", _LETTER_ROW, trials[-1])
    step(
        "Figure and report",
        f"figure rates {' '.join(trials)} --images 6 --draws 3 --scale 1 --out rates.png"
        " --overwrite",
        f"report --generator {generator} --sweep {sweep} --curve {generator}/evaluations/ais"
        " --figures rates.png --out report.html",
    )
    return "report.html"


def _photos(step: _Steps) -> str:
    """The photographs' generator, its codecs, and what it allows."""
    from cluster.ray_runtime import usable_cpus
    from sweeps.results import read_results

    workers = str(min(2, usable_cpus()))
    step(
        "Photographs to WebDataset shards with a Parquet index",
        "shards build photos --out data/photos",
    )
    step(
        "Train the generative model (WAE-MMD) with Ray Train",
        f"train dplc_wae_photos --name generator --workers {workers}",
    )
    step(
        "Search MMD weight × code channels on the frozen generator with Ray Tune",
        "sweep dplc_rates_photos --name rates",
    )
    step(
        "Rate-distortion curve of the generator by AIS, as evaluation jobs",
        "slurm ais runs/generator --images 8 --bdmc-images 8 --jobs 4",
        "slurm collect runs/generator/evaluations/ais",
    )
    best = read_results(step.directory / "runs/rates").best()[-1]
    _file(step, "photo", "data/photos", _PHOTO_ROW, f"runs/rates/trials/{best['trial']}")
    step(
        "Report",
        "report --generator runs/generator --sweep runs/rates"
        " --curve runs/generator/evaluations/ais --out report.html",
    )
    return "report.html"


def _file(step: _Steps, name: str, data: str, row: int, trial: str) -> None:
    """One test image to a file and back with the codec of the highest rate."""
    import shards

    image = step.directory / f"{name}.png"
    sample = shards.open_set(step.directory / data).split("test").read(row)
    Image.fromarray(sample.image).save(image)
    print(f"\n{image.name}: test image {sample.key}")
    step(
        f"One {name} to a file and back with the codec of the highest rate",
        f"compress {trial} {name}.png {name}.gcp --overwrite",
        f"decompress {trial} {name}.gcp decoded.png --overwrite",
    )
    _check_round_trip(step.directory, name, step.directory / trial)


def _gencomp(command: str, directory: Path) -> None:
    """Run one command line in the demo's directory, in a process of its own as a user would."""
    print(f"$ gencomp {command}", flush=True)
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-P", "-m", "gencomp.cli", *shlex.split(command)]
    finished = subprocess.run(words, cwd=directory, env=environment)
    if finished.returncode != 0:
        # The command itself has said what is wrong.
        raise SystemExit(finished.returncode)


def _check_round_trip(directory: Path, name: str, trial: Path) -> None:
    """Check that the decoded image is the encoder's reconstruction."""
    from cluster.runs import open_run
    from gencomp.system import Picture

    codec = open_run(trial).system().codec()
    assert codec is not None
    image, decoded = (
        np.asarray(Image.open(directory / file)) for file in (f"{name}.png", "decoded.png")
    )
    stream = (directory / f"{name}.gcp").read_bytes()
    if not np.array_equal(decoded, codec.reconstruct(Picture(image))):
        raise RuntimeError("the decoded image is not the encoder's reconstruction")
    print(
        f"decoded.png equals the encoder's reconstruction; {codec.code_bits(stream) // 8} of the"
        f" {len(stream)} bytes of {name}.gcp are its code"
    )


class _Job(NamedTuple):
    """What a demo runs, and about how many seconds its steps take on two idle cores, if known."""

    run: Callable[[_Steps], str]
    seconds: Sequence[float] = ()


_JOBS = {
    "letters": _Job(_letters, (20, 129, 80, 70, 5, 35)),
    "photos": _Job(_photos, (4, 73, 83, 134, 3, 4)),
    "urdp": _Job(_urdp),
    "irec": _Job(_irec),
    "gan_compression": _Job(_gan_compression),
}
