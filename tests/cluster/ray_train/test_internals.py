"""What gencomp takes from inside Ray: a newer Ray that has changed it is named here, part by part.

pyproject.toml pins Ray's minor version because of these. When this test fails after an upgrade,
`cluster/ray_train` and `sweeps/ray_tune.py` are the files to look at.
"""

from __future__ import annotations

import dataclasses
import inspect
from importlib import import_module

import pytest

V2 = "ray.train.v2._internal"


@pytest.mark.parametrize(
    ("module", "name", "members"),
    [
        (
            f"{V2}.execution.scaling_policy",
            "ScalingPolicy",
            [
                "make_decision_for_non_running_worker_group",
                "make_decision_for_running_worker_group",
                "after_controller_start",
                "_maybe_send_resource_request",
            ],
        ),
        (f"{V2}.execution.callback", "RayTrainCallback", []),
        (f"{V2}.callbacks.placement_group_callback", "PlacementGroupCleanerCallback", []),
        (f"{V2}.callbacks", "DatasetsCallback", []),
        (f"{V2}.exceptions", "WorkerGroupStartupFailedError", []),
        ("ray.train.v2.api.result", "Result", []),
        ("ray.tune.progress_reporter", "TrialProgressCallback", []),
        ("ray.tune.experiment.trial", "Trial", ["set_status"]),
    ],
)
def test_what_is_taken_from_inside_ray_is_there(module: str, name: str, members: list[str]) -> None:
    found = getattr(import_module(module), name, None)
    assert found is not None, f"{module} has no {name} any more"
    for member in members:
        assert callable(getattr(found, member, None)), f"{module}.{name} has no {member} any more"


def test_a_resize_decision_takes_a_number_of_workers_and_their_resources() -> None:
    decision = import_module(f"{V2}.execution.scaling_policy").ResizeDecision
    fields = {field.name for field in dataclasses.fields(decision)}
    assert {"num_workers", "resources_per_worker"} <= fields


def test_the_decisions_of_a_policy_take_what_ours_take() -> None:
    from cluster.ray_train.scaling import AsManyAsFit

    policy = import_module(f"{V2}.execution.scaling_policy").ScalingPolicy
    for name in policy.__abstractmethods__:
        asked = list(inspect.signature(getattr(policy, name)).parameters)
        ours = list(inspect.signature(getattr(AsManyAsFit, name)).parameters)
        assert asked == ours, f"ScalingPolicy.{name} takes {asked}, AsManyAsFit's {ours}"
