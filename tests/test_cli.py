"""The roof: the table, its speed, exit codes, one sentence an error, and the doctor."""

from __future__ import annotations

import pkgutil
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import tyro

from gencomp import __version__, cli
from gencomp.cli import COMMANDS, Command, doctor, main, split_words
from gencomp.errors import InputError

Run = Callable[..., subprocess.CompletedProcess[str]]


def _paint(
    image: tyro.conf.Positional[Path], kind: Literal["oil", "ink"] = "oil", size: int = 3
) -> int | None:
    """Paint an image.

    Args:
        image: What to paint.
        kind: What to paint it with.
        size: How large.
    """
    if size == 13:
        raise InputError("size 13 is not allowed: take another")
    if size == 14:
        raise RuntimeError("the brush broke\nfar away")
    if size == 15:
        raise KeyboardInterrupt
    print(f"{image} {kind} {size}")
    return None if size < 100 else size


def _paint_raw(rest: list[str]) -> int:
    print(rest)
    return 7


class _Wrapped(Exception):
    """An error wrapped as Ray does it: the original is kept in `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a hundred lines of another process")
        self.cause = cause


def _paint_far() -> None:
    """Fail in a worker."""
    raise _Wrapped(InputError("the shard set is gone"))


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands of our own in the table; the last one has no module."""
    for name, function in (("paint", _paint), ("raw", _paint_raw), ("far", _paint_far)):
        module = ModuleType(f"gencomp.cli.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("paint", "raw", "far", "lost"):
        monkeypatch.setitem(COMMANDS, name, Command("Art", "paint", raw=name == "raw"))
    yield


def _one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, which must be a single line; nothing may be on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1, err
    return err.strip()


def test_help_is_fast_and_complete(gencomp: Run) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = gencomp("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0 and done.stderr == ""
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    # The promise is 0.5 s; a busy machine, which counts more of them for the same, gets 2 s.
    assert seconds < 2.0


def test_the_roof_imports_nothing_heavy() -> None:
    """The promise behind the speed, free of any clock."""
    code = (
        "import sys, gencomp.cli\n"
        "assert gencomp.cli.main(['--help']) == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'torch', 'ray', 'pydantic', 'tyro', 'numpy', 'rich', 'yaml', 'submitit', 'pyarrow'}))"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_words_of_a_command_are_the_path_of_its_module(name: str) -> None:
    *folders, word = name.replace("-", "_").split()
    module, function = cli.place(name)
    assert function == word and module.endswith(".".join(["", *folders, word]))
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: gencomp {name}") and err == ""


def test_every_module_of_a_folder_is_a_command_or_is_used_by_one() -> None:
    """No command is left without a line in the table: public functions say who they are."""
    places = {cli.place(name) for name in COMMANDS}
    for folder in ("compress", "figure", "shards", "slurm"):
        package = f"gencomp.cli.{folder}"
        for found in pkgutil.iter_modules(import_module(package).__path__):
            module = import_module(f"{package}.{found.name}")
            assert (module.__name__, found.name) in places or not hasattr(module, found.name)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--debug"]])
def test_table(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == cli.help_text() + "\n"


@pytest.mark.parametrize("words", [["shards"], ["shards", "--help"], ["--help", "shards"]])
def test_table_of_a_group(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "shards build" in out and "train" not in out


def test_help_lines_are_aligned_and_fit_a_terminal() -> None:
    rows = [line for line in cli.help_text().splitlines() if line.startswith("  ")]
    pairs = zip(rows, COMMANDS.values(), strict=True)
    assert len({line.index(command.help) for line, command in pairs}) == 1
    assert max(map(len, cli.help_text().splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gencomp {__version__}\n"


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["trian"], "gencomp train"),
        (["shards", "biuld"], "gencomp shards build"),
        (["comprss", "a.png"], "gencomp compress"),
        (["slum", "ais"], "gencomp slurm"),
        (["xyzzy"], "gencomp --help"),
        (["--wrong", "train"], "--debug"),
    ],
)
def test_unknown_words(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    line = _one_line(capsys)
    assert line.startswith("gencomp: error: unknown") and near in line


def test_words_are_split_at_the_command() -> None:
    assert split_words(["--debug", "shards", "build", "-x", "--debug"]) == (
        ["shards", "build"],
        ["--debug"],
        ["-x", "--debug"],
    )
    assert split_words(["shards", "--debug", "build"]) == (["shards", "build"], ["--debug"], [])


@pytest.mark.usefixtures("painter")
class TestDispatch:
    def test_arguments_and_codes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["paint", "a.png", "--kind", "ink"]) == 0
        assert capsys.readouterr().out == "a.png ink 3\n"
        assert main(["paint", "a.png", "--size", "101"]) == 101

    def test_raw_words(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["raw", "recipe", "--a.b", "3", "--help"]) == 7
        assert capsys.readouterr().out == "['recipe', '--a.b', '3', '--help']\n"

    def test_help_of_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["paint", "--help"]) == 0
        assert "usage: gencomp paint" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "missing IMAGE"),
            (["a", "--size", "big"], "--size INT: invalid literal"),
            (["a", "--size"], "--size INT needs a value"),
            (["a", "--kind", "mud"], "cannot be 'mud', only one of oil, ink"),
            (["a", "--colour", "red"], "not understood: --colour red"),
            (["--colour", "red"], "IMAGE needs a value"),
        ],
    )
    def test_wrong_usage(
        self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["paint", *words]) == 2
        line = _one_line(capsys)
        assert line.startswith("gencomp: error: ") and said in line
        assert line.endswith("see gencomp paint --help")

    def test_input_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["paint", "a", "--size", "13"]) == 2
        assert _one_line(capsys) == "gencomp: error: size 13 is not allowed: take another"

    def test_input_error_from_a_worker(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["far"]) == 2
        assert _one_line(capsys) == "gencomp: error: the shard set is gone"

    def test_failure(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["paint", "a", "--size", "14"]) == 1
        assert _one_line(capsys) == (
            "gencomp: failed: RuntimeError: the brush broke (run with --debug for the traceback)"
        )

    def test_debug_shows_the_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--debug", "paint", "a", "--size", "14"]) == 1
        err = capsys.readouterr().err
        assert "Traceback" in err and "far away" in err

    def test_interrupt(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["paint", "a", "--size", "15"]) == 130
        assert _one_line(capsys) == "gencomp: interrupted"

    def test_missing_module(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["lost"]) == 1
        line = _one_line(capsys)
        assert "'gencomp.cli.lost' is not installed" in line and "gencomp doctor" in line


