"""What follows when Ray's controller dies, without a Ray; `test_train` kills a real one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from cluster.driver import Training
from cluster.locks import Lease
from cluster.ray_train import fit
from cluster.runs import Run
from cluster.supervision import Supervision


def test_no_cluster_is_started_after_a_request_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clusters = Run(tmp_path), []

    def dies(training: Training) -> bool:
        if len(clusters) == 2:
            run.stop_request.touch()
        raise fit._ControllerDied("the controller of the workers died")

    def cluster(cpus: int | None) -> nullcontext[None]:
        clusters.append(cpus)
        return nullcontext()

    monkeypatch.setattr(fit.ray_runtime, "cluster", cluster)
    monkeypatch.setattr(fit, "_fitting_workers", lambda supervision: supervision.workers)
    monkeypatch.setattr(fit, "_supervise", dies)
    lease = Lease(tmp_path, 1, "token")
    supervision = Supervision(workers=(2, 2), max_failures=5)
    training = Training(run, supervision, lease, lambda: None, lambda row: None)
    assert fit.until_ended(training) is False
    assert len(clusters) == 2
