"""What the driver of a run does while workers train it, whoever starts their processes.

The driver holds the run, shows what its workers log, and raises what they refuse. The workers
choose the checkpoint from which they go on, so it does not matter who died before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster import final_errors
from cluster.locks import Lease
from cluster.logs import metrics_log
from cluster.runs import Run
from cluster.supervision import Supervision

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Training:
    """A run that this process holds while workers train it.

    Attributes:
        run: the run.
        supervision: how its workers are kept going.
        lease: the hold on the run's directory.
        relay: a function that shows what the driver and rank 0 have logged since its last call.
        on_row: a function that is called with every new row of the metrics log.
    """

    run: Run
    supervision: Supervision
    lease: Lease
    relay: Callable[[], None]
    on_row: Callable[[dict[str, Any]], None]

    def watch(self, start: Callable[[], Callable[[], bool]]) -> None:
        """Start the workers, and deal with rows, logs and the lock until they have ended.

        Args:
            start: a function that starts the workers and gives one that tells whether they have
                ended.

        Raises:
            InputError: the workers refused their input.
            SavingError: a disk is full.
            LockLost: another process has taken the run over.
        """
        refusal = self.run.refusal
        final_errors.reserve(refusal)
        new_rows = metrics_log.Follower(self.run.metrics, skip=True)
        have_ended = start()

        def ended() -> bool:
            self.relay()
            self.lease.require()
            return have_ended()

        for row in _rows_until(new_rows, ended):
            self.on_row(row)
        refused = final_errors.said(refusal)
        refusal.unlink(missing_ok=True)
        if refused is not None:
            raise refused.error()


def _rows_until(
    new_rows: metrics_log.Follower, ended: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The new rows of a metrics log while the workers write it."""
    while True:
        last_round = ended()
        yield from new_rows()
        if last_round:
            return
        time.sleep(_POLL_SECONDS)
