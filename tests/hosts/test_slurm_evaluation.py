"""An evaluation on a Slurm across hosts, elements of whose array die on both of them."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.runs import Run
from gencomp.cli import main
from slurm.jobs import ledger, restartable
from slurm.kinds.curve import CurveJobs
from tests.curves import finished, run  # noqa: F401
from tests.hosts.slurm_nodes import SlurmNodes
from tests.hosts.slurm_runs import SUBMITS, command
from tests.hosts.strangers import writable_by_others
from tests.slurm import test_real_slurm as one_machine
from tests.slurm.test_real_slurm import Running, ais, directory, progress, result
from tests.waiting import wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.slurm, pytest.mark.slow]

# A block for each element: a few seconds of work, enough to be hit between two of its steps.
OPTIONS = {"images": 3, "temperatures": 300, "cpus_per_task": 1}


@pytest.fixture
def undisturbed(finished: Run, tmp_path: Path) -> Run:  # noqa: F811
    """The same evaluation on this machine, with nothing in its way."""
    alone = Run(Path(shutil.copytree(finished.path, tmp_path / "undisturbed" / "g")))
    assert main(ais(alone, executor="debug", **OPTIONS)) == 0
    return alone


def test_elements_die_on_both_hosts(
    slurm_nodes: SlurmNodes,
    run: Run,  # noqa: F811
    undisturbed: Run,
) -> None:
    """A host with one element loses its power; on the other host one of two elements is killed.

    Slurm starts the first again on the host that is left. The second fails, and the same command
    goes on with the chains that it has saved. The third notices nothing.
    """
    hosts = slurm_nodes.hosts
    directory(run).mkdir(parents=True)
    for name in ("plan.json", "tuning.npz"):  # the pilot is over
        shutil.copy(directory(undisturbed) / name, directory(run))

    def submit(*more: str) -> None:
        words = command(*ais(run, *more, jobs=3, **OPTIONS))
        hosts.run(SUBMITS, *words, env=slurm_nodes.variables)

    def until(condition: Callable[[], object]) -> None:
        assert wait_for(condition, pause=0.1), slurm_nodes.run("squeue", "--states=all", "-r")

    def send(job: Running, number: int) -> None:
        hosts.run(job.node, "kill", f"-{number}", str(job.pid))

    def look(run: Run) -> list[Running]:
        return one_machine.running(run, slurm_nodes.run)

    submit()
    met = one_machine.frozen(run, 3, look, send)
    nodes = [job.node for job in met]
    (lonely,) = [job for job in met if nodes.count(job.node) == 1]
    killed, spared = [job for job in met if job is not lonely]
    hosts.cut_power(lonely.node)
    state = ("squeue", "-h", "-r", "-o", "%T", "-j", lonely.id)
    until(lambda: slurm_nodes.run(*state).strip() == "PENDING")

    array = CurveJobs.open(directory(run))
    (block,) = next(job.blocks for job in ledger.read(array) if job.name == killed.name)
    chains = array.evaluation.chains(block)
    # A job saves at its next step when it has not saved for so long.
    until(lambda: time.time() - killed.told > restartable.SAVE_SECONDS)
    send(killed, signal.SIGCONT)
    until(chains.exists)
    send(killed, signal.SIGKILL)
    send(spared, signal.SIGCONT)
    until(lambda: not slurm_nodes.run("squeue", "-h"))
    assert array.missing() == [block] and chains.exists()
    assert array.collected  # merging has waited for the element that was started again
    told = {job: progress(run, job.name) for job in (lonely, killed, spared)}
    assert [at["attempt"] for at in told.values()] == [2, 1, 1]
    assert told[lonely]["host"] == spared.node

    submit("--wait")
    assert not list(writable_by_others(run.path))
    assert result(run) == result(undisturbed)
