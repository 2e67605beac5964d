"""The pilot at work. One file keeps both its walks, so it can be stopped and resumed anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import tensor_files
from cluster.evaluations.curve.chain_files import load_chains, remove
from cluster.evaluations.curve.context import distortion, open_decoder, read_images
from cluster.evaluations.curve.plan import Evaluation
from gencomp.rate_distortion import pilot
from gencomp.rate_distortion.pilot import PilotRun, PilotState


@dataclass
class Tuner:
    """A pilot at work. `at` is replaced as a whole, so a signal handler sees a consistent state."""

    evaluation: Evaluation
    run: PilotRun
    at: PilotState

    # No effective sample size is shown: the pilot's chains are still adapting, so they say nothing
    # about the images to be measured.
    ess = None

    @property
    def done(self) -> bool:
        return pilot.done(self.run, self.at)

    @property
    def steps(self) -> int:
        """The number of transitions done in both walks."""
        return pilot.progress(self.run, self.at)[0]

    def advance(self) -> None:
        """Go on to the next temperature."""
        self.at = pilot.advance(self.run, self.at)

    def save(self) -> None:
        """Write the chains to their file, whole or not at all, unless the tuning exists already."""
        if not self.evaluation.tuning.exists():
            tensors = pilot.to_tensors(self.run, self.at)
            tensor_files.write(self.evaluation.pilot_chains, tensors, _protocol(self.evaluation))

    def finish(self) -> None:
        """Freeze the tuning, and remove the chains, which are not needed any more."""
        pilot.freeze(pilot.finish(self.run, self.at)).save(self.evaluation.tuning)
        remove(self.evaluation.pilot_chains)


def open_tuner(evaluation: Evaluation) -> Tuner:
    """The pilot as it was saved in its file, or at its start if there is no file.

    Raises:
        InputError: the decoder or the data are no longer those of the plan.
        ShardError: an image cannot be read.
    """
    plan, chosen = evaluation.plan, evaluation.plan.settings
    decoder = open_decoder(evaluation)
    run = PilotRun(
        distortion(plan, decoder, read_images(evaluation, plan.pilot_rows)),
        decoder.prior,
        beta_max=chosen.beta_max,
        temperatures=chosen.temperatures,
        chains=chosen.chains,
        leapfrog=chosen.leapfrog,
        seed=chosen.tuning_seed,
        image_ids=plan.pilot_rows,
        pilot_temperatures=chosen.pilot_temperatures,
        schedule=chosen.schedule,
        pilot_schedule=chosen.pilot_schedule,
        preconditioner=chosen.preconditioner,
        low_precision_until=chosen.forces_until,
    )
    tensors = load_chains(evaluation.pilot_chains, _protocol(evaluation), "the pilot")
    at = pilot.start(run) if tensors is None else pilot.from_tensors(run, tensors)
    return Tuner(evaluation, run, at)


def _protocol(evaluation: Evaluation) -> dict[str, str]:
    plan = evaluation.plan
    return {"plan": plan.hash, "decoder": plan.decoder, "data": plan.data}
