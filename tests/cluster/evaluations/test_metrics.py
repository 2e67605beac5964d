"""Measuring a run in blocks: the numbers, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import shards
from cluster import provenance, tensor_files
from cluster.evaluations.metrics import parts, plan, results, work
from cluster.evaluations.metrics.plan import Evaluation
from cluster.evaluations.metrics.settings import METRICS, parse_metrics
from cluster.evaluations.processes import make_parts
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation import feature_inputs, frechet, kernel, pixels, sliced_wasserstein, ssim
from gencomp.evaluation.draws import ItemDraws
from gencomp.evaluation.psnr import psnr
from gencomp.losses import mmd
from gencomp.system import Batch, Picture, evaluation_mode
from gencomp.systems.common.pixels import to_signed
from gencomp.systems.dplc.base import ReconstructingSystem
from tests import scripted, tiny

# But what needs label maps, which these images lack (see tests/gencomp/test_gan_commands.py).
ALL = tuple(metric for metric in METRICS if metric != "miou")
SMALL: dict[str, Any] = {
    "metrics": None,
    "split": "test",
    "images": None,
    "samples": None,
    "draws": 3,
    "reconstructions": "networks",
    "features": None,
    "features_sha256": None,
    "features_input": "uint8",
    "patches": None,
    "lpips": None,
    "lpips_sha256": None,
    "batch_size": 8,
    "block": 16,
    "seed": 7,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("networks")
    features, lpips = scripted.features(folder), scripted.perceptual(folder)
    return {
        "features": features.path,
        "features_sha256": features.sha256,
        "lpips": lpips.path,
        "lpips_sha256": lpips.sha256,
        "dists": lpips.path,
        "dists_sha256": lpips.sha256,
    }


@pytest.fixture
def codec(codec_run: Path, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(codec_run, tmp_path / "codec")))


@pytest.fixture
def generator(generator_run: Path, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(generator_run, tmp_path / "generator")))


def entered(run: Run, name: str = "metrics", **chosen: Any) -> Evaluation:
    return Evaluation.find(run, name, plan.make(run, **{**SMALL, **chosen})).enter()


def measure(evaluation: Evaluation, processes: int) -> None:
    """Make every missing part."""
    maker = partial(work.open_maker, evaluation.path)
    make_parts(maker, evaluation.missing(), processes)


def measured(run: Run, name: str = "metrics", **chosen: Any) -> dict[str, Any]:
    measurement = entered(run, name, **chosen)
    measure(measurement, 1)
    results.collect(measurement, require_all=True)
    return json.loads(measurement.result.read_text())  # type: ignore[no-any-return]


def values(content: dict[str, Any]) -> dict[str, float]:
    return {name: entry["value"] for name, entry in content["metrics"].items()}


def test_values_are_those_of_a_plain_loop(codec: Run, photos: Path, nets: dict[str, Any]) -> None:
    """Each image alone, with everything held in memory."""
    found = measured(codec, metrics=ALL, samples=20, **nets)
    split = shards.open_set(photos).split("test")
    images = torch.from_numpy(np.stack([split.image(i) for i in range(47)])).permute(0, 3, 1, 2)
    images = images.contiguous()
    system = codec.system()

    def one(row: int) -> Batch:
        return Batch(
            images[row : row + 1], torch.tensor([row]), torch.tensor([row]), torch.tensor([-1])
        )

    def alone(row: int, draw: int) -> torch.Tensor:
        made = system.reconstruct(one(row), ItemDraws.of(7, ("reconstruct", draw), [row]))
        assert made is not None
        return made

    def sampled(purpose: str, draw: int, count: int) -> torch.Tensor:
        keyed = [ItemDraws.of(7, (purpose, draw), [i]) for i in range(count)]
        made = [system.sample(draws, like=one(i)) for i, draws in enumerate(keyed)]
        return torch.cat([image for image in made if image is not None])

    def latent(row: int) -> torch.Tensor:
        assert isinstance(system, ReconstructingSystem)
        keyed = ItemDraws.of(7, ("reconstruct", 0), [row])
        return system.encode(system.networks, to_signed(images[row : row + 1]), keyed).flatten(1)

    def prior_sample(row: int) -> torch.Tensor:
        assert isinstance(system, ReconstructingSystem) and system.prior is not None
        keyed = ItemDraws.of(7, ("prior", 0), [row])
        return system.prior.sample(keyed, torch.float32).flatten(1)

    with evaluation_mode(system.networks):
        latents, prior = (torch.cat([of(i) for i in range(47)]) for of in (latent, prior_sample))
        draws = [torch.cat([alone(row, k) for row in range(47)]) for k in range(3)]
        zero = [sampled("rate0", k, 47) for k in range(3)]
        samples = sampled("sample", 0, 20)
        net = torch.jit.load(str(nets["features"]))
        reference, made, first_zero, drawn = (
            net(x).detach() for x in (images, draws[0], zero[0], samples)
        )

    def fid(x: torch.Tensor) -> float:
        sums = [frechet.FeatureSums(scripted.DIMENSION) for _ in range(2)]
        for one, features in zip(sums, (reference, x), strict=True):
            one.add(features)
        return frechet.distance(*(one.gaussian() for one in sums))

    def kid(x: torch.Tensor) -> float:
        paired = len(x) == len(reference)
        return kernel.subset_distance(reference.numpy(), x.numpy(), paired).value

    theta = sliced_wasserstein.directions(3 * 64 * 64, seed=7)
    sliced = [(x.flatten(1).double().numpy() / 255 @ theta).T for x in (images, draws[0])]
    errors = pixels.squared_error(images, draws[0]).tolist()
    mse = float(np.mean(errors))
    expected = {
        "swd": np.mean([stats.wasserstein_distance(*pair) for pair in zip(*sliced, strict=True)]),
        "mse": mse,
        "psnr": psnr(mse),
        "mean_psnr": np.mean([psnr(one) for one in errors]),
        "ms_ssim": ssim.ms_ssim(images, draws[0]).mean().item(),
        "lpips": (images.double() - draws[0].double()).abs().mean().item() / 127.5,
        "dists": (images.double() - draws[0].double()).abs().mean().item() / 255,
        "pv": torch.stack(draws).double().var(0, unbiased=False).mean().item() / 127.5**2,
        "rate0_mse": np.mean([pixels.squared_error(images, z).mean().item() for z in zero]),
        "rate0_pv": torch.stack(zero).double().var(0, unbiased=False).mean().item() / 127.5**2,
        "mmd": mmd(latents.double(), prior.double()).item(),
        "nominal_bpp": 2 * 16 / 4096,
        "rfd": fid(made),
        "rate0_rfd": fid(first_zero),
        "sfd": fid(drawn),
        "rkd": kid(made),
        "rate0_rkd": kid(first_zero),
        "skd": kid(drawn),
    }
    # A pixel may round to the other side of a half in a batch of another size.
    assert values(found) == pytest.approx(expected, rel=1e-4, abs=1e-7)
    for name, entry in found["metrics"].items():
        if name != "nominal_bpp":
            low, high = entry["interval"]
            assert low <= entry["value"] * (1 + 1e-12) and entry["value"] <= high * (1 + 1e-12)
            assert entry["images"] == 47
    assert found["metrics"]["sfd"]["samples"] == 20
    assert found["metrics"]["mmd"]["samples"] == 47
    assert found["metrics"]["pv"]["draws"] == 3
    assert found["complete"] is True and found["images"] == 47


def test_what_was_made_for_an_image_is_not_compared_with_it(
    codec: Run, nets: dict[str, Any]
) -> None:
    """Samples are paired too where there are as many: they may have the maps of images."""
    some = {"metrics": ("kid",), "features": nets["features"], "images": 12}
    some |= {"features_sha256": nets["features_sha256"], "samples": 12}
    found = measured(codec, block=12, **some)
    evaluation = Evaluation.open(codec.path / "evaluations" / "metrics")
    (tensors, _), (samples, _) = (parts.read_part(evaluation, block) for block in (0, 1))
    images = tensors["features/images"].numpy()
    for name, made in (
        ("rkd", tensors["features/reconstructions"]),
        ("skd", samples["features/samples"]),
    ):
        paired = kernel.subset_distance(images, made.numpy(), True)
        entry = found["metrics"][name]
        assert entry["value"] == pytest.approx(paired.value, rel=1e-12)
        assert entry["interval"] == pytest.approx(paired.interval)


def test_reconstructions_of_files_are_what_real_files_decode_to(
    codec: Run, photos: Path, nets: dict[str, Any]
) -> None:
    some = {"metrics": tuple(m for m in ALL if m != "mmd"), "images": 6, "samples": 0, **nets}
    found = measured(codec, "files", reconstructions="files", batch_size=4, block=4, **some)
    writer, split = codec.system().codec(), shards.open_set(photos).split("test")
    assert writer is not None
    rows = [i * 47 // 6 for i in range(6)]
    streams = [writer.compress(Picture(split.image(row), index=row)) for row in rows]
    decoded = [
        np.stack([writer.decompress(one, draw=draw) for one in streams]) for draw in range(3)
    ]
    images = np.stack([split.image(row) for row in rows])
    mse = float(np.square(images.astype(float) - decoded[0]).mean() / 127.5**2)
    assert found["metrics"]["mse"]["value"] == pytest.approx(mse, rel=1e-12)
    pv = float(np.stack(decoded).astype(float).var(0).mean() / 127.5**2)
    assert pv > 0 and found["metrics"]["pv"]["value"] == pytest.approx(pv, rel=1e-9)
    bits = sum(writer.code_bits(stream) for stream in streams) / 6 / 64**2
    assert found["metrics"]["bpp"]["value"] == pytest.approx(bits, rel=1e-12)
    size = 8 * sum(map(len, streams)) / 6 / 64**2
    assert found["metrics"]["file_bpp"]["value"] == pytest.approx(size, rel=1e-12)

    # Their features, but not those of the images, are others than those of the networks' images.
    plain = measured(codec, "plain", batch_size=4, block=4, **some)
    assert found["metrics"]["rkd"] != plain["metrics"]["rkd"]
    assert found["metrics"]["rate0_mse"] == plain["metrics"]["rate0_mse"]
    assert "bpp" not in plain["metrics"]
    assert found["protocol"]["hash"] != plain["protocol"]["hash"]
    assert "real file" in found["protocol"]["rules"]["reconstructions"]
    assert found["protocol"]["reader"] == writer.reader_fingerprint.hex()


def test_both_kinds_of_reconstructions_are_never_merged(codec: Run, generator: Run) -> None:
    networks = entered(codec, "one", images=4)
    chosen = plan.make(codec, **{**SMALL, "images": 4, "reconstructions": "files"})
    with pytest.raises(InputError, match="reconstructions was 'networks', would be 'files'"):
        Evaluation.find(codec, "one", chosen)
    files = Evaluation.find(codec, "two", chosen).enter()
    for measurement in (networks, files):
        measure(measurement, 1)
    shutil.copy(networks.part(0), files.part(0))
    with pytest.raises(InputError, match="belongs to another evaluation"):
        results.collect(files)
    other = files.plan.model_copy(update={"reader": "00"})
    with pytest.raises(InputError, match="has another codec than the protocol"):
        work.open_context(Evaluation(files.path, other))
    with pytest.raises(InputError, match="shows no latents with --reconstructions files: no mmd"):
        plan.make(codec, **{**SMALL, "metrics": ("mmd",), "reconstructions": "files"})
    with pytest.raises(InputError, match=r"has no codec: no --reconstructions files"):
        plan.make(generator, **{**SMALL, "reconstructions": "files"})


def test_plans_from_before_the_choice_of_reconstructions_keep_their_hash(codec: Run) -> None:
    made = plan.make(codec, **SMALL)
    identity = made.identity()
    assert "reconstructions" not in identity and "reader" not in identity
    assert "mean_psnr" in made.rules and "mean_psnr" not in identity["rules"]


def test_the_zero_rate_identity_holds(codec: Run) -> None:
    """The error is what draws and images have in common by chance, here below 1 %."""
    identity = measured(codec, metrics=("rate0",), draws=8)["zero_rate_identity"]
    assert identity["mse"] == pytest.approx(identity["right_side"], rel=0.01)
    assert identity["right_side"] == pytest.approx(
        identity["variance_of_images"]
        + identity["variance_of_draws"]
        + identity["distance_of_means"]
    )


def test_a_deterministic_reconstruction_has_no_variance(generator: Run) -> None:
    found = measured(generator, metrics=("pv",))["metrics"]["pv"]
    assert (found["value"], found["interval"]) == (0, [0, 0])


def test_batches_and_blocks_do_not_matter(codec: Run, nets: dict[str, Any]) -> None:
    """Only rounding differs: noise belongs to images, and sums merge."""
    some = {"metrics": ("mse", "ms_ssim", "pv", "fid", "kid", "rate0", "mmd"), **nets}
    found = [
        values(measured(codec, name, batch_size=batch, block=block, **some))
        for name, batch, block in (("a", 8, 16), ("b", 3, 7), ("c", 47, 47), ("d", 1, 8))
    ]
    for other in found[1:]:
        assert found[0] == pytest.approx(other, rel=1e-4)


def test_blocks_of_one_image(codec: Run, nets: dict[str, Any]) -> None:
    """Each is a part of its own; distances wait until there are two images."""
    some = {"metrics": ("mse", "fid", "kid", "mmd"), "images": 5, "samples": 4, **nets}
    measurement = entered(codec, "ones", block=1, **some)
    assert [len(block.items) for block in measurement.plan.blocks] == [1] * 9
    place = work.open_context(measurement)
    work.make_part(place, 0)
    first = results.collect(measurement).content
    assert set(first["metrics"]) == {"mse", "nominal_bpp"} and first["images"] == 1
    assert first["warnings"] == [
        "rfd and rkd are left out: they need two images or more",
        "mmd is left out: it needs two images or more",
    ]
    work.make_part(place, 5)
    warnings = results.collect(measurement).content["warnings"]
    assert "sfd and skd are left out: they need two samples or more" in warnings
    ones = measured(codec, "ones", block=1, **some)
    assert values(ones) == pytest.approx(values(measured(codec, "whole", **some)), rel=1e-4)


def test_one_image_has_values_without_intervals(codec: Run, nets: dict[str, Any]) -> None:
    some = {"metrics": ("mse", "psnr", "ms_ssim", "pv", "lpips", "dists", "rate0")}
    found = measured(codec, images=1, **some, **nets)["metrics"]
    assert found.pop("nominal_bpp").keys() == {"value"}
    assert {"mse", "mean_psnr", "pv", "rate0_mse"} < set(found)
    for entry in found.values():
        assert entry["interval"] is None and entry["images"] == 1 and np.isfinite(entry["value"])
    # The same image alone and among others: its draws belong to it.
    both = measured(codec, "both", images=2, block=1, **some, **nets)
    assert values(both)["mse"] != found["mse"]["value"]
    measurement = entered(codec, "first", images=2, block=1, **some, **nets)
    work.make_part(work.open_context(measurement), 0)
    first = results.collect(measurement).content["metrics"]
    assert first["mse"] == found["mse"]
    shown = results.shown(measurement, results.collect(measurement))
    assert "unknown" in {row[3] for row in shown.tables[0].rows}
    for metric in ("fid", "kid"):
        with pytest.raises(InputError, match=f"--images is 1, .*: leave {metric} out of --metrics"):
            plan.make(codec, **{**SMALL, "images": 1, "metrics": ("mse", metric), **nets})


def test_batch_statistics_need_two_images(
    photos: Path, generator_run: Path, tmp_path: Path
) -> None:
    raw = tiny.generator(photos, {"training.steps": 1, "networks.bn_mode": "batch"})
    run, _ = tiny.trained(tmp_path / "run", raw)
    for chosen in ({"images": 1}, {"batch_size": 1}, {"block": 1}):
        option = f"--{next(iter(chosen)).replace('_', '-')}"
        with pytest.raises(
            InputError, match=f"{option} is 1, but .*bn_mode batch of run .* need 2"
        ):
            plan.make(run, **{**SMALL, **chosen})
        plan.make(Run(generator_run), **{**SMALL, **chosen})


def test_fewer_images_are_spread_over_the_split(generator: Run) -> None:
    measurement = entered(generator, images=5)
    assert measurement.plan.rows == (0, 9, 18, 28, 37)
    assert values(measured(generator, images=5))["mse"] > 0


def test_no_batch_has_a_single_image_unless_asked_for() -> None:
    for items in range(2, 60):
        for size in range(2, 20):
            lengths = [len(part) for part in plan.divided(range(items), size)]
            assert sum(lengths) == items
            assert min(lengths) >= 2
            assert max(lengths) <= max(size, 3)
        assert [len(part) for part in plan.divided(range(items), 1)] == [1] * items
    assert plan.divided(range(0), 5) == plan.divided(range(0), 1) == []


def test_what_is_there_is_not_made_again(generator: Run) -> None:
    measurement = entered(generator)
    place = work.open_context(measurement)
    work.make_part(place, 1)
    stamp = measurement.part(1).stat().st_mtime_ns
    assert measurement.missing() == [0, 2]
    partial = results.collect(measurement)
    assert partial.missing == [0, 2]
    assert (partial.content["complete"], partial.content["images"]) == (False, 16)
    with pytest.raises(InputError, match="lacks 2 of 3 blocks"):
        results.collect(measurement, require_all=True)
    measure(measurement, 1)
    assert measurement.part(1).stat().st_mtime_ns == stamp


def test_what_stops_between_batches_leaves_nothing_half_made(generator: Run) -> None:
    measurement = entered(generator)

    def stop(items: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.make_part(work.open_context(measurement), 0, stop)
    assert measurement.missing() == [0, 1, 2]
    with pytest.raises(InputError, match="no finished block of images yet"):
        results.collect(measurement)


def test_parts_of_another_protocol_are_refused_by_name(generator: Run) -> None:
    one, two = entered(generator, "one"), entered(generator, "two", seed=8)
    for measurement in (one, two):
        measure(measurement, 1)
    shutil.copy(two.part(0), one.part(0))
    with pytest.raises(InputError, match=r"block-00000.safetensors belongs to another evaluation"):
        results.collect(one)
    with pytest.raises(InputError, match="seed was 7, would be 8 "):
        Evaluation.find(generator, "one", two.plan)
    shutil.copy(two.part(1), two.part(0))
    with pytest.raises(InputError, match="its block is 1, not 0"):
        results.collect(two)
    assert not one.result.exists()


def test_a_damaged_part_is_named(generator: Run) -> None:
    measurement = entered(generator)
    measure(measurement, 1)
    part = measurement.part(1)
    tiny.flip(part, at=part.stat().st_size - 3)
    with pytest.raises(InputError, match=r"block-00001.safetensors is damaged: .* remove it"):
        results.collect(measurement)
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"block-00001.safetensors cannot be read"):
        results.collect(measurement)


def test_a_part_of_the_wrong_length_is_refused(generator: Run) -> None:
    measurement = entered(generator)
    measure(measurement, 1)
    tensors, metadata = parts.read_part(measurement, 0)
    short = {name: tensor[1:] for name, tensor in tensors.items()}
    tensor_files.write(measurement.part(0), short, metadata)
    with pytest.raises(InputError, match=r"holds 14 values of ms_ssim, not 15"):
        results.collect(measurement)


def test_changed_weights_and_networks_are_refused(generator: Run, nets: dict[str, Any]) -> None:
    measurement = entered(generator, **nets)
    other = measurement.plan.model_copy(update={"weights": "0" * 32})
    with pytest.raises(InputError, match="has other weights"):
        work.open_context(Evaluation(measurement.path, other))
    other = measurement.plan.model_copy(update={"data": "0" * 32})
    with pytest.raises(InputError, match="is another one than in the protocol"):
        work.open_context(Evaluation(measurement.path, other))
    moved = Path(shutil.copy(nets["lpips"], generator.path / "net.pt"))
    other = measurement.plan.model_copy(update={"features_file": str(moved)})
    with pytest.raises(InputError, match=r"net\.pt has the SHA-256"):
        work.open_context(Evaluation(measurement.path, other))


def test_networks_and_data_may_move(generator: Run, nets: dict[str, Any], tmp_path: Path) -> None:
    first = entered(generator, **nets)
    moved = Path(shutil.copy(nets["features"], tmp_path / "elsewhere.pt"))
    second = entered(generator, **{**nets, "features": moved})
    assert second.plan.hash == first.plan.hash
    assert plan.Evaluation.open(first.path).plan.features_file == str(moved)


def test_few_images_for_many_features_are_warned_of(generator: Run, nets: dict[str, Any]) -> None:
    found = measured(generator, metrics=("fid",), images=5, samples=0, **nets)
    (warning,) = found["warnings"]
    assert warning.startswith("rfd compares 5 with 5 images of 6 features")
    assert found["metrics"]["rfd"]["value"] > 0


def test_distances_are_called_fid_and_kid_for_inception_alone(
    generator: Run, nets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_inputs, "INCEPTION_SHA256", nets["features_sha256"])
    some = {"metrics": ("fid", "kid"), "samples": 9, **nets}
    assert set(values(measured(generator, **some))) == {"rfid", "sfid", "rkid", "skid"}


def test_distances_by_a_network_that_a_package_ships(codec: Run) -> None:
    name = "efficientnet-lite0"
    some = {"metrics": ("fid", "kid"), "images": 6, "samples": 0, "features": Path(name)}
    found = measured(codec, **some)
    assert set(found["metrics"]) == {"rfd", "rkd", "nominal_bpp"}
    assert found["metrics"]["rfd"]["value"] > 0
    protocol = found["protocol"]
    assert protocol["features_file"] == name
    assert protocol["settings"]["features"] == feature_inputs.PACKAGED[name]
    assert protocol["rules"]["features"].startswith("EfficientNet-Lite0 trained on ImageNet")
    with pytest.raises(InputError, match=f"--features {name} resizes images itself: leave"):
        plan.make(codec, **{**SMALL, **some, "features_input": "signed-299"})


def test_the_result_carries_its_protocol(codec: Run, nets: dict[str, Any]) -> None:
    content = measured(codec, metrics=("fid", "ms_ssim"), samples=0, **nets)
    protocol = content["protocol"]
    final = codec.final_checkpoint()
    assert protocol["weights"] == final.networks_hash()
    assert protocol["settings"]["features"] == nets["features_sha256"]
    assert protocol["stored"]["storage"] == "png"
    assert protocol["rules"]["features"].startswith("uint8 at its own size")
    assert protocol["rules"]["ms_ssim"].endswith("scales 0.071055, 0.452974, 0.475971")
    (made_by,) = protocol["versions"]
    assert made_by == provenance.of_part() and {"commit", "dirty", "cpu"} <= set(made_by)
    assert content["environment"] == [provenance.environment()]


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"metrics": ("fid",)}, "need a feature network: name it by --features"),
        ({"metrics": ("lpips",)}, "lpips needs a network: name it by --lpips"),
        ({"metrics": ("dists",)}, "dists needs a network: name it by --dists"),
        ({"metrics": ("pv",), "draws": 1}, "--draws is 1, but pv and rate0 need two"),
        ({"images": 48}, "has 47 images, fewer than the 48"),
        ({"images": 0}, "--images is 0, but it should be greater than or equal to 1"),
        ({"images": 1, "metrics": ("mse", "swd", "mmd")}, "more: leave swd, mmd out of --metrics"),
        ({"samples": 5}, "is asked for neither fid nor kid"),
        ({"batch_size": 0}, "--batch-size is 0, but it should be greater than or equal to 1"),
        ({"block": 0}, "--block is 0, but it should be greater than or equal to 1"),
        ({"metrics": ()}, "--metrics is"),
        ({"features_sha256": "0" * 64}, "--features-sha256 needs the file"),
        ({"features": Path("nowhere.pt")}, "--features nowhere.pt cannot be read"),
    ],
)
def test_bad_settings_are_one_sentence(
    generator_run: Path, chosen: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        plan.make(Run(generator_run), **{**SMALL, **chosen})


def test_what_a_run_cannot_do_is_refused(
    photos: Path, tmp_path: Path, nets: dict[str, Any]
) -> None:
    raw = tiny.generator(photos, {"training.steps": 1})
    raw |= {"stage": "wgan_gp", "loss": {}}
    sampler, _ = tiny.trained(tmp_path / "sampler", raw)
    with pytest.raises(InputError, match="reconstructs nothing: no mse"):
        plan.make(sampler, **{**SMALL, "metrics": ("mse",)})
    with pytest.raises(InputError, match="has no latents with a prior to compare them with"):
        plan.make(sampler, **{**SMALL, "metrics": ("mmd",)})
    with pytest.raises(InputError, match="--metrics is"):
        plan.make(sampler, **SMALL)
    features = {k: v for k, v in nets.items() if k.startswith("features")}
    assert set(values(measured(sampler, samples=9, **features))) == {"sfd", "skd"}


def test_parse_metrics() -> None:
    assert parse_metrics("psnr, mse") == ("mse", "psnr")
    with pytest.raises(InputError, match="'ssim' is not one of mse, psnr"):
        parse_metrics("mse,ssim")


def test_features_are_gathered_across_parts(codec: Run, nets: dict[str, Any]) -> None:
    measurement = entered(codec, metrics=("kid",), samples=0, **nets)
    measure(measurement, 1)
    files = [measurement.part(i) for i in range(3)]
    rows = [np.ones(count, np.int64) for count in (15, 16, 16)]
    stored = parts.StoredFeatures("images", files, rows)
    whole = torch.cat(list(stored.blocks())).numpy()
    items = kernel.members(1, 3, 47)
    assert np.array_equal(stored.at(items), whole[1::3])
