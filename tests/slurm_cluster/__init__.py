"""A Slurm of one's own: a controller and some emulated nodes on this machine, for any user.

Needs Debian's packages `slurm-wlm` and `munge`, no root, no systemd, no cgroups and no system
daemon. Everything lives in one short directory and on ports that were free; a munge key of its own
keeps other clusters on the machine apart. The daemons of the nodes listen on every address, but
answer nobody without that key.

    cluster.py         start, look, stop
    configuration.py   slurm.conf
    processes.py       whose processes are whose
    faults.py          nodes and controllers that go away
    sessions.py        a directory for each session of tests
    __main__.py        python -m tests.slurm_cluster up|down|status
"""

from tests.slurm_cluster.cluster import MEND, Cluster, missing_programs

__all__ = ["MEND", "Cluster", "missing_programs"]
