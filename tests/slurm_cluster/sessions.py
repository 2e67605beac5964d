"""One directory for each session of tests, named after its process."""

from __future__ import annotations

import os
from pathlib import Path

from tests.slurm_cluster.cluster import Cluster, short_directory

_NAME = "gencomp-slurm-"


def session_directory(pid: int) -> Path:
    return short_directory(f"{_NAME}{pid}")


def sessions_left_behind() -> list[Cluster]:
    """Clusters of this user whose session has died and could not end them."""
    found = session_directory(0).parent.glob(f"{_NAME}*")
    return [
        Cluster(directory)
        for directory in found
        if (pid := directory.name.removeprefix(_NAME)).isdigit()
        and not Path(f"/proc/{pid}").exists()
        and directory.stat().st_uid == os.getuid()
    ]
