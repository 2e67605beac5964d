"""Whether two checkouts compute the same, bit for bit: what a change that moves code must show.

    python benchmarks/same_results.py measure CHECKOUT FILE.json
    python benchmarks/same_results.py compare BEFORE.json AFTER.json

`measure` runs small jobs with the code of CHECKOUT, in a temporary directory and only through the
command line, and writes down what they computed: shard sets and the order of their samples; the
curves and the networks of a tiny run of every stage that ships, and of the trials of a sweep;
metrics; rate-distortion curves with their certificates; payloads of compressed files and decoded
pixels. Paths, dates, versions and times are left out. Both checkouts are measured by the same
Python on the same machine, because another processor may round differently. It takes six minutes
of CPU time, and several times as long where other work keeps the cores busy.

`compare` prints one line for each value that differs and exits with 1, or with 0 if none does.

Without arguments, this checkout is measured twice in a smaller form (shard sets and one run) and
compared with itself, in a minute of CPU time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "--training.epochs null --training.steps 6 --training.log_every 1 --training.checkpoint_every 3"
    " --training.sample_every 6 --data.batch_size 8 --evaluation.every 3 --evaluation.batch_size 8"
    " --evaluation.limit 12"
)
DPLC = f"{TINY} --networks.width 4"
LATENT, CODE = "--networks.latent_dim 8", "--networks.code_channels 2"
URDP = f"{TINY} --data.shards data/photos --parents.encoder runs/urdp"
LABELLED = "--data.shards data/labelled --data.transforms.crop [64,64]"
GAN = f"{TINY} {LABELLED} --networks.width 4 --networks.residual_blocks 1"
MIXTURE = '[{"shards":"data/photos","weight":2},{"shards":"data/few","weight":1}]'

# What `gencomp train` is given for each stage that ships; between them they read samples in every
# way there is. The codec's recipe names the run `generator` as its parent. Of the label modes of an
# adversarial codec only the selective one is here, which takes every path that the others take.
STAGES = {
    "generator": f"dplc_wae_photos {DPLC} {LATENT} --workers 2",
    "wgan_gp": f"dplc_wgan_gp_photos {DPLC} {LATENT}"
    " --data.order windowed --data.window 16 --data.lanes 2",
    "wasserstein_pp": f"dplc_wasserstein_pp_photos {DPLC} {LATENT} --data.transforms.flip true",
    "codec": f"dplc_codec_photos {DPLC} {CODE}",
    "cae": f"dplc_cae_photos {DPLC} {LATENT} {CODE} --data.shards null --data.mixture {MIXTURE}",
    "gc": f"dplc_gc_photos {DPLC} {LATENT} {CODE} --data.decode_threads 2",
    "vae": f"vae_digits {TINY} --data.shards data/small --data.transforms.dither true"
    " --networks.channels 3 --networks.widths [16] --training.ema_decay 0.9",
    "urdp": f"urdp_photos {TINY} --networks.width 0.1 --networks.decoder_width 0.1",
    "universal": f"urdp_universal_glyphs {URDP}",
    "refinement": f"urdp_refinement_mnist {URDP}",
    "critic": f"urdp_critic_mnist {URDP} --parents.decoder runs/refinement",
    "rvae": f"irec_rvae_photos {TINY} --networks.blocks 2 --networks.deterministic 8"
    " --networks.stochastic 2",
    "two_level": f"irec_two_level_photos {TINY} --data.shards data/photos --networks.filters 8"
    " --networks.hyper_filters 4",
    "one_level": f"irec_one_level_photos {TINY} --networks.filters 8",
    "distortion": f"gan_distortion_narrow {GAN}",
    "selective": f"gan_selective_shapes {GAN} --discriminator.width 4",
    "classifier": f"classifier_mnist {TINY} --data.shards data/glyphs --networks.widths [8,8]"
    " --networks.classes 36",
    "pixels": f"pixel_classifier_narrow {TINY} {LABELLED} --networks.widths [8,8]",
}
SWEEP = """\
base: dplc_codec_photos
space:
  loss.mmd_weight: {grid: [0, 10]}
