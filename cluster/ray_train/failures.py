"""The causes of workers' failures, logged by the driver as soon as Ray's controller knows them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import UserCallback

from cluster import processes
from cluster.logs import json_lines, process_log
from cluster.ray_train.nodes import answers

_SHOWN = 3
_DIED = "died: it was killed, or its node was lost"


class Failures(UserCallback):
    """Logs the causes. It runs beside Ray's controller, which knows who died, but not where it was.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read = {path: json_lines.end(path) for path in process_log.of_ranks(run)}

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Log the causes: first what hung, then what died, then what failed because of that."""
        rows = self._new_rows()
        newest = {row["rank"]: row for row in rows}
        started = {row["rank"] for row in rows if row.get("event") == "start"}
        stalled = {row["rank"]: row["message"] for row in rows if row.get("event") == "stalled"}
        places = {rank: f" (process {r['pid']} on {r['host']})" for rank, r in newest.items()}
        silent = sorted(started - {*stalled, *worker_exceptions})
        # The neighbours of a node notice its end before Ray does.
        lost = [rank for rank in silent if _is_gone(newest[rank]["host"], newest[rank]["pid"])]
        died = [f"rank {rank}{places[rank]} {_DIED}" for rank in lost]
        failed = []
        for rank, error in sorted(worker_exceptions.items()):
            if rank in stalled:
                continue
            error = getattr(error, "health_check_failure", error)
            who = f"rank {rank}{places.get(rank, '')}"
            if isinstance(error, RayActorError):
                died.append(f"{who} {_DIED}")
            else:
                failed.append(f"{who}: {_last_words(error)}")
        hung = [stalled[rank] for rank in sorted(stalled)]
        if stalled:
            rest = [rank for rank in silent if rank not in lost]
            hung += [f"rank {r}{places[r]} says nothing: it or its host is stopped" for r in rest]
        reasons = [*hung, *died, *failed]
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        process_log.note(
            self._run,
            "WARNING",
            "; ".join(reasons[:_SHOWN] + more),
            event="workers_failed",
            ranks=sorted({*worker_exceptions, *stalled, *lost}),
        )

    def _new_rows(self) -> list[dict[str, Any]]:
        """The rows that the ranks have logged since the last time."""
        found = []
        for path in process_log.of_ranks(self._run):
            rows, self._read[path] = json_lines.follow(path, self._read.get(path, 0))
            found += rows
        return found


def _is_gone(host: str, pid: int) -> bool:
    """Whether a process has ended, as far as this host can tell.

    A process on another host counts as ended if Ray has no node there, or none that answers.
    """
    if host != platform.node():
        nodes = [n for n in ray.nodes() if n["Alive"] and n["NodeManagerHostname"] == host]
        return not any(answers(node) for node in nodes)
    return processes.born(pid) is None


def _last_words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
