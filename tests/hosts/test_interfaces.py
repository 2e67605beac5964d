"""Plain Ray on hosts whose default route leads elsewhere, started as its help says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gencomp.exit_codes import BAD_INPUT
from tests import tiny
from tests.cluster.ray_train.test_scaling import endless
from tests.hosts import Hosts
from tests.hosts.ray_nodes import RayNodes

pytestmark = [pytest.mark.hosts, pytest.mark.slow]


def test_an_address_that_workers_do_not_reach_is_named(
    photos: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tiny.write(endless(photos), tmp_path / "tiny.yaml")
    words = (sys.executable, "-m", "gencomp.cli", "train", str(file), "--runs", str(tmp_path))
    with Hosts(2, tmp_path_factory.getbasetemp(), second_interface=True) as hosts:
        ray = RayNodes(hosts, tmp_path)
        done = hosts.run("n1", *words, "--workers", "2", env=ray.environment, check=False)
        wrong = hosts.second_address("n1")
    assert done.returncode == BAD_INPUT, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("gencomp: error: ")]
    assert f"n2 does not reach n1 at {wrong}, the address by which Ray knows it" in said
    assert "--node-ip-address=ADDRESS" in said
