"""What the daemons read: `slurm.conf`, `gres.conf` and a munge key."""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path

# Below the ports that the kernel gives away, above those of the Ray clusters inside jobs.
_PORTS = range(27000, 32000)

_TEMPLATE = """\
ClusterName=gencomp
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits cred_expire seconds (120 by default). Less than KillWait + 2 breaks nodes:
# the job comes back while its old processes still die.
AuthInfo=socket={directory}/run/munge.sock,cred_expire=8
KillWait=2
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/run/slurmctld.pid
SlurmdPidFile={directory}/run/slurmd.%n.pid
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
# Every node has an address of its own: all of 127/8 is this machine.
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.1.{number} Port={port} "
    "CPUs=2 RealMemory=4000 Gres=gpu:2"
)
# A GPU must be a character device, or its tasks see no CUDA_VISIBLE_DEVICES.
_GPUS = "NodeName={names} Name=gpu File=/dev/null\nNodeName={names} Name=gpu File=/dev/zero\n"


def write(directory: Path, nodes: int) -> None:
    """Lay out a directory for `nodes` nodes of 2 CPUs and 2 GPUs each, named n1, n2, ..."""
    for name in ("etc", "run", "log", *(f"spool.n{i + 1}" for i in range(nodes))):
        (directory / name).mkdir(parents=True)
    # munged insists: its socket is for all to reach, its key for nobody else.
    for name in ("", "run"):
        (directory / name).chmod(0o755)
    for name in ("state", "munge"):
        (directory / name).mkdir(mode=0o700)
    key = directory / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    etc = directory / "etc"
    (etc / "plugstack.conf").touch()
    (etc / "gres.conf").write_text(_GPUS.format(names=f"n[1-{nodes}]"))
    (etc / "slurm.conf").write_text(_slurm_conf(directory, nodes))


def node_names(slurm_conf: Path) -> list[str]:
    return re.findall(r"^NodeName=(\S+)", slurm_conf.read_text(encoding="utf-8"), re.MULTILINE)


def is_laid_out(directory: Path) -> bool:
    """Whether `write` has been here, so that what lies here may be removed."""
    try:
        text = (directory / "etc" / "slurm.conf").read_text()
    except FileNotFoundError:
        return False
    return f"\nStateSaveLocation={directory}/state\n" in text


def _slurm_conf(directory: Path, nodes: int) -> str:
    host = socket.gethostname().partition(".")[0]
    port = _free_ports(nodes + 1)
    lines = [
        _NODE.format(name=f"n{number}", host=host, number=number, port=port + number)
        for number in range(1, nodes + 1)
    ]
    return _TEMPLATE.format(
        directory=directory, host=host, port=port, user=os.getuid(), nodes="\n".join(lines)
    )


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
