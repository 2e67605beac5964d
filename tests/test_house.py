"""The house: one set of versions everywhere, floors that hold, and nothing of one machine in it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gencomp import __version__
from tests.processes import ENVIRONMENT
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _lines(lock: str) -> list[str]:
    lines = (ROOT / lock).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _versions(lines: list[str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


LOCK_LINES, DOCS_LOCK_LINES = _lines("requirements.lock"), _lines("requirements-docs.lock")
LOCK, DOCS_LOCK = _versions(LOCK_LINES), _versions(DOCS_LOCK_LINES)
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
# One method a folder, beside what several of them share.
METHODS = sorted(
    path.parent.name
    for path in (ROOT / "gencomp" / "systems").glob("*/__init__.py")
    if path.parent.name != "common"
)


# The networks of one method, which may fill several files.
NETWORKS = sorted(
    {
        name
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        for name in contract.get("forbidden_modules", ())
        if name.startswith("gencomp.networks.")
    }
)


# Their packages are large and are not installed by make; docs/tracking.md says what was tested.
TRACKERS = ("mlflow", "wandb", "trackio")


def _declared() -> list[Requirement]:
    """Every requirement in pyproject.toml, with the extras but for the site's and the trackers'."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    lists = [
        PROJECT["build-system"]["requires"],
        project["dependencies"],
        *(extras[name] for name in extras if name not in ("docs", *TRACKERS)),
    ]
    every = [Requirement(one) for some in lists for one in some]
    return [one for one in every if one.name != project["name"]]


class TestVersions:
    def test_lock_has_exact_public_versions_only(self) -> None:
        """No build of one platform, no file, no address: the lock fits every machine."""
        for lines, lock in ((LOCK_LINES, LOCK), (DOCS_LOCK_LINES, DOCS_LOCK)):
            assert all(re.fullmatch(r"[\w.-]+==\d[\w.]*", line) for line in lines)
            assert len(lock) == len(lines)

    @pytest.mark.parametrize("wanted", _declared(), ids=str)
    def test_lock_is_inside_the_ranges(self, wanted: Requirement) -> None:
        assert wanted.specifier.contains(LOCK[canonicalize_name(wanted.name)])

    def test_the_site_has_a_lock_of_its_own(self) -> None:
        """What builds the site is not in the environment of the code."""
        for wanted in map(Requirement, PROJECT["project"]["optional-dependencies"]["docs"]):
            name = canonicalize_name(wanted.name)
            assert wanted.specifier.contains(DOCS_LOCK[name]) and name not in LOCK
        makefile = (ROOT / "Makefile").read_text()
        assert "$(DOCS_STAMP): requirements-docs.lock\n" in makefile
        (build,) = re.findall(r"bin/mkdocs build (.*)", makefile)
        # mkdocs that is told to be quiet counts no warnings, so that nothing is an error.
        assert "--strict" in build and not re.search(r"-q\b|--quiet", build)

    def test_environment_uses_the_lock_and_the_same_python(self) -> None:
        environment = yaml.safe_load((ROOT / "environment.yml").read_text())
        conda = [one for one in environment["dependencies"] if isinstance(one, str)]
        (pip,) = [one["pip"] for one in environment["dependencies"] if isinstance(one, dict)]
        assert environment["name"] == PROJECT["project"]["name"]
        assert pip == ["-r requirements.lock", "-e ."]
        (python,) = [one.partition("=")[2] for one in conda if one.startswith("python=")]
        assert f"PYTHON ?= python{python}\n" in (ROOT / "Makefile").read_text()
        assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
        assert PROJECT["tool"]["mypy"]["python_version"] == python
        assert PROJECT["tool"]["ruff"]["target-version"] == "py" + python.replace(".", "")
        # Everything with a version comes from the lock, so conda may bring Python and pip only.
        assert {one.partition("=")[0] for one in conda} == {"python", "pip"}

    def test_makefile_uses_the_lock(self) -> None:
        makefile = (ROOT / "Makefile").read_text()
        assert "install --prefer-binary -r requirements.lock" in makefile
        assert "\ndocs: $(STAMP) $(DOCS_STAMP)\n" in makefile
        for target in ("demo", "test", "lint", "bench"):
            assert re.search(rf"^{target}: \$\(STAMP\)$", makefile, re.MULTILINE), target

    def test_lock_is_closed(self) -> None:
        """What an installed package needs is in the lock, so nothing is resolved at install time.

        A parent that pins its child exactly (torch and its CUDA packages) does the same job.
        """
        todo = [(one, "") for one in _declared()]
        seen: set[tuple[str, str]] = set()
        while todo:
            wanted, parent = todo.pop()
            name = canonicalize_name(wanted.name)
            if name not in LOCK:
                assert str(wanted.specifier).startswith("=="), f"{parent} needs {wanted}"
                continue
            assert wanted.specifier.contains(LOCK[name]), f"{parent} needs {wanted}"
            for extra in ["", *wanted.extras]:
                if (name, extra) in seen:
                    continue
                seen.add((name, extra))
                children = map(Requirement, metadata.requires(wanted.name) or [])
                todo += [
                    (child, name)
                    for child in children
                    if child.marker is None or child.marker.evaluate({"extra": extra})
                ]
        strays = set(LOCK) - {name for name, _ in seen}
        assert not strays, "in the lock, but nothing needs it"

    def test_the_packages_for_model_files_are_among_all(self) -> None:
        """The page on model files installs them alone, in the words of the group."""
        group = PROJECT["dependency-groups"]["codec"]
        assert set(group) <= set(PROJECT["project"]["dependencies"])
        page = (ROOT / "docs" / "model_files.md").read_text()
        assert f"pip install {' '.join(map(shlex.quote, group))}\n" in page

    def test_one_version_of_gencomp(self) -> None:
        assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "gencomp.__version__"
        assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


