"""The record of where results come from: code, command line, processor and software."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

import gencomp
from cluster import provenance


def git(repository: Path, *words: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(repository), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of a package whose code is recorded instead of this one's."""
    root = tmp_path / "code"
    (root / "gencomp").mkdir(parents=True)
    file = root / "gencomp" / "__init__.py"
    file.write_text("x = 1\n")
    monkeypatch.setattr(gencomp, "__file__", str(file))
    provenance._code.cache_clear()
    yield file
    provenance._code.cache_clear()


def test_the_commit_of_a_checkout_and_whether_its_code_was_changed(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = package.parent.parent
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "One")
    # A hook's variables, which name another repository, do not matter.
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, env={}, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert provenance.code() == {"commit": commit, "dirty": False}
    (root / "notes.txt").write_text("not code")
    provenance._code.cache_clear()
    assert provenance.code()["dirty"] is False
    for file in (package, root / "gencomp" / "new.py"):
        file.write_text("x = 2\n")
        provenance._code.cache_clear()
        assert provenance.code() == {"commit": commit, "dirty": True}
        package.write_text("x = 1\n", encoding="utf-8")


def test_an_installed_package_is_of_an_unknown_commit(package: Path) -> None:
    """It is unknown inside somebody else's repository too, which does not track the package."""
    assert provenance.code() == {"commit": "unknown", "dirty": None}
    root = package.parent.parent.parent
    git(root, "init", "-q")
    (root / "theirs.py").write_text("")
    git(root, "add", "theirs.py")
    git(root, "commit", "-qm", "Theirs")
    provenance._code.cache_clear()
    assert provenance.code() == {"commit": "unknown", "dirty": None}


def test_without_git_the_commit_is_unknown(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.code() == {"commit": "unknown", "dirty": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/usr/bin/gencomp", "train", "r", "--name", "a b"], "gencomp train r --name 'a b'"),
        (["/x/gencomp/cli/__main__.py", "files", "run"], "gencomp files run"),
        (["mine.py", "--lr=1e-3"], "mine.py --lr=1e-3"),
        (["gencomp", "--data.shards", "s3://key:secret@bucket/a"], "s3://***@bucket/a"),
        (["gencomp", "--data.shards=s3://key:secret@bucket/a"], "shards=s3://***@bucket/a"),
        (["gencomp", "s3://b/a?region=eu-1&secret_key=secret"], "s3://b/a?region=eu-1"),
        (["gencomp", "https://host/a.tar?X-Amz-Signature=secret"], "https://host/a.tar"),
        (["gencomp", "A=https://u:secret@host/x,http://v:secret@h/y"], "A=https://***@host/x,http"),
        (["gencomp", "https://[secret"], "https://***"),
        (["gencomp", "--api-token", "secret", "rest"], "--api-token *** rest"),
        (["gencomp", "--password=secret"], "--password=***"),
    ],
)
def test_command_lines_are_kept_without_secrets(words: list[str], said: str) -> None:
    found = provenance.command(words)
    assert said in found.replace("'", "") or said in found
    assert "secret@" not in found and "=secret" not in found and "token secret" not in found


def test_the_environment_names_processor_and_software() -> None:
    found = provenance.environment()
    assert found["cpu"] and found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert set(found["cpu_flags"].split()).isdisjoint({"fpu", "vme", "nx"})
    for name in ("torch", "numpy", "scipy", "constriction", "pyarrow"):
        assert found[name] == metadata.version(name)
    json.dumps(found)


def test_a_record_has_each_environment_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provenance.note(tmp_path)
    provenance.note(tmp_path)
    monkeypatch.setattr("sys.argv", ["gencomp", "again"])
    provenance.note(tmp_path)
    first, second = provenance.recorded(tmp_path)
    assert first == {**second, "command": first["command"]} and second["command"] == "gencomp again"


def test_parts_of_several_machines_and_of_older_versions() -> None:
    new, old = provenance.of_part(), {"gencomp": "0.1.0", "torch": "2.13", "plan": "p"}
    assert provenance.of_parts([new, old, {**new, "block": "1"}]) == sorted(
        [new, {"gencomp": "0.1.0", "torch": "2.13"}], key=lambda one: tuple(one.items())
    )
