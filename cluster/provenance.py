"""The origin of results: the code, the command line, the processor and the software.

Runs and evaluations keep this in their environment.json, and each part of an evaluation names the
code and the processor that made it. All of it is a record: none of it is part of an identity.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import gencomp
from cluster.files import read_json, write_json
from shards.remote.clients import shown

FILE = "environment.json"
UNKNOWN = "unknown"
_PACKAGES = ("torch", "numpy", "scipy", "constriction", "pyarrow")
_CODE = ("gencomp", "shards", "cluster", "sweeps", "slurm", "pyproject.toml")
_GIT_SECONDS = 20.0
# The instruction sets on which the kernels of torch and numpy are chosen.
_INSTRUCTIONS = re.compile(r"(s?sse|avx|fma|f16c|bmi|amx|neon|asimd|sve|i8mm|bf16)\w*")
_LOCATION = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,]+")
_SECRET = re.compile(r"--\S*(password|secret|token|credential|access.?key)[^=]*", re.IGNORECASE)
_PART_KEYS = ("gencomp", "torch", "commit", "dirty", "cpu", "cpu_capability")


def environment() -> dict[str, Any]:
    """The environment of this process, for a record.

    `commit` is the git commit of the code, and `dirty` says whether its files differ from it; they
    are `unknown` and None for code that is no git checkout, such as an installed wheel.
    """
    return {
        "gencomp": gencomp.__version__,
        **code(),
        "command": command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **processor(),
        **{name: _version(name) for name in _PACKAGES},
    }


def of_part() -> dict[str, str]:
    """The environment of this process in the few words that every part of an evaluation carries."""
    found = {**code(), **processor(), "gencomp": gencomp.__version__, "torch": torch.__version__}
    return {key: str(found[key]) for key in _PART_KEYS}


def of_parts(parts: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The different environments that the metadata of parts name; older parts name less."""
    found = {tuple((key, one[key]) for key in _PART_KEYS if key in one) for one in parts}
    return [dict(one) for one in sorted(found)]


def note(directory: Path) -> None:
    """Add this environment to a directory's record, unless the same one is there already."""
    found = recorded(directory)
    if (own := environment()) not in found:
        write_json(directory / FILE, [*found, own])


def recorded(directory: Path) -> list[dict[str, Any]]:
    """The environments in a directory's record; none if there is no record."""
    return list(read_json(directory / FILE) or [])


@functools.cache
def _code() -> tuple[str, bool | None]:
    root = Path(gencomp.__file__).resolve().parent.parent
    # An installed package may lie inside somebody else's repository, which does not track it.
    if _git(root, "ls-files", "--error-unmatch", "gencomp/__init__.py") is None:
        return UNKNOWN, None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", *_CODE)
    return (commit or UNKNOWN), (None if status is None else bool(status))


def code() -> dict[str, Any]:
    """The git commit of the code (`commit`), and whether its files were changed since (`dirty`)."""
    commit, dirty = _code()
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *words: str) -> str | None:
    """What git says about the repository that holds the code; None if it says nothing or fails."""
    # Inside a hook, variables such as GIT_DIR would point to another repository.
    variables = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            env={**variables, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command(words: Sequence[str] | None = None) -> str:
    """The command line of this process as one would type it, without anything secret.

    Args:
        words: the words of the command line; by default those that this process was started with.
    """
    program, *rest = sys.argv if words is None else words
    name = Path(program).name
    said = ["gencomp" if name in ("gencomp", "__main__.py") else name]
    hide = False
    for word in rest:
        said.append("***" if hide else _without_secrets(word))
        hide = bool(_SECRET.fullmatch(word))
    return shlex.join(said)


def _without_secrets(word: str) -> str:
    option, equals, _ = word.partition("=")
    if equals and _SECRET.fullmatch(option):
        return f"{option}=***"
    return _LOCATION.sub(_clean, word)


def _clean(found: re.Match[str]) -> str:
    try:
        return shown(found.group())
    except ValueError:
        return f"{found.group().partition('://')[0]}://***"


def processor() -> dict[str, str]:
    """The model of the CPU, the instruction set that torch uses, and those that the CPU has."""
    model, flags = _processor()
    capability = torch.backends.cpu.get_cpu_capability()
    return {"cpu": model, "cpu_capability": capability, "cpu_flags": flags}


@functools.cache
def _processor() -> tuple[str, str]:
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:  # not Linux
        pass
    model = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags") or fields.get("Features") or ""
    return model, " ".join(sorted(flag for flag in flags.split() if _INSTRUCTIONS.fullmatch(flag)))


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return UNKNOWN
