"""`python -m tests.slurm_cluster up|down|status`: a Slurm to try things out on.

eval "$(python -m tests.slurm_cluster up)"    # this shell now sees it
gencomp slurm ais RUN
python -m tests.slurm_cluster down            # with all of its jobs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.slurm_cluster.cluster import MEND, Cluster, missing_programs, short_directory


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm_cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("--nodes", type=int, default=2, help="of 2 CPUs and 2 GPUs (default 2)")
    parser.add_argument(
        "--directory",
        type=lambda text: Path(text).resolve(),
        default=short_directory(f"gencomp-slurm-u{os.getuid()}"),
        help="where everything lives (default %(default)s)",
    )
    asked = parser.parse_args(words)
    if not 1 <= asked.nodes <= 100:
        parser.error(f"--nodes {asked.nodes} must be between 1 and 100")
    cluster = Cluster(asked.directory)
    try:
        return {"up": _up, "down": _down, "status": _status}[asked.action](cluster, asked.nodes)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1


def _up(cluster: Cluster, nodes: int) -> int:
    if missing := missing_programs():
        print(f"there is no {', '.join(missing)} here: {MEND}", file=sys.stderr)
        return 2
    cluster.up(nodes)
    print(f"nodes {', '.join(cluster.nodes)} in {cluster.directory}", file=sys.stderr)
    print(f"export SLURM_CONF={cluster.slurm_conf}")
    return 0


def _down(cluster: Cluster, nodes: int) -> int:
    cluster.down()
    return 0


def _status(cluster: Cluster, nodes: int) -> int:
    if not cluster.exists or not cluster.states():
        print(f"no Slurm answers in {cluster.directory}")
        return 1
    print(cluster.run("sinfo"), cluster.run("squeue"), sep="\n", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
