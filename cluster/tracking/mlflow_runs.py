"""Runs on an MLflow server, whose address is in MLFLOW_TRACKING_URI.

A run carries its id as the tag `gencomp.id`, by which the next attempt finds it. The server writes
a batch of metrics to its database in one transaction, so that it can be asked, by one metric of a
row, whether it has the row.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# An attempt to reach a server must end soon, since the follower tries again by itself.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
# The driver says where the run is found; MLflow would print it among the rows.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException

from cluster.logs.metrics_log import Row
from cluster.tracking.tracker import Described, Group, Outcome, metrics_of

_ID, _PARENT = "gencomp.id", "mlflow.parentRunId"
_STATUS: dict[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_MOST_PARAMETERS = 100
_LONGEST_VALUE = 6000  # characters


class MlflowRun:
    """A `cluster.tracking.tracker.Tracker`."""

    def __init__(self, run: Described) -> None:
        self._client = MlflowClient()
        experiment = _experiment(self._client, run.project)
        tags: dict[str, Any] = {}
        if run.group is not None:
            parent = _found_or_made(self._client, experiment, run.group.id, run.group.name, {})
            self._mark(parent, "RUNNING")
            tags[_PARENT] = parent.info.run_id
        found = _found_or_made(self._client, experiment, run.id, run.name, tags)
        self._mark(found, "RUNNING")
        self._id = found.info.run_id
        self.where = f"run {self._id} of experiment {run.project}"
        self._log_parameters(run.values, found.data.params)

    def held(self) -> None:
        return None  # `has_row` tells

    def has_row(self, row: Row) -> bool:
        name = _allowed(min(metrics_of(row)))
        history = self._client.get_metric_history(self._id, name)
        return any(metric.step == row["step"] for metric in history)

    def has_grid(self, path: Path) -> bool:
        return False  # an artifact takes the place of an earlier one of its name

    def log_rows(self, rows: Sequence[Row], number: int) -> None:
        # The time of the row, not of the sending: the server takes an equal metric only once.
        metrics = [
            Metric(_allowed(name), value, round(row["time"] * 1000), row["step"])
            for row in rows
            for name, value in metrics_of(row).items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def log_grid(self, path: Path, step: int, number: int) -> None:
        self.attach(path, "samples")

    def log_result(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        time = round(seconds * 1000)
        metrics = [Metric(_allowed(name), value, time, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def attach(self, path: Path, folder: str) -> None:
        self._client.log_artifact(self._id, str(path), folder)

    def end(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._id, _STATUS[outcome])

    def _mark(self, run: Run, status: str) -> None:
        if run.info.status != status:
            self._client.update_run(run.info.run_id, status=status)

    def _log_parameters(self, values: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log the values that the run lacks, since MLflow refuses to change one."""
        new = [
            Param(_allowed(name), str(value)[:_LONGEST_VALUE])
            for name, value in values.items()
            if _allowed(name) not in known
        ]
        for first in range(0, len(new), _MOST_PARAMETERS):
            self._client.log_batch(self._id, params=new[first : first + _MOST_PARAMETERS])


def end_group(project: str, group: Group) -> None:
    """Mark the run that stands for a sweep as finished."""
    client = MlflowClient()
    if (found := _find(client, _experiment(client, project), group.id)) is not None:
        client.set_terminated(found.info.run_id, "FINISHED")


def _found_or_made(
    client: MlflowClient, experiment: str, id_: str, name: str, tags: Mapping[str, Any]
) -> Run:
    found = _find(client, experiment, id_)
    return found or client.create_run(experiment, tags={**tags, _ID: id_}, run_name=name)


def _find(client: MlflowClient, experiment: str, id_: str) -> Run | None:
    runs = client.search_runs([experiment], f"tags.`{_ID}` = '{id_}'", ViewType.ALL, max_results=1)
    return runs[0] if runs else None


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another run has made it just now
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return "".join(one if one.isalnum() or one in "_-. /" else "_" for one in name)
