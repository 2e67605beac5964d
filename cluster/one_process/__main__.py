"""The worker's process: `python -m cluster.one_process`, started by its driver only.

Its task is one line of JSON on standard input, which the driver then keeps open: where it is
closed, the driver has died, and the worker ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

import torch

# Optimizers import it at their first step; here that happens while the driver prepares the run.
import torch._dynamo  # noqa: F401

from cluster import final_errors
from cluster.locks import Lease
from cluster.one_process import pulse
from cluster.runs import open_run
from cluster.training.worker_info import WorkerInfo
from cluster.worker import Host, train
from gencomp.draws import CPU
from gencomp.exit_codes import DONE, FAILED, STOPPED


def main() -> int:
    task = json.loads(_first_line())
    threading.Thread(target=_end_with_driver, name="driver", daemon=True).start()
    pulse.start(task["pulse"], task["stall_seconds"])
    # The driver shows the log; without a handler the journal would print it here as well.
    logging.getLogger().addHandler(logging.NullHandler())
    run = open_run(Path(task["run"]))
    lease = Lease(**{**task["lease"], "directory": Path(task["lease"]["directory"])})
    host = Host(
        should_stop=run.stop_request.exists,
        may_write=lease.require,
        stall_seconds=task["stall_seconds"],
    )
    device = torch.device("cuda", 0) if task["gpu"] else CPU
    try:
        with final_errors.told(run.refusal):
            outcome = train(run, WorkerInfo(device=device), host)
    except Exception:  # the log has it, with its traceback
        return FAILED
    return DONE if outcome.finished else STOPPED


def _first_line() -> bytes:
    """The first line of standard input; the process ends where the driver has died before."""
    found = b""
    while not found.endswith(b"\n"):
        more = os.read(0, 4096)
        if not more:
            sys.exit(FAILED)
        found += more
    return found


def _end_with_driver() -> None:
    # sys.stdin has a lock, which this thread would still hold when the interpreter ends.
    os.read(0, 1)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