class TestFloors:
    """The contracts in pyproject.toml must refuse what they claim to refuse."""

    @pytest.fixture
    def house(self, tmp_path: Path) -> Path:
        """The same floors with empty rooms, under the same contracts."""
        text = (ROOT / "pyproject.toml").read_text()
        start = text.index("[tool.importlinter]")
        (tmp_path / "pyproject.toml").write_text(text[start:])
        rooms = ("cli", "coding", "evaluation", "external", "figures", "networks")
        inside = [f"gencomp/{room}" for room in (*rooms, "rate_distortion", "report", "systems")]
        methods = [f"gencomp/systems/{name}" for name in METHODS]
        methods += [name.replace(".", "/") for name in NETWORKS]
        for package in ("cluster", "gencomp", "shards", "slurm", "sweeps", *inside, *methods):
            (tmp_path / package).mkdir()
            (tmp_path / package / "__init__.py").touch()
            (tmp_path / package / "room.py").touch()
        return tmp_path

    def _lint(self, house: Path, imports: list[tuple[str, str]]) -> int:
        for importer, imported in imports:
            with (house / importer).open("a") as file:  # inside a function: it counts as well
                file.write(f"def use_{imported.replace('.', '_')}():\n    import {imported}\n")
        done = subprocess.run(
            [str(LINT_IMPORTS), "--no-cache"],
            cwd=house,
            env={**os.environ, "PYTHONPATH": str(house)},
            capture_output=True,
            text=True,
        )
        assert "Contracts:" in done.stdout, done.stdout + done.stderr
        return done.returncode

    def test_the_way_down_is_free(self, house: Path) -> None:
        allowed = [
            ("slurm/room.py", "sweeps.room"),
            ("slurm/room.py", "submitit"),
            ("sweeps/room.py", "cluster.room"),
            ("sweeps/room.py", "ray"),
            ("cluster/room.py", "gencomp.room"),
            ("cluster/room.py", "shards.room"),
            ("cluster/room.py", "ray"),
            ("gencomp/room.py", "torch"),
            *(("gencomp/cli/room.py", f"{name}.room") for name in ("slurm", "cluster", "shards")),
            ("gencomp/cli/room.py", "ray"),
            ("gencomp/cli/__init__.py", "gencomp.room"),
            ("cluster/room.py", "gencomp.systems"),
            ("gencomp/rate_distortion/room.py", "gencomp.networks.room"),
            *(("gencomp/systems/__init__.py", f"gencomp.systems.{name}.room") for name in METHODS),
            *((f"gencomp/systems/{name}/room.py", f"gencomp.networks.{name}") for name in METHODS),
        ]
        assert self._lint(house, allowed) == 0

    @pytest.mark.parametrize(
        ("importer", "imported"),
        [
            ("gencomp/room.py", "shards.room"),
            ("gencomp/room.py", "cluster.room"),
            ("gencomp/room.py", "gencomp.cli.room"),
            ("gencomp/room.py", "ray"),
            ("gencomp/room.py", "submitit"),
            ("shards/room.py", "gencomp.room"),
            ("shards/room.py", "gencomp.cli"),
            ("shards/room.py", "torch"),
            ("shards/room.py", "ray"),
            ("cluster/room.py", "sweeps.room"),
            ("cluster/room.py", "submitit"),
            ("sweeps/room.py", "slurm.room"),
            ("sweeps/room.py", "submitit"),
            ("slurm/room.py", "gencomp.cli.room"),
            ("cluster/room.py", "gencomp.systems.dplc"),
            ("gencomp/cli/room.py", "gencomp.systems.vae.room"),
            ("gencomp/evaluation/room.py", "gencomp.systems.dplc.room"),
            ("gencomp/report/room.py", "gencomp.networks.dplc"),
            ("slurm/room.py", "gencomp.networks.vae"),
        ],
    )
    def test_the_way_up_is_closed(self, house: Path, importer: str, imported: str) -> None:
        assert self._lint(house, [(importer, imported)]) == 1


