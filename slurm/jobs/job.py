"""One submitted job, as `jobs.json` records it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Executor = Literal["slurm", "local", "debug"]

# The stages of the jobs without blocks: a pilot comes before all blocks, and a collecting job
# merges the parts.
PILOT = "pilot"
COLLECT = "collect"


class Job(BaseModel):
    """One submitted job.

    Attributes:
        stage: the stage that the job belongs to: PILOT, COLLECT, or a stage that its kind names.
        blocks: the blocks that the job works on; none for a pilot or a collecting job.
        id: Slurm's id, or the process number of submitit's local controller; None while the job
            waits for its turn.
        host: the host on which a local job runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    stage: str
    blocks: tuple[int, ...] = ()
    executor: Executor
    id: str | None
    host: str

    def log(self, logs: Path, kind: Literal["out", "err"] = "err") -> Path:
        return logs / f"{self.id}_0_log.{kind}"
