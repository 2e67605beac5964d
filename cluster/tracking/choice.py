"""The trackers by name. The package of a tracker is imported only when a run is opened in it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

from cluster.tracking.tracker import Described, Group, Tracker
from gencomp.errors import InputError

Name = Literal["mlflow", "wandb", "trackio"]
_PROJECT_VARIABLES: dict[Name, str] = {
    "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "wandb": "WANDB_PROJECT",
    "trackio": "TRACKIO_PROJECT",  # which Transformers reads, and Trackio itself does not
}


def require(name: Name) -> None:
    """Raise `InputError` where a tracker is not installed, or does not know where to write."""
    if find_spec(name) is None:
        raise InputError(f"--track {name} needs a package: pip install 'gencomp[{name}]'")
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError(
            "--track mlflow needs the address of the server in MLFLOW_TRACKING_URI, such as"
            " http://127.0.0.1:5000"
        )
    for variable in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        if name == "trackio" and os.environ.get(variable):
            raise InputError(
                f"--track trackio writes to Trackio's directory, not to what {variable} names:"
                " unset it, and bring the project there afterwards with trackio sync"
            )


def project(name: Name) -> str:
    """The project or experiment that the tracker's own variable names; `gencomp` by default."""
    return os.environ.get(_PROJECT_VARIABLES[name]) or "gencomp"


def connect(name: Name, run: Described) -> Tracker:
    """The run in the tracker; it is made if the tracker does not have it."""
    if name == "mlflow":
        from cluster.tracking.mlflow_runs import MlflowRun

        return MlflowRun(run)
    if name == "trackio":
        from cluster.tracking.trackio_runs import TrackioRun

        return TrackioRun(run)
    from cluster.tracking.wandb_runs import WandbRun

    return WandbRun(run)


def end_group(name: Name, project: str, group: Group) -> None:
    """Say that no trial of a sweep runs now; W&B and Trackio have nothing of a group's own."""
    if name == "mlflow":
        from cluster.tracking import mlflow_runs

        mlflow_runs.end_group(project, group)