def _circle(packages: list[str]) -> str:
    """A circle of imports among the modules of some packages, in words; empty where there is none.

    Imports for types and imports inside functions count.
    """
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=False, cache_dir=None)
    imports = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found = error.args[1][::-1]  # each of them imports the next one
        lines = [
            f"{one} imports {other} in line {where['line_number']}: {where['line_contents']}"
            for one, other in pairwise(found)
            for where in graph.get_import_details(importer=one, imported=other)
        ]
        return "\n".join(["these modules import each other in a circle:", *lines])
    return ""


class TestCircles:
    """What two modules need from each other stands in a third one that both import."""

    def test_no_module_imports_itself_through_others(self) -> None:
        circle = _circle(PROJECT["tool"]["importlinter"]["root_packages"])
        assert not circle, circle

    def test_types_and_functions_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        house = tmp_path / "house_with_a_circle"
        (house / "room").mkdir(parents=True)
        for name in ("__init__", "room/__init__", "room/a", "b", "c"):
            (house / f"{name}.py").touch()
        (house / "room" / "a.py").write_text("from ..b import B\n")
        (house / "b.py").write_text(
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import C\n"
        )
        assert not _circle([house.name])
        (house / "c.py").write_text("def use():\n    from .room.a import A\n")
        assert set(_circle([house.name]).splitlines()[1:]) == {
            f"{house.name}.room.a imports {house.name}.b in line 1: from ..b import B",
            f"{house.name}.b imports {house.name}.c in line 3: from .c import C",
            f"{house.name}.c imports {house.name}.room.a in line 2: from .room.a import A",
        }


class TestMethods:
    """What other floors need of a method is a hook of `System` or a word of its recipe."""

    # The command that shows the product names the recipes that it runs.
    EXEMPT = ("gencomp/cli/demo.py",)
    FREE = ("gencomp/systems/", "gencomp/recipes/", "gencomp/networks/")

    def test_the_contract_lists_the_networks_of_every_method(self) -> None:
        contracts = PROJECT["tool"]["importlinter"]["contracts"]
        (found,) = [one for one in contracts if one["name"] == "No floor names a method"]
        networks = ROOT / "gencomp" / "networks"
        own = [
            name
            for name in METHODS
            if (networks / f"{name}.py").exists() or (networks / name).is_dir()
        ]
        assert own and {f"gencomp.networks.{name}" for name in own} <= {*found["forbidden_modules"]}

    def test_no_code_of_another_floor_names_one(self) -> None:
        """Names and texts; what a docstring or a comment gives as an example is free."""
        method = re.compile(rf"(?<![a-z])({'|'.join(METHODS)})(?![a-z])", re.IGNORECASE)
        found = []
        for floor in ("cluster", "gencomp", "shards", "slurm", "sweeps"):
            for path in sorted((ROOT / floor).rglob("*.py")):
                name = path.relative_to(ROOT).as_posix()
                if name.startswith(self.FREE) or name in self.EXEMPT:
                    continue
                found += [
                    f"{name}:{line}: {word}"
                    for line, word in _words(ast.parse(path.read_text()))
                    if method.search(word)
                ]
        assert not found, "\n".join(found)


