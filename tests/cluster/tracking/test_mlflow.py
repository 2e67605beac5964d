"""Runs on a real MLflow server with SQLite; skipped where MLflow is not installed whole.

`pip install mlflow wandb` into the environment runs this file and test_wandb.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cluster.logs import metrics_log
from cluster.runs import Run
from cluster.tracking.choice import connect
from cluster.tracking.follower import Follower
from cluster.tracking.tracker import metrics_of
from gencomp.cli import main
from sweeps.tracking import TrialsFollower
from sweeps.trial import Trial
from tests import tiny
from tests.cluster.ray_train.test_train import reached, step_of
from tests.cluster.tracking.in_memory import grid, log, new_run, step_sent
from tests.processes import ENVIRONMENT, Driver
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        find_spec("mlflow") is None or find_spec("flask") is None or find_spec("alembic") is None,
        reason="needs a whole MLflow with its server: pip install mlflow",
    ),
]


class MlflowServer:
    """A server with SQLite on loopback, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._folder, self._port = folder, free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        words = ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--workers", "1"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        words += ["--host", "127.0.0.1", "--port", str(self._port)]
        with (self._folder / "server.log").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                cwd=self._folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        assert wait_for(self._answers), (self._folder / "server.log").read_text()

    def stop(self) -> None:
        """End the server with all its processes, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/health"):
            return True
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    found = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    found.start()
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _experiment(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    values = {
        "MLFLOW_TRACKING_URI": server.address,
        "MLFLOW_EXPERIMENT_NAME": request.node.name,
        "GIT_PYTHON_REFRESH": "quiet",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)


def runs_of(experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time"]))


def histories(id_: str, names: set[str]) -> dict[str, list[int]]:
    """The steps of each metric, in growing order."""
    from mlflow import MlflowClient

    client = MlflowClient()
    return {
        name: sorted(one.step for one in client.get_metric_history(id_, name)) for name in names
    }


def expected(run: Run) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in metrics_log.read(run.metrics):
        for name in metrics_of(row):
            found.setdefault(name, []).append(row["step"])
    return found


def artifacts(id_: str, folder: str) -> list[str]:
    from mlflow import MlflowClient

    return [Path(one.path).name for one in MlflowClient().list_artifacts(id_, folder)]


def test_kills_and_a_server_that_goes_away(
    photos: Path,
    tmp_path: Path,
    drive: Callable[..., Driver],
    server: MlflowServer,
    request: pytest.FixtureRequest,
) -> None:
    """Each step of the log stands once in one run of the server, and then the evaluation."""
    raw = tiny.generator(photos, {"training.steps": 400, "training.sample_every": 50})
    file = tiny.write(raw, tmp_path / "tiny.yaml")
    run = Run(tmp_path / "runs" / "tiny")
    words = ["train", str(file), "--runs", str(tmp_path / "runs"), "--track", "mlflow"]

    def sent() -> int:
        return step_sent(run, "mlflow")

    first = drive(*words)
    first.wait_for(lambda: sent() > 5)
    first.process.kill()
    first.process.wait()

    second = drive(*words)
    second.wait_for(lambda: reached(run, second, sent() + 2))
    server.stop()
    before = step_of(run)
    second.wait_for(lambda: "does not take what is logged" in second.words())
    second.wait_for(lambda: step_of(run) > before + 2)
    second.process.send_signal(signal.SIGTERM)
    assert second.end() == 130, second.words()

    server.start()
    third = drive(*words)
    assert third.end() == 0, third.words()
    (found,) = runs_of(request.node.name)
    wanted = expected(run)
    assert histories(found.info.run_id, set(wanted)) == wanted
    assert found.info.status == "FINISHED" and found.info.run_name == "tiny"
    assert found.data.params["training.steps"] == "400"
    grids = sorted(path.name for path in (run.path / "samples").iterdir())
    assert len(grids) >= 8 and artifacts(found.info.run_id, "samples") == grids

    for _ in range(2):
        assert main(["evaluate", str(run.path), "--metrics", "mse", "--track", "mlflow"]) == 0
    (found,) = runs_of(request.node.name)
    content = json.loads((run.path / "evaluations/metrics/metrics.json").read_text())
    name = "evaluations/metrics/mse"
    assert found.data.metrics[name] == pytest.approx(content["metrics"]["mse"]["value"])
    assert histories(found.info.run_id, {name}) == {name: [400]}
    assert artifacts(found.info.run_id, "evaluations/metrics") == ["metrics.json"]
    assert found.info.status == "FINISHED"


def test_the_record_lies_behind_the_server(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The driver died after the server had taken rows and before that was noted."""
    run = new_run(tmp_path / "run")
    log(run, [1, 2, 3, 4])
    Follower(run, "mlflow", lambda: None).send()
    note = run.path / "tracking.json"
    content = json.loads(note.read_text())
    content["mlflow"]["sent"] = [1, 0]
    note.write_text(json.dumps(content))
    metrics_log.begin(run.metrics, step=1, starts=2)
    log(run, [2, 3, 4, 5], attempt=2)
    grid(run, 4)
    Follower(run, "mlflow", lambda: None).end("stopped")
    (found,) = runs_of(request.node.name)
    wanted = expected(run)
    assert histories(found.info.run_id, set(wanted)) == wanted
    assert found.info.status == "KILLED"
    assert artifacts(found.info.run_id, "samples") == ["step-000000004.png"]


def test_trials_stand_under_their_sweep(
    photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    trials = []
    for id_, status in (("one", "finished"), ("two", "stopped"), ("three", "pending")):
        run = new_run(tmp_path / "sweep" / "trials" / id_)
        (run.path / "trial.json").write_text(json.dumps({"status": status, "error": None}))
        log(run, [1, 2, 3, 4])
        trials.append(Trial(id_, run.path, {}, tiny.checked(tiny.generator(photos))))
    for _ in range(2):  # the sweep is started again
        mine = TrialsFollower(tmp_path / "sweep", "mlflow", lambda: trials, lambda: None, connect)
        mine.send()
        mine.end()
    found = {run.info.run_name: run for run in runs_of(request.node.name)}
    parent = found.pop("sweep")
    assert {name: run.info.status for name, run in found.items()} == {
        "one": "FINISHED",
        "two": "KILLED",
        "three": "KILLED",
    }
    assert parent.info.status == "FINISHED"
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert histories(run.info.run_id, {"generator/loss"}) == {"generator/loss": [1, 2, 3, 4]}
