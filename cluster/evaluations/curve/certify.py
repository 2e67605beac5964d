"""The work on a block of certified images: a search for modes, then chains that start there.

The search is one step, which starts anew where it is interrupted. After it the block's file holds
the modes and the state of the chains, so that the work can be stopped and resumed anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cluster import tensor_files
from cluster.evaluations.curve import parts
from cluster.evaluations.curve.chain_files import load_chains, remove
from cluster.evaluations.curve.context import Context
from cluster.evaluations.curve.plan import nearest_reported
from gencomp.rate_distortion import ais, modes
from gencomp.rate_distortion.certificate import TRANSITIONS, Certification
from gencomp.rate_distortion.distortion import Distortion
from gencomp.rate_distortion.modes import Modes
from gencomp.rate_distortion.resampling import effective_sample_size


class Chains(NamedTuple):
    """The chains after some transitions.

    Attributes:
        certification: the settings, with the modes that were found.
        walk: the walk of the chains.
        state: the state of the chains.
        since_2B: float64, the sums of acceptance and resampling of each group since the start.
    """

    certification: Certification
    walk: ais.Walk
    state: ais.AISState
    since_2B: Tensor


@dataclass
class CertifyWork:
    """A certified block at work. `at` is replaced as a whole; it is None before the search."""

    context: Context
    number: int
    temperature: int
    images: Distortion
    at: Chains | None

    @property
    def done(self) -> bool:
        return self.at is not None and ais.done(self.at.walk, self.at.state)

    @property
    def steps(self) -> int:
        """The number of steps done, of which the search is one."""
        return 0 if self.at is None else 1 + self.at.state.temperature

    @property
    def ess(self) -> float | None:
        """The effective sample size of a group, averaged over the images."""
        if self.at is None:
            return None
        return effective_sample_size(self.at.state.log_weight_IM).mean().item()

    def advance(self) -> None:
        """Look for modes, or go on to the next temperature."""
        if self.at is None:
            self.at = _started(_certification(self, self._find()))
            return
        state, row = ais.advance(self.at.walk, self.at.state)
        more_2B = torch.stack([row.acceptance_I, row.resampled_I.double()]).cpu()
        self.at = self.at._replace(state=state, since_2B=self.at.since_2B + more_2B)

    def save(self) -> None:
        """Write modes and chains, whole or not at all, unless the part exists already."""
        evaluation = self.context.evaluation
        if self.at is None or evaluation.part(self.number).exists():
            return
        tensors = {
            **ais.to_tensors(self.at.walk, self.at.state),
            **{f"modes.{name}": t for name, t in self.at.certification.found._asdict().items()},
            "since_2B": self.at.since_2B,
        }
        protocol = self.context.protocol(self.number)
        tensor_files.write(evaluation.chains(self.number), tensors, protocol)

    def finish(self) -> None:
        """Write the part, and remove the chains, which are not needed any more."""
        assert self.at is not None  # the work is done
        found = self.at.certification.estimates(self.at.walk, self.at.state)
        beta = self.at.certification.beta
        acceptance_B, resampled_B = self.at.since_2B
        columns = {
            "log_z": found.log_z_IR.flatten(),
            "rate": (-found.log_z_IR - beta * found.distortion_IR).flatten(),
            "distortion": found.distortion_IR.flatten(),
            "ess": found.ess_IR.flatten(),
            "acceptance": acceptance_B / self.at.walk.length,
            "resampled": resampled_B,
            "nonfinite": self.at.state.nonfinite_I.double().cpu(),
            "log_z_integral": torch.full_like(acceptance_B, torch.nan),
        }
        rows = self.context.plan.blocks[self.number].items
        groups = found.log_z_IR.shape[1]
        parts.write(
            self.context.evaluation.part(self.number),
            "certify",
            [row for row in rows for _ in range(groups)],
            [self.temperature],
            [beta],
            torch.stack([columns[name] for name in parts.COLUMNS], dim=-1)[None],
            {
                **self.context.protocol(self.number),
                "gencomp": self.context.plan.gencomp,
                "modes": self.at.certification.found.counts,
            },
        )
        remove(self.context.evaluation.chains(self.number))

    def _find(self) -> Modes:
        plan = self.context.plan
        rows = plan.blocks[self.number].items
        return modes.find(
            *(self.images, self.context.decoder.prior),
            float(self.context.tuning.betas[self.temperature]),
            starts=plan.settings.certify_starts,
            seed=plan.settings.certify_seed,
            image_ids=rows,
            suggested_ISK=self.context.suggested(rows),
        )


def open_certification(context: Context, number: int) -> CertifyWork:
    """The work on a certified block as it was saved in its file, or at its start if there is none.

    Raises:
        InputError: the data are no longer those of the plan.
        ShardError: an image cannot be read.
    """
    block, plan = context.plan.blocks[number], context.plan
    temperature = nearest_reported(context.tuning.betas, plan.reported, block.beta)
    work = CertifyWork(context, number, temperature, context.images(block.items), None)
    path, expected = context.evaluation.chains(number), context.protocol(number)
    tensors = load_chains(path, expected, "the block")
    if tensors is not None:
        work.at = _loaded(work, tensors)
    return work


def _loaded(work: CertifyWork, tensors: Mapping[str, Tensor]) -> Chains:
    rest = dict(tensors)
    found = Modes(*(rest.pop(f"modes.{name}") for name in Modes._fields))
    since_2B = rest.pop("since_2B")
    certification = _certification(work, found)
    walk = certification.walk()
    return Chains(certification, walk, ais.from_tensors(walk, rest), since_2B)


def _certification(work: CertifyWork, found: Modes) -> Certification:
    context = work.context
    return Certification(
        work.images,
        context.decoder.prior,
        float(context.tuning.betas[work.temperature]),
        found,
        context.tuning.leapfrog,
        context.plan.settings.certify_seed,
        context.plan.blocks[work.number].items,
        transitions=TRANSITIONS,
    )


def _started(certification: Certification) -> Chains:
    walk = certification.walk()
    state = ais.start(walk, certification.chains)
    nothing_2B = torch.zeros(2, len(walk.image_ids), dtype=torch.float64)
    return Chains(certification, walk, state, nothing_2B)