@pytest.mark.parametrize(
    "words", [["--help"], ["recipes"], ["train", "dplc_wae_celeba", "--help"], ["doctor"]]
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_who_leaves_ends_the_command_without_a_word(words: list[str], stream: str) -> None:
    """The reader is that of `gencomp recipes | head -n 1`, or of `2>&1 | head -n 1`."""
    left = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    left.wait()
    assert left.stdin is not None
    outputs = {
        "stdout": left.stdin,
        "stderr": subprocess.PIPE if stream == "stdout" else left.stdin,
    }
    with left.stdin:
        ended = subprocess.run(
            [sys.executable, "-m", "gencomp.cli", *words], **outputs, check=False, timeout=120
        )
    assert ended.returncode == 141 and not ended.stderr


class TestGroupsOfOptions:
    """Ranges are declared with the options; what is beyond one is a sentence about the option."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["slurm", "ais", "run", "--images", "0"], "--images is 0, but it should be"),
            (["slurm", "ais", "run", "--bdmc-betas", "1", "-2"], "--bdmc-betas is -2.0, but"),
            (["slurm", "variational", "run", "--learning-rate", "0"], "--learning-rate is 0.0"),
            (["evaluate", "run", "--images", "0"], "--images is 0, but it should be greater"),
            (["slurm", "evaluate", "run", "--draws", "0"], "--draws is 0, but it should be"),
        ],
    )
    def test_a_value_out_of_range(
        self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words) == 2
        line = _one_line(capsys)
        command = " ".join(words[: words.index("run")])
        assert said in line and line.endswith(f"; see gencomp {command} --help")

    def test_every_option_has_a_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Options of groups have one too: a name without a word behind it helps nobody."""
        for name in ("slurm ais", "slurm variational", "slurm evaluate", "figure rates"):
            assert main([*name.split(), "--help"]) == 0
            out = " ".join(capsys.readouterr().out.split())
            for option in re.findall(r"--[a-z][a-z0-9-]+(?= [{A-Z\[])", out):
                after = out.split(option, 1)[1]
                assert re.search(r"[a-z]{2,}", after.split("--")[0].split("(default")[0]), option


class TestDoctor:
    def test_on_this_machine(self, gencomp: Run) -> None:
        done = gencomp("doctor")
        assert done.returncode == 0 and done.stderr == ""
        lines = done.stdout.splitlines()
        assert all(line.split()[0] in {"ok", "warning"} for line in lines)
        for name in ("Python", "torch", "GPUs", "Ray", "Slurm", "CPUs", "memory", "disk"):
            assert any(line.split()[1] == name for line in lines), name

    def test_missing_package_is_named_with_the_mend(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(doctor, "requirements", lambda: ["numpy>=1", "nosuch[a]>=2,<3"])
        assert main(["doctor"]) == 1
        line = next(one for one in capsys.readouterr().out.splitlines() if "nosuch" in one)
        assert line.startswith("missing") and "pip install 'nosuch[a]>=2,<3'" in line

    def test_version_out_of_range_is_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(doctor, "requirements", lambda: ["numpy<1"])
        assert main(["doctor"]) == 0
        out = capsys.readouterr().out
        assert any(line.startswith("warning  numpy") for line in out.splitlines())

    def test_nothing_is_installed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No package at all: every line is still there, and the exit code says it."""
        monkeypatch.setattr(doctor, "_version", lambda package: None)
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.setitem(sys.modules, "tyro", None)
        assert main(["doctor"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert {"torch", "Ray", "submitit"} <= {
            line.split()[1] for line in lines if line.startswith("missing")
        }

    @pytest.mark.parametrize(("answer", "state"), [("exit 0", "ok"), ("exit 1", "warning")])
    def test_slurm_is_used_only_if_its_controller_answers(
        self, answer: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("sbatch", "scontrol"):
            tool = tmp_path / name
            tool.write_text(f"#!/bin/sh\n{answer}\n")
            tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        found = next(one for one in doctor.examine() if one.name == "Slurm")
        assert found.state == state
        assert ("local executor" in found.seen) == (state == "warning")

    def test_a_check_that_fails_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> list[doctor.Finding]:
            raise OSError("no such device")

        broken.__name__ = "_memory"
        monkeypatch.setattr(doctor, "_memory", broken)
        found = next(one for one in doctor.examine() if one.name == "memory")
        assert found.state == "warning" and "no such device" in found.seen

    def test_table_on_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        doctor._show([doctor.Finding("odd [name]", "warning", "seen [red]", "mend it")])
        out = capsys.readouterr().out
        assert "odd [name]" in out and "seen [red]" in out and "mend it" in out

    def test_takes_no_arguments(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "now"]) == 2
        assert "takes no arguments but --json" in _one_line(capsys)
