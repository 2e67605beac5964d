"""A Slurm across hosts that are set up as one finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import Hosts
from tests.hosts.slurm_nodes import SlurmNodes


@pytest.fixture
def slurm_nodes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNodes]:
    """A controller on n1 with the nodes n2 and n3, which share the directories of all tests.

    No host knows another's name, each takes its own for 127.0.1.1, and the default route is that
    of a second interface, which leads nowhere.
    """
    shared = tmp_path_factory.getbasetemp()
    with Hosts(3, shared, own_name="127.0.1.1", peers=False, second_interface=True) as hosts:
        cluster = SlurmNodes(tmp_path / "slurm", hosts)
        cluster.up()
        yield cluster
