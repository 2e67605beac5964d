"""What a report is made from: a generator run, a sweep and an evaluation of one generator."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoints.store import LAST
from cluster.evaluations.curve.plan import Evaluation
from cluster.evaluations.decoders import OfModel
from cluster.results.protocol import weights_of
from cluster.runs import Run, open_run
from gencomp.errors import InputError
from sweeps.report.tradeoff import runs as of_tradeoff
from sweeps.results import SweepResult, read_results

_GENERATOR, _SWEEP = Path("runs/generator"), Path("runs/rates")


@dataclass(frozen=True)
class Found:
    """The inputs that there are, with the choice of the checkpoint of the codecs.

    Attributes:
        tradeoff: the runs that are shown by their distortion and perception.
        lossless: the measurements of lossless files.
    """

    run: Run | None
    sweep: SweepResult | None
    evaluation: Evaluation | None
    checkpoint: str = "last"
    tradeoff: Sequence[Path] = ()
    lossless: Sequence[Path] = ()

    @property
    def missing(self) -> list[str]:
        """What is left out, in sentences.

        A page of a tradeoff is whole without a generator, and so is one of lossless files.
        """
        if (self.tradeoff or self.lossless) and self.run is self.evaluation is None:
            return []
        sentences = (
            (
                self.run,
                "No generator run was given: its losses, reconstructions and samples are left out.",
            ),
            (self.sweep, "No sweep was given: codecs and trials are left out."),
            (self.evaluation, "No evaluation by AIS was given: the generator’s curve is left out."),
        )
        return [sentence for part, sentence in sentences if part is None]

    @property
    def only_lossless(self) -> bool:
        """Whether the page is about lossless files alone."""
        others = self.run or self.sweep or self.evaluation or self.tradeoff
        return bool(self.lossless) and not others

    @property
    def best(self) -> list[tuple[dict[str, Any], Run]]:
        """Row and run of each group's best trial."""
        if self.sweep is None:
            return []
        return [(row, self.sweep.run(row, self.checkpoint)) for row in self.sweep.best()]

    @property
    def any_run(self) -> Run | None:
        """A run whose data stands for the page."""
        named = [*self.tradeoff, *(path.resolve().parent.parent for path in self.lossless)]
        first = (*(run for _, run in self.best), *map(open_run, named))
        return self.run or next(iter(first), None)


def find(
    generator: Path | None,
    sweep: Path | None,
    curve: Path | None,
    checkpoint: str = "last",
    tradeoff: Sequence[Path] = (),
    lossless: Sequence[Path] = (),
) -> Found:
    """Open what was named, and what else lies in its usual place and is of the same generator.

    Args:
        generator, sweep, curve: the places of the generator's run, the sweep and the curve.
        checkpoint: the choice of the checkpoint of the sweep's codecs. They were trained on the
            generator's last one.
        tradeoff: runs and sweeps that are shown by their distortion and perception beside the
            sweep.
        lossless: measurements of lossless files by `gencomp files`.

    Raises:
        InputError: a named path is not what it should be, parts belong to different generators, or
            there is nothing at all.
    """
    results = read_results(sweep) if sweep else None
    if generator is None and (_GENERATOR / "identity.json").is_file():
        usual_run = Found(open_run(_GENERATOR), results, None, checkpoint)
        generator = _GENERATOR if results is None or _is_parent(usual_run) else None
    run = open_run(generator) if generator else None
    if curve is None and run is not None:
        usual = run.path / "evaluations" / "ais"
        curve = usual if (usual / "curve.json").is_file() else None
    evaluation = _of_colours(Evaluation.open(curve)) if curve else None
    if evaluation and not (evaluation.path / "curve.json").is_file():
        raise InputError(
            f"{curve} has no curve yet; run `gencomp slurm collect {shlex.quote(str(curve))}` first"
        )
    if results is None and (_SWEEP / "results.parquet").is_file():
        usual_sweep = read_results(_SWEEP)
        same = _of_one_generator(Found(run, usual_sweep, evaluation, checkpoint))
        results = usual_sweep if same else None
    shown = of_tradeoff(results, tradeoff)
    found = Found(run, results, evaluation, checkpoint, shown, lossless)
    if results is None and checkpoint != LAST:
        raise InputError(
            f"--checkpoint {checkpoint} is that of the codecs of a sweep: name --sweep"
        )
    if run is results is evaluation is None and not (found.tradeoff or lossless):
        raise InputError(
            f"there is nothing to report: no run in {_GENERATOR} and no sweep in {_SWEEP}; name "
            "others with --generator, --sweep, --curve, --tradeoff and --lossless"
        )
    if not _of_one_generator(found):
        which = ", ".join(f"{name} has {weights[:12]}" for name, weights in _weights(found).items())
        raise InputError(f"a report is about one generator, but these have different ones: {which}")
    return found


def _of_colours(evaluation: Evaluation) -> Evaluation:
    """Codecs are held against a run's curve of squared errors of RGB values on [−1, 1].

    Raises:
        InputError: this one is of something else.
    """
    plan = evaluation.plan
    known = plan.settings.distortion == "squared_error" and plan.values == 3 * plan.pixels
    known = known and plan.value_range in (None, (-1.0, 1.0))  # None: a plan of an older version
    if not known or isinstance(plan.subject, OfModel):
        raise InputError(
            f"{evaluation.path} is not a run's curve of squared errors in colour on [-1, 1], "
            "which reports hold codecs against; `gencomp figure ais` draws it"
        )
    return evaluation


def _of_one_generator(found: Found) -> bool:
    return len(set(_weights(found).values())) <= 1


def _is_parent(found: Found) -> bool:
    """Whether the sweep's codecs start from the generator; also where the sweep has none."""
    return not found.best or (_of_one_generator(found) and len(_weights(found)) > 1)


def _weights(found: Found) -> dict[str, str]:
    """Path of each part -> hash of the weights of its generator."""
    weights = {}
    if found.run:
        weights[str(found.run.path)] = weights_of(found.run)
    for _, trial in found.best:
        parents = [v for k, v in trial.identity().items() if k.startswith("parent.")]
        weights |= {str(trial.path): parent for parent in parents[:1]}
    if found.evaluation:
        weights[str(found.evaluation.path)] = found.evaluation.plan.decoder
    return weights