objective: {minimise: mse}
concurrent: 2
"""
CURVE = (
    "--images 2 --block 1 --chains 4 --temperatures 12 --points 5 --leapfrog 2 --pilot-images 2"
    " --pilot-temperatures 20 --bdmc-images 2 --jobs 2"
)
ENCODERS = "--images 3 --epochs 1 --batch-size 8 --samples 2 --betas 0.001 0.1 --executor debug"

# No command tells the order of samples and their random crops, so the façade `shards` is asked, and
# the other names of the data's floor wherever the checkout keeps them.
ORDER = """
import hashlib, importlib, itertools, json, sys
import numpy as np
import shards

def of_checkout(name, module):
    for place in ("shards", f"shards.{module}", f"shards.reading.{module}"):
        try:
            return getattr(importlib.import_module(place), name)
        except (ModuleNotFoundError, AttributeError):
            pass
    sys.exit(f"this checkout has no {name} at a place that this script knows")

split = shards.open_set(sys.argv[1]).split("train")
whole, windowed = of_checkout("EpochOrder", "order"), of_checkout("WindowedOrder", "windowed")
batches_of = of_checkout("training_batches", "stream")
cut = of_checkout("Transforms", "transforms")(resize=(72, 72), crop=(64, 64), flip=True)
for order in (
    whole(split.key_hash, 321, len(split)),
    windowed(split.key_hash, 321, split.shard_lengths, 16, 2),
):
    keys = [split.key(int(row)) for row in order.rows(np.arange(3 * len(split)))]
    print(hashlib.sha256(json.dumps(keys).encode()).hexdigest(), "from", *keys[:3])
    for rank in range(2):
        batches = batches_of(split, order, 8, rank, 2, 5, transforms=cut)
        digest = hashlib.sha256()
        for batch in itertools.islice(batches, 3):
            digest.update(batch.rows.tobytes() + batch.positions.tobytes() + batch.images.tobytes())
        print(digest.hexdigest(), "of rank", rank)
"""
# The sections of a container of another version than the one that this script reads itself.
SECTIONS = """
import pathlib, sys
from gencomp.coding import container

