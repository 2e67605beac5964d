"""What the daemons read: `slurm.conf`, `gres.conf` and a munge key."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

# Below the ports that the kernel gives away, above those of the Ray clusters inside jobs.
_PORTS = range(27000, 32000)

_TEMPLATE = """\
ClusterName=gencomp
SlurmctldHost={controller.host}({controller.address})
SlurmctldPort={controller.port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits cred_expire seconds (120 by default). Less than KillWait + 2 breaks nodes:
# the job comes back while its old processes still die.
AuthInfo=socket={own}/run/munge.sock,cred_expire=8
KillWait=2
StateSaveLocation={own}/state
SlurmdSpoolDir={own}/spool.%n
SlurmctldPidFile={own}/run/slurmctld.pid
SlurmdPidFile={own}/run/slurmd.%n.pid
SlurmctldLogFile={directory}/log/slurmctld.log
SlurmdLogFile={directory}/log/slurmd.%n.log
# Nothing of the machine's own Slurm, cgroups or limits.
PlugStackConfig={directory}/etc/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Without sched_interval a job whose begin time has passed waits another quarter of a minute.
SchedulerType=sched/backfill
# Fewer than the default of 1001, so that a test can ask for more.
MaxArraySize=32
SchedulerParameters=sched_interval=2,sched_min_interval=100000,batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# Nodes may have more CPUs than the machine.
SlurmdParameters=config_overrides
# A node that was set down stays down until it is resumed; one that was lost may come back.
ReturnToService=1
JobRequeue=1
SlurmdTimeout=10
SlurmctldTimeout=30
TCPTimeout=2
MinJobAge=3600
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""
_NODE = (
    "NodeName={name} NodeHostname={at.host} NodeAddr={at.address} Port={at.port} "
    "CPUs=2 RealMemory=4000 Gres=gpu:2\n"
)
# A GPU must be a character device, or its tasks see no CUDA_VISIBLE_DEVICES.
_GPUS = "NodeName={names} Name=gpu File=/dev/null\nNodeName={names} Name=gpu File=/dev/zero\n"


class Place(NamedTuple):
    """The place where a daemon runs, and where the others reach it."""

    host: str
    address: str
    port: int


def write(directory: Path, nodes: int) -> None:
    """Lay out a directory for `nodes` nodes of this machine, named n1, n2, ..."""
    host = socket.gethostname().partition(".")[0]
    port = _free_ports(nodes + 1)
    # Every node has an address of its own: all of 127/8 is this machine.
    places = {f"n{i}": Place(host, f"127.0.1.{i}", port + i) for i in range(1, nodes + 1)}
    write_shared(directory, directory, Place(host, "127.0.0.1", port), places)
    # The controller listens where its host's name leads, here on this machine only.
    with (directory / "etc" / "slurm.conf").open("a", encoding="utf-8") as file:
        file.write("CommunicationParameters=NoCtldInAddrAny\n")
    write_own(directory, places, secrets.token_bytes(1024))


def write_shared(directory: Path, own: Path, controller: Place, nodes: Mapping[str, Place]) -> None:
    """Write what all daemons read, and make the directory of their logs.

    Args:
        directory: where it is written.
        own: the directory that each host has for itself.
        controller: the place of the controller.
        nodes: the places of the nodes by their names; each has 2 CPUs and 2 GPUs.
    """
    etc = directory / "etc"
    for path in (etc, directory / "log"):
        path.mkdir(parents=True)
    text = _TEMPLATE.format(
        directory=directory,
        own=own,
        controller=controller,
        user=os.getuid(),
        nodes="".join(_NODE.format(name=name, at=at) for name, at in nodes.items()).rstrip(),
    )
    (etc / "slurm.conf").write_text(text, encoding="utf-8")
    (etc / "plugstack.conf").touch()
    gpus = _GPUS.format(names=",".join(nodes))
    (etc / "gres.conf").write_text(gpus, encoding="utf-8")


def write_own(own: Path, nodes: Iterable[str], munge_key: bytes) -> None:
    """Lay out the directory that a host has for itself, for the daemons of some nodes."""
    for name in ("run", *(f"spool.{node}" for node in nodes)):
        (own / name).mkdir(parents=True)
    # munged insists: its socket is for all to reach, its key for nobody else.
    for name in ("", "run"):
        (own / name).chmod(0o755)
    for name in ("state", "munge"):
        (own / name).mkdir(mode=0o700)
    key = own / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(munge_key)


def node_names(slurm_conf: Path) -> list[str]:
    return re.findall(r"^NodeName=(\S+)", slurm_conf.read_text(encoding="utf-8"), re.MULTILINE)


def is_laid_out(directory: Path) -> bool:
    """Whether `write_shared` has been here, so that what lies here may be removed."""
    try:
        text = (directory / "etc" / "slurm.conf").read_text()
    except FileNotFoundError:
        return False
    return f"\nSlurmctldLogFile={directory}/log/slurmctld.log\n" in text


def _free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody uses; random, since others look as well."""
    starts = list(range(_PORTS.start, _PORTS.stop - count, count))
    # Not `random`: tests give it a fixed seed.
    secrets.SystemRandom().shuffle(starts)
    for start in starts:
        if all(map(_is_free, range(start, start + count))):
            return start
    raise RuntimeError(f"no {count} free ports in a row between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