def _words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name, imported module and text of a file with its line, but for docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if node not in docstrings:
                yield node.lineno, text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ImportFrom(module=str(module)):
                yield node.lineno, module
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)


def _files() -> list[Path]:
    """The files of the project: tracked ones, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """No home or work folder of anybody, not this checkout, not this host."""
    patterns = [r"(?<![\w.~])/(?:home|root|Users|work|workspace)/\w", re.escape(str(ROOT)) + r"\b"]
    host = socket.gethostname()
    if len(host) > 7 and host != "localhost":
        patterns.append(rf"\b{re.escape(host)}\b")
    forbidden = re.compile("|".join(patterns))
    found = []
    for path in _files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{path.relative_to(ROOT)}:{i}: {x}" for i, x in lines if forbidden.search(x)]
    assert not found, "\n".join(found)


def test_nothing_from_a_network_is_unpickled() -> None:
    """The object collectives of torch run the code that a peer sends them."""
    forbidden = re.compile(r"\w*(gather|broadcast|scatter|send|recv)_object\w*")
    found = []
    for package in ("cluster", "gencomp", "shards", "slurm", "sweeps"):
        for file in sorted((ROOT / package).rglob("*.py")):
            words = _words(ast.parse(file.read_text()))
            found += [f"{file}:{line}: {word}" for line, word in words if forbidden.fullmatch(word)]
    assert not found, "\n".join(found)


# What commands in messages hold beside quoted words: numbers, names of metrics, quoted words.
_NEEDS_NO_QUOTES = {"_WORDS.get(whole, whole)", "patches", "len(plan.rows)", "named", "paths"}
_COMMAND = re.compile(r"gencomp (?!reads )[a-z]+ [^`;]*$")


@pytest.mark.parametrize("package", ["cluster", "gencomp", "shards", "slurm", "sweeps"])
def test_commands_in_messages_are_quoted_for_the_shell(package: str) -> None:
    """A command that names a path with a space can be copied and run."""
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.JoinedStr):
                continue
            said = ""
            for part in node.values:
                if isinstance(part, ast.Constant):
                    said += str(part.value)
                    continue
                value = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
                quoted = value.startswith("shlex.quote(") or value in _NEEDS_NO_QUOTES
                if _COMMAND.search(said) and not quoted:
                    found.append(f"{file.relative_to(ROOT)}:{part.lineno}: {said}{{{value}}}")
                said += "X"
    assert not found, "\n".join(found)


def test_ci_runs_what_make_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make lint", "make docs", "make test"} <= set(script.read_text().splitlines())


def test_benchmarks_do_not_hide_packages() -> None:
    """A script's folder comes first on its path, so that its name must not be that of a package."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    names = {path.stem for path in (ROOT / "benchmarks").rglob("*.py")}
    assert not names & (packages | {"ray", "slurm", "submitit", "torch", "webdataset"})


BENCHMARKS = [
    file for file in sorted((ROOT / "benchmarks").rglob("*.py")) if "__main__" in file.read_text()
]


def test_make_bench_runs_each_benchmark_and_no_part_of_one() -> None:
    done = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True)
    (files,) = re.findall(r"for file in (\$\(.*?\));", done.stdout)
    run = subprocess.run(["sh", "-c", f"echo {files}"], cwd=ROOT, capture_output=True, text=True)
    wanted = [file for file in BENCHMARKS if file.parent.name == "benchmarks"]
    assert [ROOT / name for name in run.stdout.split()] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_every_benchmark_answers(file: Path) -> None:
    words = [sys.executable, str(file), "--help"]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr
