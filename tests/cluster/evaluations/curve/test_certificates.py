"""What is known of a curve's error: gaps of simulated images, bounds for the measured ones."""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.evaluations.curve import certificates
from cluster.evaluations.curve.certify import open_certification
from cluster.evaluations.curve.context import open_context
from cluster.evaluations.curve.parts import read as read_part
from cluster.evaluations.curve.pilot import open_tuner
from cluster.evaluations.curve.plan import Evaluation, Plan, make, make_for_model
from cluster.evaluations.curve.results import collect, shown
from cluster.evaluations.curve.settings import (
    CertificateOptions,
    CurveOptions,
    PilotOptions,
    SamplerOptions,
    complete,
    settings,
)
from cluster.evaluations.decoders import OfModel
from cluster.runs import Run
from gencomp.errors import InputError
from gencomp.evaluation import intervals
from gencomp.rate_distortion.bdmc import Gap
from gencomp.rate_distortion.certificate import GROUPS, TRANSITIONS
from slurm.kinds.curve import CurveJobs
from tests.curves import SMALL, Evaluate, finish, measure, parts

CERTIFY: dict[str, Any] = {
    "images": 2,
    "block": 2,
    "certify": True,
    "certify_betas": (0.02, 0.1),
    "certify_starts": 2,
}
BDMC: dict[str, Any] = {"images": 2, "block": 2, "bdmc_images": 3, "bdmc_betas": (0.1,)}


MODEL = """
import torch
from torch import nn

class Certified(nn.Module):
    latent_dim = 2
    value_range = (-1, 1)

    def __init__(self):
        super().__init__()
        self.decode = nn.Sequential(nn.Linear(2, 3 * 64 * 64))
        weight = torch.linspace(0, 9, 2 * 3 * 64 * 64).sin().view(-1, 2)
        self.decode[0].weight.data = 0.1 * weight
        self.decode[0].bias.data.zero_()
"""


