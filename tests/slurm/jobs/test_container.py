"""Jobs in images: the batch scripts, and a job on a real Slurm with a stand-in for the programs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.slurm.slurm import SlurmExecutor

from cluster.runs import Run
from gencomp.cli import main
from gencomp.errors import InputError
from slurm.jobs import container
from slurm.jobs.container import Container
from slurm.jobs.options import Shape, SlurmOptions, parameters
from slurm.jobs.sbatch import outside_of_jobs, python
from tests.conftest import ROOT
from tests.slurm.conftest import options
from tests.waiting import PATIENCE, wait_for

# What takes the place of the image: the node itself, with the tests' Python under the plain name.
_APPTAINER = """\
#!/bin/sh
echo "$@" >{told}
while [ "$1" != IMAGE ]; do shift; done
shift
PATH={bin}:$PATH
exec "$@"
"""
# pyxis adds options to srun, which a Slurm without it refuses.
_SRUN = """\
#!/bin/bash
words=()
for word in "$@"; do
  case "$word" in
  --container-*) echo "$word" >>{told} ;;
  *) words+=("$word") ;;
  esac
done
PATH={bin}:$PATH
exec {srun} "${{words[@]}}"
"""


def test_scripts_start_python_in_the_image(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["slurm", "ais", str(run.path), *options(), "--dry-run"]
    given = ["--mount", "/shared/data", "--mount", "/opt/slurm:/usr"]
    assert main([*words, "--container", "apptainer:/shared/a b.sif", *given]) == 0
    here, runs = str(Path.cwd()), str(run.path.resolve().parent)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("exec ")]
    assert len(lines) == 3
    binds = ",".join(dict.fromkeys([here, runs, "/shared/data", "/opt/slurm:/usr"]))
    start = ["exec", "apptainer", "exec", "--bind", binds, "--pwd", here, "/shared/a b.sif"]
    end = ["python", "-P", "-u", "-m", "submitit.core._submit"]
    for line in lines:
        assert shlex.split(line)[: len(start)] == start
        assert shlex.split(line)[-6:-1] == end
    (tmp_path / "site.yaml").write_text("container: pyxis:registry#gencomp\nmount: [/data]\n")
    assert main([*words, "--profile", str(tmp_path / "site.yaml")]) == 0
    (line, *_) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("exec "))
    srun = shlex.split(line)
    assert srun[:2] == ["exec", "srun"] and "--container-image=registry#gencomp" in srun
    assert any(x.startswith("--container-mounts=") and x.endswith("/data:/data") for x in srun)


def test_gpus_are_seen_in_the_image() -> None:
    assert "--nv" in Container("apptainer", "a.sif", ("/x",)).words(1, gpu=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--container", ""], "'' must be apptainer:IMAGE or pyxis:IMAGE"),
        (["--container", "apptainer:"], "must be apptainer:IMAGE or pyxis:IMAGE"),
        (["--container", "docker:a"], "'docker:a' must be apptainer:IMAGE or pyxis:IMAGE"),
        (["--container", "pyxis:a", "--mount", "data"], "--mount 'data' must be an absolute PATH"),
        (["--container", "pyxis:a", "--mount", "/a,/b"], "must be an absolute PATH"),
        (["--mount", "/data"], "--mount is for jobs in an image"),
    ],
)
@pytest.mark.parametrize("more", [["--dry-run"], ["--executor", "local"]], ids=" ".join)
def test_bad_input_is_one_sentence(
    words: list[str],
    sentence: str,
    more: list[str],
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["slurm", "ais", str(run.path), *options(), *words, *more]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
    assert not (run.path / "evaluations").exists()


def test_jobs_on_this_machine_run_in_no_image(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*options(executor="local"), "--container", "apptainer:a.sif"]
    assert main(["slurm", "ais", str(run.path), *words]) == 2
    assert "--container is for jobs on Slurm" in capsys.readouterr().err


class Twice:
    """Work that is done in its second attempt: the first one waits for the warning of Slurm."""

    def __init__(self, begun: Path, ended: Path) -> None:
        self.begun, self.ended = begun, ended

    def __call__(self) -> None:
        if self.begun.exists():
            self.ended.touch()
            return
        self.begun.touch()
        wait_for(lambda: False, PATIENCE)

    def checkpoint(self) -> object:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Twice(self.begun, self.ended))


@pytest.mark.slurm
@pytest.mark.parametrize("kind", ["apptainer", "pyxis"])
def test_a_job_in_an_image_is_warned_and_requeues_itself(kind: str, tmp_path: Path) -> None:
    """The Slurm is real; only the program that would run the image is a stand-in."""
    programs, told = tmp_path / "programs", tmp_path / "told"
    (programs / "inside").mkdir(parents=True)
    (programs / "inside/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    text = _APPTAINER if kind == "apptainer" else _SRUN
    stand_in = programs / ("apptainer" if kind == "apptainer" else "srun")
    srun = shutil.which("srun")
    stand_in.write_text(text.format(told=told, bin=programs / "inside", srun=srun))
    for file in (programs / "inside/python", stand_in):
        file.chmod(0o755)
    asked = SlurmOptions(
        time="10",
        container=f"{kind}:IMAGE",
        setup=(f"export PATH={programs}:$PATH PYTHONPATH={ROOT}",),
    )
    found = container.of(asked, [tmp_path])
    assert found is not None
    executor = SlurmExecutor(tmp_path / "logs", python=python(found.words(1, gpu=False)))
    executor.update_parameters(**parameters(asked, Shape(name="image", comment="image")))
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    with outside_of_jobs():
        job = executor.submit(Twice(begun, ended))
    assert wait_for(begun.exists, PATIENCE)
    subprocess.run(["scancel", "-b", "-s", "USR2", job.job_id], check=True)
    log = tmp_path / "logs" / f"{job.job_id}_0_log.err"
    assert wait_for(ended.exists, PATIENCE), log.read_text()
    assert "IMAGE" in told.read_text() and str(tmp_path) in told.read_text()


def test_no_container_is_none() -> None:
    assert container.of(SlurmOptions(), [Path("/")]) is None
    with pytest.raises(InputError, match="must be"):
        container.of(SlurmOptions(container="pyxis:"), [Path("/")])
