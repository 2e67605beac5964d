"""One block of images: its chains, their file, and the part that they leave behind.

A block can be stopped anywhere and gone on with: the chains' file holds the sampler's state, what
was reported so far and the running sums between reported points, with a hash over all of it. The
same plan and tuning give the same part, bit for bit, on one kind of machine.
"""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

import shards
from cluster import data, tensor_files
from cluster.files import write_bytes
from gencomp.errors import InputError
from gencomp.rate_distortion import ais
from gencomp.rate_distortion.distortion import SquaredError
from gencomp.rate_distortion.resampling import effective_sample_size
from gencomp.rate_distortion.tuning import Tuning
from gencomp.system import LatentDecoder
from slurm.plan import Evaluation, Plan

log = logging.getLogger(__name__)

COLUMNS = ("log_z", "rate", "distortion", "ess", "acceptance", "resampled", "nonfinite")
SCHEMA = pa.schema(
    [
        ("image", pa.int64()),
        ("temperature", pa.int32()),
        ("beta", pa.float64()),
        ("log_z", pa.float64()),
        ("rate", pa.float64()),
        ("distortion", pa.float64()),
        ("ess", pa.float64()),
        ("acceptance", pa.float64()),
        ("resampled", pa.int32()),
        ("nonfinite", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Workplace:
    """What all the blocks of a job share: the decoder and the frozen sampler, on their device."""

    evaluation: Evaluation
    decoder: LatentDecoder
    tuning: Tuning

    @property
    def plan(self) -> Plan:
        return self.evaluation.plan

    def protocol(self, block: int) -> dict[str, str]:
        """What a part must share with the others, and its block."""
        return {**protocol(self.plan, self.tuning), "block": str(block)}


class Snapshot(NamedTuple):
    """How far a block has come."""

    state: ais.AISState
    reported_RIC: Tensor  # float64, rows of COLUMNS
    since_2I: Tensor  # float64, sums of acceptance and resampling since the last reported row

    @property
    def ess(self) -> float:
        """Mean over the images."""
        return effective_sample_size(self.state.log_weight_IM).mean().item()


def protocol(plan: Plan, tuning: Tuning) -> dict[str, str]:
    """The hashes that every part of one curve shares."""
    return {"plan": plan.hash, "decoder": plan.decoder, "data": plan.data, "tuning": tuning.hash}


def open_decoder(evaluation: Evaluation) -> LatentDecoder:
    """The decoder on the plan's device.

    Raises:
        InputError: the run's weights are no longer those of the plan, or there is no such device.
    """
    plan, run = evaluation.plan, evaluation.run
    if (found := run.final_checkpoint().networks_hash()) != plan.decoder:
        raise InputError(
            f"run {run.path} has other weights ({found}) than the plan of {evaluation.path}"
        )
    if plan.settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "the plan asks for a GPU, but this process sees none (--gres=gpu:1 asks for one)"
        )
    # 10 mantissa bits are too few for beta times a distortion.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    system = run.system()
    # Small batches are up to three times as fast on a CPU in this layout.
    system.networks.to(plan.settings.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoder = system.latent_decoder()
    if decoder is None:
        raise InputError(f"run {run.path} has no decoder from a latent prior")
    return decoder


def load_images(
    evaluation: Evaluation, rows: tuple[int, ...], decoder: LatentDecoder
) -> SquaredError:
    """The distortion of the images at `rows` of the plan's split.

    Raises:
        InputError: the shard set is no longer that of the plan.
        ShardError: an image cannot be read.
    """
    plan = evaluation.plan
    shard_set = shards.open_set(plan.shards)
    if shard_set.index_hash != plan.data:
        raise InputError(
            f"shard set {plan.shards} is another one than when the evaluation was planned"
        )
    host = data.held_out_rows(evaluation.run.recipe(), shard_set.split(plan.settings.split), rows)
    images_BCHW = data.to_batch(host, torch.device("cpu")).images_BCHW
    target_BN = decoder.target(images_BCHW.contiguous())
    return SquaredError(decoder.decode, target_BN.to(plan.settings.device))


@dataclass
class Block:
    """A block in flight. `at` is replaced as a whole, so a signal handler sees a consistent one."""

    place: Workplace
    number: int
    run: ais.Run
    at: Snapshot

    @property
    def done(self) -> bool:
        return ais.done(self.run, self.at.state)

    def advance(self) -> None:
        """One temperature further."""
        self.at = advanced(self.run, self.at, self.place.plan.reported)

    def save(self) -> None:
        """Write the chains' file, whole or not at all; nothing once the part is there."""
        evaluation = self.place.evaluation
        if evaluation.part(self.number).exists():
            return
        tensors = {
            **ais.to_tensors(self.run, self.at.state),
            "reported_RIC": self.at.reported_RIC,
            "since_2I": self.at.since_2I,
        }
        tensor_files.write(
            evaluation.chains(self.number), tensors, self.place.protocol(self.number)
        )

    def finish(self) -> None:
        """Write the part; the chains are not needed any more."""
        write_part(self.place, self.number, self.at.reported_RIC)
        chains = self.place.evaluation.chains(self.number)
        chains.unlink(missing_ok=True)
        for leftover in chains.parent.glob(f".{chains.name}.*"):  # of attempts that were killed
            leftover.unlink(missing_ok=True)


def open_block(place: Workplace, number: int) -> Block:
    """A block where its file stands, else at its start."""
    plan, rows = place.plan, place.plan.blocks[number]
    run = ais.Run(
        load_images(place.evaluation, rows, place.decoder),
        place.tuning,
        seed=plan.settings.seed,
        image_ids=rows,
    )
    at = _load(place, run, number)
    if at is None:
        at = Snapshot(
            ais.start(run, plan.settings.chains),
            torch.empty(0, len(rows), len(COLUMNS), dtype=torch.float64),
            torch.zeros(2, len(rows), dtype=torch.float64),
        )
    return Block(place, number, run, at)


def advanced(run: ais.Run, at: Snapshot, reported: list[int]) -> Snapshot:
    """One temperature; a row when it is a reported one."""
    state, row = ais.advance(run, at.state)
    since_2I = at.since_2I + torch.stack([row.acceptance_I, row.resampled_I.double()]).cpu()
    if state.temperature not in reported:
        return Snapshot(state, at.reported_RIC, since_2I)
    done = len(at.reported_RIC)
    transitions = state.temperature - (reported[done - 1] if done else 0)
    values_IC = torch.stack(
        [
            *(v.cpu() for v in (row.log_z_I, row.rate_I, row.distortion_I, row.ess_I)),
            since_2I[0] / transitions,
            since_2I[1],
            row.nonfinite_I.cpu().double(),
        ],
        dim=-1,
    )
    return Snapshot(
        state, torch.cat([at.reported_RIC, values_IC[None]]), torch.zeros_like(since_2I)
    )


def _load(place: Workplace, run: ais.Run, block: int) -> Snapshot | None:
    """Where the block's file stands; None when there is no file, or none that can be trusted."""
    path = place.evaluation.chains(block)
    if not path.exists():
        return None
    try:
        tensors, metadata = tensor_files.read(path)
    except InputError as error:
        log.warning("%s; the block starts anew", error)
        return None
    if metadata != place.protocol(block):
        log.warning("%s is of another evaluation; the block starts anew", path)
        return None
    reported_RIC, since_2I = tensors.pop("reported_RIC"), tensors.pop("since_2I")
    return Snapshot(ais.from_tensors(run, tensors), reported_RIC, since_2I)


def write_part(place: Workplace, block: int, reported_RIC: Tensor) -> None:
    """One row for each image and reported temperature."""
    plan, rows = place.plan, place.plan.blocks[block]
    points = len(plan.reported)
    values = {name: reported_RIC[..., c].T.flatten().numpy() for c, name in enumerate(COLUMNS)}
    table = pa.table(
        {
            "image": np.repeat(np.array(rows, dtype=np.int64), points),
            "temperature": np.tile(plan.reported, len(rows)),
            "beta": np.tile(place.tuning.betas[plan.reported], len(rows)),
            **values,
        }
    ).cast(SCHEMA)
    metadata = {
        **place.protocol(block),
        "gencomp": plan.gencomp,
        "torch": torch.__version__,
        "expected_gap": repr(place.tuning.expected_gap),
    }
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"gencomp": json.dumps(metadata)}), buffer)
    write_bytes(place.evaluation.part(block), buffer.getvalue())


def read_part(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """A part and its protocol.

    Raises:
        InputError: the file is not a part.
    """
    try:
        table = pq.read_table(path, partitioning=None)
        metadata = json.loads(table.schema.metadata[b"gencomp"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a part of a curve ({reason}); remove it and "
            "run `gencomp slurm ais` again"
        ) from None
    return table, metadata
