"""Hosts that share nothing but a directory, all on this machine, made of Linux's namespaces.

    with Hosts(2, shared=tmp_path) as hosts:
        hosts.run("n1", sys.executable, "-c", "...")     # like subprocess.run
        with hosts.start("n2", ...) as process:          # like subprocess.Popen
            hosts.unplug("n2")                           # the cable; hosts.plug("n2")
            hosts.cut_power("n2")                        # hosts.boot("n2")

Each host has network interfaces, a host name, process numbers, a boot id, /tmp, /dev/shm, /run,
/root and /etc/hosts of its own; the clock is that of the machine. It needs root and Debian's
packages iproute2 and util-linux. Nothing of the machine is changed, and all hosts end with the
process that made them, however that ends.

    hosts.py            the hosts, seen from outside
    first_process.py    the first process of a host
    ray_nodes.py        Ray on the hosts, as its users start it
    slurm_nodes.py      a Slurm across the hosts
    slurm_runs.py       a run that this Slurm trains
    strangers.py        what the hosts tell to who has no token
"""

from tests.hosts.hosts import Hosts, why_impossible

__all__ = ["Hosts", "why_impossible"]
