"""The work on one block: its chains, their file, and the part that they leave behind.

A block can be stopped and resumed anywhere: the file of the chains holds the sampler's state, the
rows reported so far and the running sums between reported points, with a hash over all of it. The
same plan and tuning give the same part, bit for bit, on one kind of machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cluster import tensor_files
from cluster.evaluations.curve import certify, parts
from cluster.evaluations.curve.chain_files import load_chains, remove
from cluster.evaluations.curve.context import Context
from cluster.evaluations.curve.plan import Kind, nearest
from cluster.evaluations.work import Work
from gencomp.rate_distortion import ais, bdmc
from gencomp.rate_distortion.resampling import effective_sample_size

# The factors of the row at the end of a path down to the prior: its weights estimate 1/Z, and it
# is not a point of a curve.
_TURNED = {"log_z": -1.0, "log_z_integral": -1.0, "rate": math.nan, "distortion": math.nan}


class Snapshot(NamedTuple):
    """The state of a block between two temperatures."""

    state: ais.AISState
    reported_RIC: Tensor  # float64, the values of parts.COLUMNS
    since_2I: Tensor  # float64, sums of acceptance and resampling since the last reported row


@dataclass
class BlockWork:
    """A block at work. `at` is replaced as a whole, so a signal handler sees a consistent state."""

    context: Context
    number: int
    run: ais.Walk
    at: Snapshot

    @property
    def kind(self) -> Kind:
        return self.context.plan.blocks[self.number].kind

    @property
    def reported(self) -> list[int]:
        """The transitions after which a row is kept."""
        whole = self.kind in ("measure", "repeat")
        return self.context.plan.reported if whole else [self.run.length]

    @property
    def done(self) -> bool:
        return ais.done(self.run, self.at.state)

    @property
    def steps(self) -> int:
        """The number of transitions done."""
        return self.at.state.temperature

    @property
    def ess(self) -> float:
        """The effective sample size, averaged over the images."""
        return effective_sample_size(self.at.state.log_weight_IM).mean().item()

    def advance(self) -> None:
        """Go on to the next temperature."""
        self.at = advanced(self.run, self.at, self.reported)

    def save(self) -> None:
        """Write the chains to their file, whole or not at all, unless the part exists already."""
        evaluation = self.context.evaluation
        if evaluation.part(self.number).exists():
            return
        tensors = {
            **ais.to_tensors(self.run, self.at.state),
            "reported_RIC": self.at.reported_RIC,
            "since_2I": self.at.since_2I,
        }
        tensor_files.write(
            evaluation.chains(self.number), tensors, self.context.protocol(self.number)
        )

    def finish(self) -> None:
        """Write the part, and remove the chains, which are not needed any more."""
        write_part(self.context, self.number, self.at.reported_RIC)
        remove(self.context.evaluation.chains(self.number))


def open_block(context: Context, number: int) -> Work:
    """The work on a block as it was saved in its file, or at its start if there is no file.

    Raises:
        InputError: the data are no longer those of the plan.
        ShardError: an image cannot be read.
    """
    block, prior, settings = (
        context.plan.blocks[number],
        context.decoder.prior,
        context.plan.settings,
    )
    if block.kind == "certify":
        return certify.open_certification(context, number)
    if block.kind in ("measure", "repeat"):
        images = context.images(block.items)
        seed = settings.seed if block.kind == "measure" else settings.certify_seed
        run = ais.Walk(images, prior, context.tuning, seed, block.items)
        at = _load(context, run, number) or _snapshot(ais.start(run, settings.chains))
        return BlockWork(context, number, run, at)
    last = nearest(context.tuning.betas, block.beta)
    beta = float(context.tuning.betas[last])
    simulated = bdmc.simulate(context.template, prior, beta, settings.simulation_seed, block.items)
    walk = bdmc.forward_run if block.kind == "forward" else bdmc.reverse_run
    run = walk(context.template, prior, context.tuning, simulated, last, settings.seed, block.items)

    def start() -> Snapshot:
        if block.kind == "forward":
            return _snapshot(ais.start(run, settings.bdmc_chains))
        return _snapshot(ais.start_reverse(run, simulated.z_IK, settings.bdmc_chains))

    return BlockWork(context, number, run, _load(context, run, number) or start())


def advanced(run: ais.Walk, at: Snapshot, reported: list[int]) -> Snapshot:
    """The block after one more temperature, with a row more if that temperature is reported."""
    state, row = ais.advance(run, at.state)
    since_2I = at.since_2I + torch.stack([row.acceptance_I, row.resampled_I.double()]).cpu()
    if state.temperature not in reported:
        return Snapshot(state, at.reported_RIC, since_2I)
    done = len(at.reported_RIC)
    transitions = state.temperature - (reported[done - 1] if done else 0)
    values = {
        "log_z": row.log_z_I,
        "rate": row.rate_I,
        "distortion": row.distortion_I,
        "ess": row.ess_I,
        "acceptance": since_2I[0] / transitions,
        "resampled": since_2I[1],
        "nonfinite": row.nonfinite_I.double(),
        "log_z_integral": row.log_z_integral_I,
    }
    values_IC = torch.stack([values[name].cpu() for name in parts.COLUMNS], dim=-1)
    return Snapshot(
        state, torch.cat([at.reported_RIC, values_IC[None]]), torch.zeros_like(since_2I)
    )


def write_part(context: Context, number: int, reported_RIC: Tensor) -> None:
    """Write the part of a block: one row for each image and reported temperature."""
    plan, block = context.plan, context.plan.blocks[number]
    if block.kind in ("measure", "repeat"):
        temperatures = plan.reported
    else:
        temperatures = [nearest(context.tuning.betas, block.beta)]
    if block.kind == "backward":
        factors_C = torch.tensor(
            [_TURNED.get(name, 1.0) for name in parts.COLUMNS], dtype=torch.float64
        )
        reported_RIC = reported_RIC * factors_C
    parts.write(
        context.evaluation.part(number),
        block.kind,
        block.items,
        temperatures,
        context.tuning.betas[temperatures].tolist(),
        reported_RIC,
        {
            **context.protocol(number),
            "gencomp": plan.gencomp,
            "expected_gap": repr(context.tuning.expected_gap),
        },
    )


def _snapshot(state: ais.AISState) -> Snapshot:
    """The snapshot of chains that have just started."""
    images = len(state.log_weight_IM)
    return Snapshot(
        state,
        torch.empty(0, images, len(parts.COLUMNS), dtype=torch.float64),
        torch.zeros(2, images, dtype=torch.float64),
    )


def _load(context: Context, run: ais.Walk, number: int) -> Snapshot | None:
    """The snapshot in the block's file; None if there is none, or it cannot be trusted."""
    path, expected = context.evaluation.chains(number), context.protocol(number)
    tensors = load_chains(path, expected, "the block")
    if tensors is None:
        return None
    reported_RIC, since_2I = tensors.pop("reported_RIC"), tensors.pop("since_2I")
    return Snapshot(ais.from_tensors(run, tensors), reported_RIC, since_2I)
