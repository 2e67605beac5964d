"""How the numbers of data, runs and curves came about, as pairs of a name and a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster import provenance
from cluster.evaluations.curve.plan import Evaluation
from cluster.files import read_json
from cluster.results import curve_tables
from cluster.runs import Run
from gencomp.report import Curve
from gencomp.report.markup import count as whole
from shards.reading.reader import ShardSet

Pairs = list[tuple[str, str]]


def weights_of(run: Run) -> str:
    """The hash of the weights of a run's chosen checkpoint, which is the newest one by default.

    Raises:
        InputError: the run has no such checkpoint.
    """
    return run.chosen_checkpoint().networks_hash()


def of_data(shard_set: ShardSet, run: Run) -> Pairs:
    """The data of a run, and the meaning of errors and rates on them."""
    splits = ", ".join(f"{name} {whole(count)}" for name, count in shard_set.splits.items())
    settings = run.recipe().evaluation
    which = f"its first {settings.limit} images" if settings.limit else "all images"
    return [
        ("data set", shard_set.info.name),
        ("index hash", shard_set.index_hash),
        ("images", splits),
        ("transform", shard_set.info.transform.geometry),
        ("storage", shard_set.info.transform.storage),
        ("evaluated on", f"{settings.split}, {which}"),
        ("distortion", "squared error of RGB values on [−1, 1], mean per value"),
        ("PSNR", "10·log10(4/MSE), of the mean MSE"),
        (
            "rate of codecs",
            "measured on real files: bits of code, and all bits of joint containers; nominal where"
            " a table says so: symbols at the fixed length",
        ),
    ]


def of_run(run: Run) -> Pairs:
    """How a run was trained, with the hash of its weights first."""
    recipe, result = run.recipe(), run.result() or {}
    environment = read_json(run.path / provenance.FILE) or {}
    return [
        ("weights", weights_of(run)),
        ("stage", f"{recipe.system}/{recipe.stage}"),
        ("length", f"{whole(result['step'])} steps" if "step" in result else "not finished"),
        ("seed", str(recipe.training.seed)),
        ("batch", f"{recipe.data.batch_size} images"),
        *of_environment(environment),
    ]


def of_environment(environment: Mapping[str, Any]) -> Pairs:
    """The code, command line, processor and software of a record; older records have less."""
    found = dict(environment)
    commit, dirty = found.pop("commit", provenance.UNKNOWN), found.pop("dirty", None)
    changed = " with uncommitted changes" if dirty else ""
    flags = found.pop("cpu_flags", "")
    processor = " ".join(str(found.pop(key, "")) for key in ("cpu", "cpu_capability"))
    pairs = [
        ("code", f"commit {commit}{changed}"),
        ("command", found.pop("command", "")),
        ("processor", f"{processor} ({flags})" if flags else processor.strip()),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    return [(name, said) for name, said in (*pairs, ("versions", versions)) if said]


def of_curve(evaluation: Evaluation, curve: Curve) -> Pairs:
    """How a rate-distortion curve was measured."""
    plan, protocol = evaluation.plan, curve_tables.means(evaluation)["protocol"]
    settings = plan.settings
    return [
        ("estimator", protocol["estimator"]),
        ("images", f"{curve.images} of {len(plan.rows)}, evenly spaced over {settings.split}"),
        ("chains", f"{settings.chains} an image, {settings.leapfrog} leapfrog steps"),
        (
            "temperatures",
            f"{settings.temperatures}, {len(curve.beta_T)} reported, β up to {settings.beta_max:g}",
        ),
        (
            "seeds",
            f"{settings.seed} (measuring), {settings.tuning_seed} (tuning)",
        ),
        ("decoder weights", plan.decoder),
        *((name, str(choice)) for name, choice in plan.named_checkpoint.items()),
        ("plan", plan.hash),
        ("tuning", protocol["tuning"]),
        (
            "versions",
            "; ".join(
                ", ".join(f"{k} {v}" for k, v in one.items()) for one in protocol["versions"]
            ),
        ),
    ]