found = container.unpack(pathlib.Path(sys.argv[1]).read_bytes())
pictures = getattr(found, "members", None) or getattr(found, "pictures", None) or [found]
sections = [*getattr(found, "shared", ()), *(one for each in pictures for one in each.sections)]
print(*(bytes(section).hex() for section in sections), sep="\\n")
"""


class Scene:
    """A temporary directory in which commands run with the code of a checkout."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        self.directory = directory
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "PYTHONPATH": str(checkout),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "GENCOMP_CACHE": str(directory / "cache"),
        }
        (code,) = self.python("-c", "import gencomp; print(gencomp.__file__)")
        if not Path(code).is_relative_to(checkout):
            raise SystemExit(f"{checkout} is no checkout of gencomp: its code comes from {code}")

    def python(self, *words: str) -> list[str]:
        """The lines that a Python process prints; where it fails, this script ends."""
        done = subprocess.run(
            [sys.executable, *words], cwd=self.directory, env=self._environment,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            told = f"{done.stdout}{done.stderr}"
            raise SystemExit(f"{told}\nthis process has failed: python {' '.join(words)}")
        return done.stdout.splitlines()

    def gencomp(self, command: str) -> None:
        self.python("-m", "gencomp.cli", *command.split())

    def json(self, path: str) -> Any:
        return json.loads((self.directory / path).read_text(encoding="utf-8"))


# --- the jobs -------------------------------------------------------------------------------------


def shard_sets(scene: Scene) -> dict[str, Any]:
    """Photographs of two sizes, a sample of the larger ones, and two sets with labels.

    Glyphs have a label each, and shapes have maps of labels. The tars and the order are compared.
    """
    scene.gencomp("shards build photos --out data/photos --size 64 --limit 48 --shard-size 16")
    scene.gencomp("shards build photos --out data/small --size 8 --limit 48 --shard-size 16")
    scene.gencomp("shards sample data/photos --out data/few --count 20")
    scene.gencomp("shards build glyphs --out data/glyphs --limit 48 --shard-size 16")
    scene.gencomp("shards build shapes --out data/labelled --size 64 --limit 48 --shard-size 16")
    return {
        path.name: {
            "index": scene.json(f"data/{path.name}/dataset.json")["index_hash"],
            "tars": {tar.name: sha256(tar.read_bytes()) for tar in sorted(path.glob("*.tar"))},
            "order": scene.python("-c", ORDER, str(path)),
        }
        for path in sorted((scene.directory / "data").iterdir())
    }


def trained(scene: Scene, name: str) -> dict[str, Any]:
    scene.gencomp(f"train {STAGES[name]} --name {name}")
    return run(scene.directory / "runs" / name)


def sweep(scene: Scene) -> dict[str, Any]:
    """Two trials, told apart by their λ: their names depend on everything a recipe may say."""
    (scene.directory / "rates.yaml").write_text(SWEEP)
    scene.gencomp(f"sweep rates.yaml {DPLC} {CODE}")
    directory = scene.directory / "runs/rates"
    table = pq.read_table(directory / "results.parquet").drop_columns(["trial"])
    recipes = {
        path: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in directory.rglob("recipe.yaml")
    }
    trials = {
        f"mmd_weight={recipe['loss']['mmd_weight']:g}": run(path.parent)
        for path, recipe in recipes.items()
    }
    return {"table": table.to_pylist(), "trials": trials}


def metrics(scene: Scene) -> dict[str, Any]:
    """What `gencomp evaluate` measures without a network that would have to be fetched.

    Flags that say how a number is meant are left out.
    """
    found = {}
    for name, some in {"codec": "mse,psnr,ms_ssim,pv,rate0,mmd", "vae": "mse,psnr"}.items():
        sizes = "--draws 3 --images 12 --block 6 --batch-size 4"
        scene.gencomp(f"evaluate runs/{name} --metrics {some} {sizes}")
        measured = scene.json(f"runs/{name}/evaluations/metrics/metrics.json")["metrics"]
        found[name] = {
            metric: {key: value for key, value in entry.items() if not isinstance(value, bool)}
            for metric, entry in measured.items()
        }
    return found


def curves(scene: Scene) -> dict[str, Any]:
    """Rate-distortion curves by annealed importance sampling, and the one of trained encoders."""
    squared = "--beta-max 0.1 --bdmc-betas 0.01 0.1 --executor local"
    likelihood = "--distortion gaussian_likelihood --beta-max 1 --executor debug"
    found: dict[str, Any] = {}
    for name, distortion in {"generator": squared, "vae": likelihood}.items():
        scene.gencomp(f"slurm ais runs/{name} {CURVE} {distortion}")
        curve = scene.json(f"runs/{name}/evaluations/ais/curve.json")
        found[name] = {"points": curve["points"], "bdmc": curve["bdmc"]}
    scene.gencomp(f"slurm variational runs/generator {ENCODERS}")
    encoders = scene.json("runs/generator/evaluations/variational/variational.json")
    return {**found, "encoders": encoders["points"]}


def files(scene: Scene) -> dict[str, Any]:
    """An image of no tile's size to a file and back: the payload, and the decoded pixels."""
    with tarfile.open(scene.directory / "data/photos/test-000000.tar") as tar:
        members = [one for one in tar.getmembers() if one.name.endswith(".png")][:2]
        crops = [np.asarray(Image.open(tar.extractfile(one))) for one in members]  # type: ignore[arg-type]
    Image.fromarray(np.concatenate(crops, axis=1)[:50, :100]).save(scene.directory / "photo.png")
    found = {}
    for name in ("codec", "cae", "gc"):
        scene.gencomp(f"compress runs/{name} photo.png {name}.gc")
        scene.gencomp(f"decompress runs/{name} {name}.gc {name}.png")
        decoded = pixels(scene.directory / f"{name}.png")
        found[name] = {"payload": payload(scene, f"{name}.gc"), "decoded": decoded}
    return found


# --- what a job has computed ----------------------------------------------------------------------


def run(directory: Path) -> dict[str, Any]:
    """The curves of a run without clocks, its networks, and the pixels of its samples."""
    rows = [
        json.loads(line)
        for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    last = max((directory / "checkpoints").glob("step-*"))
    return {
        "curves": [
            {
                key: value
                for key, value in row.items()
                if key not in ("attempt", "time") and "second" not in key
            }
            for row in rows
        ],
        "networks": {"checkpoint": last.name, **networks(last / "networks.safetensors")},
        "samples": {path.name: pixels(path) for path in sorted(directory.glob("samples/*.png"))},
    }


def networks(path: Path) -> dict[str, str]:
    """The hash of each network in a safetensors file: names, types, shapes and bits of its tensors.

    The file has the length of its header (8 bytes, little-endian), the header as JSON, the tensors.
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    digests: dict[str, Any] = {}
    for name, tensor in sorted(header.items()):
        begin, end = tensor["data_offsets"]
        digest = digests.setdefault(name.partition(".")[0], hashlib.sha256())
        digest.update(f"{name} {tensor['dtype']} {tensor['shape']} ".encode())
        digest.update(data[start + begin : start + end])
    return {name: digest.hexdigest() for name, digest in digests.items()}


def payload(scene: Scene, file: str) -> list[str]:
    """The sections of a container; its header is not a result.

    Version 1 is read here: magic, version and header length (4 bytes); the codec's id with its
    length, a fingerprint of 8 bytes, height, width, number and lengths of sections as varints; a
    checksum of 2 bytes; the sections, each with a checksum of 4 bytes.
    """
    data = (scene.directory / file).read_bytes()
    if data[:3] != b"\x9dG\x01":
        return scene.python("-c", SECTIONS, file)
    end = 4 + data[3]
    _height, _width, _count, *lengths = varints(data[4 + 1 + data[4] + 8 : end])
    found, at = [], end + 2
    for length in lengths:
        found.append(data[at : at + length].hex())
        at += length + 4
    return found


def varints(data: bytes) -> Iterator[int]:
    """Integers of seven bits a byte, least significant first; the last byte has no top bit."""
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0


def pixels(path: Path) -> str:
    image = Image.open(path)
    return f"{image.mode} {image.width}×{image.height} {sha256(image.tobytes())}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- both commands --------------------------------------------------------------------------------


def measure(checkout: Path, whole: bool = True) -> dict[str, Any]:
    """All results of a checkout, or only those of its shard sets and of one run."""
    print(f"measuring {checkout}", flush=True)

    def timed(name: str, job: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        found = job(scene, *arguments)
        print(f"  {name:<16} {time.monotonic() - start:6.1f} s", flush=True)
        return found

    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(checkout.resolve(), Path(directory).resolve())
        found = {"shard_sets": timed("shard_sets", shard_sets)}
        found["runs"] = {
            name: timed(name, trained, name) for name in (STAGES if whole else ["vae"])
        }
        for job in (sweep, metrics, curves, files) if whole else ():
            found[job.__name__] = timed(job.__name__, job)
    return found


def compare(before: Any, after: Any) -> list[str]:
    """One line for each value that differs."""
    old, new = dict(values(before)), dict(values(after))
    return [
        f"{name}: {old.get(name, 'nothing')} before, {new.get(name, 'nothing')} after"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def values(tree: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The places in a tree of JSON and what stands there, a number with all its digits."""
    if not isinstance(tree, dict | list):
        yield name, json.dumps(tree, ensure_ascii=False)
        return
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from values(inner, f"{name} › {key}" if name else str(key))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    for command, *arguments in (("measure", "checkout", "file"), ("compare", "before", "after")):
        its = commands.add_parser(command)
        for name in arguments:
            its.add_argument(name, type=Path)
    words = parser.parse_args()
    if words.command == "measure":
        words.file.write_text(json.dumps(measure(words.checkout), indent=1, ensure_ascii=False))
        return 0
    if words.command == "compare":
        before, after = (
            json.loads(path.read_text(encoding="utf-8")) for path in (words.before, words.after)
        )
    else:
        before, after = (measure(ROOT, whole=False) for _ in range(2))
    differences = compare(before, after)
    print("\n".join(differences) or f"all {len(list(values(before)))} values are the same")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
