"""Why workers failed, in the driver's log, as soon as Ray's controller knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError
from ray.train import UserCallback

from cluster import logs, metrics_log

_SHOWN = 3


class Failures(UserCallback):
    """Runs beside Ray's controller, which knows who died, but not where it was.

    Args:
        run: its directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read = {path: metrics_log.end(path) for path in logs.of_ranks(run)}

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Note the reasons: what hung, then what died, then whatever failed because of it."""
        rows = self._new_rows()
        stalled = {row["rank"]: row["message"] for row in rows if row.get("event") == "stalled"}
        places = {row["rank"]: f" (process {row['pid']} on {row['host']})" for row in rows}
        died, failed = [], []
        for rank, error in sorted(worker_exceptions.items()):
            if rank in stalled:
                continue
            error = getattr(error, "health_check_failure", error)
            who = f"rank {rank}{places.get(rank, '')}"
            if isinstance(error, RayActorError):
                died.append(f"{who} died: it was killed, or its node was lost")
            else:
                failed.append(f"{who}: {_last_words(error)}")
        hung = [stalled[rank] for rank in sorted(stalled)]
        if stalled:
            started = {row["rank"] for row in rows if row.get("event") == "start"}
            silent = sorted(started - {*stalled, *worker_exceptions})
            hung += [f"rank {r}{places[r]} says nothing: it or its host is stopped" for r in silent]
        reasons = [*hung, *died, *failed]
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        logs.note(
            self._run,
            "WARNING",
            "; ".join(reasons[:_SHOWN] + more),
            event="workers_failed",
            ranks=sorted({*worker_exceptions, *stalled}),
        )

    def _new_rows(self) -> list[dict[str, Any]]:
        """What the ranks have logged since the last time."""
        found = []
        for path in logs.of_ranks(self._run):
            rows, self._read[path] = metrics_log.follow(path, self._read.get(path, 0))
            found += rows
        return found


def _last_words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