@pytest.fixture(scope="module")
def linear(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """An entered evaluation of a linear decoder after its pilot."""
    folder = tmp_path_factory.mktemp("linear")
    (folder / "certified_model.py").write_text(MODEL)
    model = OfModel(reference="certified_model:Certified", weights=None, directory=str(folder))

    def enter(name: str | None = None, **own: Any) -> Evaluation:
        chosen = {**SMALL, "temperatures": 60, "chains": 8, "leapfrog": 4, **own}
        plan = make_for_model(model, str(photos), settings(**chosen))
        directory = folder / (name or tempfile.mkdtemp(dir=folder))
        evaluation = Evaluation.find_at(directory, plan).enter()
        finish(open_tuner(evaluation))
        return evaluation

    return enter


def every(evaluation: Evaluation) -> Evaluation:
    measure(evaluation, tuple(range(len(evaluation.plan.blocks))))
    return evaluation


def test_measured_images_are_certified(linear: Evaluate) -> None:
    evaluation = every(linear(**CERTIFY))
    assert [block.kind for block in evaluation.plan.blocks] == [
        *("measure", "repeat", "certify", "certify")
    ]
    jobs = CurveJobs(evaluation)
    assert [jobs.stage(block) for block in range(4)] == ["measure", *["certify"] * 3]
    assert evaluation.block_steps(2) == 1 + TRANSITIONS

    content = collect(evaluation, require_all=True).means
    points = {point["temperature"]: point for point in content["points"]}
    for one, asked in zip(content["certificate"], (0.02, 0.1), strict=True):
        point = points[one["temperature"]]
        assert (one["asked"], one["beta"], one["of"]) == (asked, point["beta"], "measured images")
        assert one["log_z_annealed"] == pytest.approx(point["log_z"])
        assert one["missed"] == pytest.approx(one["log_z_from_modes"] - one["log_z_annealed"])
        assert one["missed_at_least"] < one["missed"]
        assert [image["image"] for image in one["by_image"]] == list(evaluation.plan.rows)
        assert one["modes"] >= 1 and 1 <= one["ess"] <= 8 and 0.3 < one["acceptance"] <= 1
        # Nothing is hidden from chains in this decoder, and both kinds of chains find the same.
        assert one["flagged"] == one["silent"] == []
        assert abs(one["missed"]) < 1
        differences = [i["log_z_other_seed"] - i["log_z_annealed"] for i in one["by_image"]]
        assert (
            0
            < one["spread_over_seeds"]
            == pytest.approx(math.sqrt(np.square(differences).mean() / 2))
        )
        assert one["greatest_difference_of_seeds"] == pytest.approx(max(map(abs, differences)))
    found = shown(evaluation, collect(evaluation))
    table = found.tables[-1]
    assert table.title == "Certificate by chains from modes, on the measured images"
    assert [row[0] for row in table.rows] == [f"{o['beta']:.4g}" for o in content["certificate"]]
    assert not found.warnings


def lowered(path: Path, nats: float, image: int) -> None:
    """Make a part claim less of log Z for one image."""
    table, metadata = read_part(path)
    log_z = np.where(table["image"].to_numpy() == image, nats, 0) * -1.0 + table["log_z"].to_numpy()
    place = table.column_names.index("log_z")
    table = table.set_column(place, table.schema.field("log_z"), pa.array(log_z))
    table = table.replace_schema_metadata({"gencomp": json.dumps(metadata)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    path.write_bytes(buffer.getvalue())


def test_an_image_of_which_the_curve_misses_most_is_flagged(linear: Evaluate) -> None:
    evaluation = every(linear(**{**CERTIFY, "certify_betas": (0.1,)}))
    first, second = evaluation.plan.rows
    lowered(evaluation.part(0), 106.0, second)
    curve = collect(evaluation)
    (one,) = curve.means["certificate"]
    assert one["flagged"] == [second] and one["worst_image"] == second
    assert one["worst_missed_at_least"] == pytest.approx(106, abs=2)
    assert one["missed_at_least"] == pytest.approx(53, abs=2)
    assert one["greatest_difference_of_seeds"] == pytest.approx(106, abs=2)
    (warning,) = shown(evaluation, curve).warnings
    assert "for 1 of 2 images rate + beta · distortion is too high by more than 1 nat" in warning
    assert f"for image {second}" in warning and "99% confidence" in warning
    # Where chains from modes find less than the curve, they say nothing, and that is counted.
    lowered(evaluation.part(2), 50.0, first)
    (one,) = collect(evaluation).means["certificate"]
    assert one["silent"] == [first] and one["flagged"] == [second]


def test_a_block_resumes_bit_identically(linear: Evaluate) -> None:
    chosen = {**CERTIFY, "certify_betas": (0.1,)}
    whole, stopped = every(linear("whole", **chosen)), linear("stopped", **chosen)
    measure(stopped, (0, 1))
    for steps in (0, 1, 4):  # before the search, just behind it, and between two temperatures
        work = open_certification(open_context(stopped), 2)
        assert work.steps == {0: 0, 1: 0, 4: 1}[steps]
        while work.steps < steps:
            work.advance()
        work.save()
    assert work.ess is not None
    finish(open_certification(open_context(stopped), 2))
    assert not list((stopped.path / "chains").glob("block-*"))
    assert parts(stopped) == parts(whole)


def test_a_part_has_a_row_for_each_image_and_group(linear: Evaluate) -> None:
    evaluation = every(linear(**{**CERTIFY, "certify_betas": (0.1,)}))
    table, metadata = read_part(evaluation.part(2))
    assert table["image"].to_pylist() == [r for r in evaluation.plan.rows for _ in range(GROUPS)]
    assert len(metadata["modes"]) == 2
    for row in table.to_pylist():
        assert row["log_z"] == pytest.approx(-row["rate"] - row["beta"] * row["distortion"])


def test_partly_certified_images_are_counted(linear: Evaluate) -> None:
    evaluation = linear(**{**CERTIFY, "block": 1, "certify_betas": (0.1,)})
    measure(evaluation, (0, 1, 4))
    content = collect(evaluation).means
    (one,) = content["certificate"]
    assert one["images"] == 1 and "spread_over_seeds" not in one
    assert one["missed_standard_error"] is None and one["missed_interval"] is None
    assert content["complete"] is False
    rows = shown(evaluation, collect(evaluation)).tables[-1].rows
    assert rows[0].count("unknown") == 2


def test_a_run_suggests_latents_by_its_encoder(tuned: Evaluate) -> None:
    context = open_context(tuned())
    rows = context.plan.rows[:2]
    found = context.suggested(rows)
    assert found is not None and found.shape == (2, 4, context.decoder.latent_dim)
    d_IS, _ = context.images(rows).value_and_grad(found)
    d_IM, _ = context.images(rows).value_and_grad(context.decoder.prior.draw(1, rows, 64).float())
    assert d_IS.mean() != d_IM.mean()


def test_plans_without_a_certificate_keep_their_identity(run: Run) -> None:
    plain, certified = (make(run, settings(**{**SMALL, **own})) for own in ({}, CERTIFY))
    assert not [name for name in plain.identity() if name.startswith("certify")]
    assert certified.identity()["certify_betas"] == [0.02, 0.1]
    assert Plan.model_validate_json(certified.model_dump_json()) == certified


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"certify": True}, "--certify and --certify-betas need each other"),
        ({"certify_betas": (0.1,)}, "--certify and --certify-betas need each other"),
        ({**CERTIFY, "certify_betas": (0.2,)}, "--certify-betas goes to 0.2, beyond --beta-max"),
        ({**CERTIFY, "certify_seed": 7}, "certify_seed must differ from seed and tuning_seed"),
        ({**CERTIFY, "certify_starts": 0}, "--certify-starts is 0, but"),
    ],
)
def test_settings_that_do_not_fit_are_refused(own: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        settings(**{**SMALL, **own})


def test_betas_of_a_certificate_have_defaults() -> None:
    options = (CurveOptions(beta_max=20.0), SamplerOptions(), PilotOptions())
    keys: dict[str, Any] = {"features": None, "threads": 1}
    asked = complete(*options, CertificateOptions(certify=True), **keys)
    assert asked.certify_betas == asked.bdmc_betas == (0.2, 2.0, 20.0)
    assert asked.bdmc_images == 16
    assert complete(*options, CertificateOptions(), **keys).certify_betas == ()


def test_every_simulated_image_keeps_its_gap(linear: Evaluate) -> None:
    evaluation = every(linear(**BDMC))
    content = collect(evaluation).means
    (one,) = content["bdmc"]
    gaps = [image["gap"] for image in one["by_image"]]
    assert [image["image"] for image in one["by_image"]] == [0, 1, 2]
    for image in one["by_image"]:
        assert image["gap"] == pytest.approx(image["backward"] - image["forward"])
    assert one["gap"] == pytest.approx(np.mean(gaps))
    assert one["worst_gap"] == max(gaps) == gaps[one["worst_image"]]
    assert one["gap_interval"] == pytest.approx(intervals.of_mean(np.array(gaps)))
    assert one["of"] == "simulated images"
    assert one["rate"] == pytest.approx(content["points"][-1]["rate"])
    assert shown(evaluation, collect(evaluation)).tables[-1].title == (
        "BDMC gap, on simulated images"
    )


@pytest.mark.parametrize(
    ("gap", "error", "rate", "words"),
    [
        (10.05, 1.7, 107, r"10\.1 ± 1\.7 nats, 9% of the curve's rate there \(107 nats\)"),
        (0.3, 0.05, 28, r"0\.3 ± 0\.05 nats, 6\.0 standard errors above 0"),
        (-0.4, 0.1, 28, r"-0\.4 ± 0\.1 nats, which cannot be negative"),
        (0.3, 0.15, 28, None),
        (-0.2, 0.1, 28, None),
    ],
)
def test_large_gaps_are_warned_of(gap: float, error: float, rate: float, words: str | None) -> None:
    one = {"beta": 10.0, "gap": gap, "gap_standard_error": error, "rate": rate}
    found = certificates.gap_warnings([one])
    if words is None:
        assert found == []
    else:
        (sentence,) = found
        assert re.search(words, sentence), sentence


def test_intervals_of_gaps_cover_what_they_say() -> None:
    """The coverage is 0.95 for 2, 4 and 16 normal gaps: 4,000 each, 4 standard errors (2e-4)."""
    import torch

    generator = np.random.default_rng(5)
    for images in (2, 4, 16):
        gaps_RI = torch.from_numpy(generator.normal(0.7, 1.0, (4_000, images)))
        ends = [Gap(1.0, torch.zeros(images).double(), gap_I).interval for gap_I in gaps_RI]
        covered = np.mean([low <= 0.7 <= high for low, high in ends])
        assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4_000))


def test_the_error_of_a_single_image_is_unknown(linear: Evaluate) -> None:
    evaluation = every(linear(images=1))
    curve = collect(evaluation)
    for point in curve.means["points"]:
        for name in ("rate", "distortion", "lagrangian", "bpp", "mse"):
            assert point[f"{name}_standard_error"] is None
            assert point[f"{name}_interval"] is None
    table = shown(evaluation, curve).tables[0]
    places = [i for i, heading in enumerate(table.header) if heading == "± s.e."]
    assert all(row[i] == "unknown" for row in table.rows for i in places)
