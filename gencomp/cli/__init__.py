"""The table of commands; the module of a command is imported only when the command is given.

Nothing heavy may be imported here, so that ``gencomp --help`` answers at once, without torch.
`gencomp.exit_codes` says how a command ends.
"""

from __future__ import annotations

import gc
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from gencomp import __version__
from gencomp.errors import InputError
from gencomp.exit_codes import DONE, ERROR, FAILED, FAILURE, SPEAKER, STOPPED, UNREAD
from gencomp.own_packages import keep_out_current_directory, require_own
from gencomp.text_encoding import require_utf8, use_utf8


class Command(NamedTuple):
    """A command; its words are the path of its module, and the last word is its function's name.

    The command `gencomp slurm ais` is the function ``ais`` of `gencomp.cli.slurm.ais`. Such a
    function has type hints: its signature and its docstring give the arguments and the help of the
    command. It returns an exit code or None.

    Attributes:
        section: The section of the table that ``--help`` prints in which the command stands.
        help: A few words that say what the command does.
        raw: Whether the function takes the remaining words as one list, not as typed arguments.
        folder: The folder of the module of a single word, if it does not lie beside this file.
    """

    section: str
    help: str
    raw: bool = False
    folder: str | None = None


COMMANDS: dict[str, Command] = {
    "shards build": Command("Data", "make a shard set from a data set as it is shipped"),
    "shards index": Command("Data", "index existing WebDataset tars, local or remote"),
    "shards split": Command("Data", "draw another test split of a shard set"),
    "shards sample": Command("Data", "cut a small shard set out of a large one"),
    "shards verify": Command("Data", "check every byte of a shard set"),
    "shards stats": Command("Data", "count a shard set; draw a contact sheet"),
    "shards simulate": Command("Data", "tell what reading a set would cost on other machines"),
    "train": Command("Training", "train or resume one stage of a recipe", raw=True),
    "sweep": Command("Training", "search a space over a recipe", raw=True),
    "recipes": Command("Training", "list the recipes and sweeps that ship, or print one to copy"),
    "status": Command("Training", "say where runs and sweeps stand"),
    "slurm train": Command("Training", "train a run as one Slurm job", raw=True),
    "slurm sweep": Command("Training", "run a sweep as one Slurm job", raw=True),
    "compress": Command(
        "Coding", "write an image to a compressed file", raw=True, folder="compress"
    ),
    "decompress": Command("Coding", "write a compressed file back to an image", folder="compress"),
    "strip": Command("Coding", "leave the refinement of a file out", folder="compress"),
    "export": Command("Coding", "write a codec to one file, to use without its run"),
    "models": Command("Coding", "list exported models with their operating points"),
    "evaluate": Command("Evaluation", "measure a finished run, with intervals", raw=True),
    "files": Command(
        "Evaluation", "write, read and measure a real file of each held-out picture", raw=True
    ),
    "features": Command("Evaluation", "write a network that judges images to a file"),
    "slurm evaluate": Command("Evaluation", "measure a finished run in many jobs", raw=True),
    "slurm files": Command(
        "Evaluation", "measure real files of held-out pictures in many jobs", raw=True
    ),
    "slurm ais": Command("Evaluation", "measure a rate-distortion curve by AIS in many jobs"),
    "slurm variational": Command("Evaluation", "measure the curve of trained encoders in one job"),
    "slurm status": Command("Evaluation", "say where each job stands"),
    "slurm logs": Command("Evaluation", "print what a job has printed"),
    "slurm collect": Command("Evaluation", "merge what the evaluation jobs have written"),
    "slurm cancel": Command("Evaluation", "cancel jobs that wait or run"),
    "figure rates": Command("Evaluation", "draw images at every rate beside each other"),
    "figure interpolation": Command("Evaluation", "draw one image at every rate, from 0 bpp on"),
    "figure curves": Command("Evaluation", "draw metrics of runs against the rate"),
    "figure parts": Command("Evaluation", "draw what files are made of: the rate of each part"),
    "figure tradeoff": Command("Evaluation", "draw runs by distortion and perception"),
    "figure shared-bits": Command("Evaluation", "draw distortion against shared random bits"),
    "figure gaussian": Command("Evaluation", "draw distortion and perception of a Gaussian"),
    "figure choice": Command("Evaluation", "draw one compressed file through several decoders"),
    "figure comparison": Command("Evaluation", "draw an image beside what its files decode to"),
    "figure ais": Command("Evaluation", "draw rate-distortion curves by AIS"),
    "figure convergence": Command("Evaluation", "draw how reliable the curves by AIS are"),
    "figure image-curves": Command("Evaluation", "draw the rate-distortion curve of each image"),
    "figure latent": Command("Evaluation", "draw latents of runs beside their prior"),
    "figure overhead": Command("Evaluation", "draw rate, faithfulness, time of coding latents"),
    "published": Command("Evaluation", "list published results with source and protocol"),
    "report": Command("Evaluation", "write one HTML page from finished runs"),
    "completion": Command("Set-up", "print a script that completes commands in a shell"),
    "doctor": Command("Set-up", "say what is installed and what is missing", raw=True),
    "demo": Command("Set-up", "run the whole main line here on embedded letters"),
}
GROUPS = frozenset(name.split()[0] for name in COMMANDS if " " in name)
FLAGS = frozenset({"--debug", "--help", "-h", "--version"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: The words after ``gencomp``; by default those that the process was started with.
    """
    try:
        code = _main(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_output()
        return UNREAD


def _main(argv: Sequence[str] | None) -> int:
    """Run one command line; raises `BrokenPipeError` once nobody reads the output any more."""
    path, flags, rest = split_words(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            use_utf8()
            keep_out_current_directory()
        require_own()
        require_utf8([*path, *flags, *rest])
        return _run(path, flags, rest)
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        print(f"{SPEAKER}interrupted", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            raise
        if "--debug" in flags:
            import traceback

            traceback.print_exc()
        return _explain(error)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Split a command line into the command's words, the options among them, and the other words.

    >>> split_words(["--debug", "shards", "build", "photos", "--size", "64"])
    (['shards', 'build'], ['--debug'], ['photos', '--size', '64'])
    """
    path: list[str] = []
    flags: list[str] = []
    for position, word in enumerate(words):
        if word.startswith("-"):
            flags.append(word)
            continue
        path.append(word)
        if len(path) == 2 or word not in GROUPS:
            return path, flags, list(words[position + 1 :])
    return path, flags, []


def place(name: str) -> tuple[str, str]:
    """The module and the function of a command.

    >>> place("figure image-curves")
    ('gencomp.cli.figure.image_curves', 'image_curves')
    """
    path = name.replace("-", "_").split()
    if (folder := COMMANDS[name].folder) is not None:
        path = [folder, *path]
    return ".".join(["gencomp.cli", *path]), path[-1]


def load(name: str) -> Callable[..., Any]:
    """The function of a command, whose module is imported."""
    module, function = place(name)
    loaded: Callable[..., Any] = getattr(_imported(module), function)
    return loaded


def help_text(group: str | None = None) -> str:
    """The table of commands as plain text: all of them, or those of one group."""
    names = [name for name in COMMANDS if group is None or name.split()[0] == group]
    width = max(map(len, names)) + 2
    usage = f"gencomp {group} COMMAND" if group else "gencomp [--debug] COMMAND"
    lines = [f"usage: {usage} [ARGUMENTS]"]
    if group is None:
        lines += ["", "Generative image compression: train, search, compress, evaluate."]
    section = ""
    for name in names:
        command = COMMANDS[name]
        if command.section != section:
            section = command.section
            lines += ["", section]
        lines.append(f"  {name:<{width}}{command.help}")
    lines += [
        "",
        "gencomp COMMAND --help shows the arguments of a command, gencomp --version the version.",
        "--debug in front of a command shows the traceback of an error.",
    ]
    return "\n".join(lines)


def _run(path: list[str], flags: list[str], rest: list[str]) -> int:
    for flag in flags:
        if flag not in FLAGS:
            raise InputError(
                f"unknown option {flag!r} before the command; known are --debug, --help, --version"
            )
    if "--version" in flags:
        print(f"gencomp {__version__}")
        return DONE
    group = path[0] if path and path[0] in GROUPS else None
    if not path or path == [group] or "--help" in flags or "-h" in flags:
        print(help_text(group))
        return DONE
    name = " ".join(path)
    if name not in COMMANDS:
        raise InputError(_unknown(name, group))
    function = load(name)
    if COMMANDS[name].raw:
        code = function(rest)
    else:
        from gencomp.cli.arguments import call

        code = call(function, rest, prog=f"gencomp {name}")
    return DONE if code is None else int(code)


def _imported(module: str) -> ModuleType:
    """The module of a command, imported without the search for garbage.

    Imports make some hundred thousand objects that stay, and searching them again and again takes a
    tenth of the time or more.
    """
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def _is_unread() -> bool:
    """Whether nobody reads the output any more, or the error stream."""
    watch = select.poll()
    for stream in (sys.stdout, sys.stderr):
        watch.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))


def _discard_output() -> None:
    """Let what is still to be printed go nowhere, also when the interpreter flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _unknown(name: str, group: str | None) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*COMMANDS, *GROUPS], n=1)
    mend = f"did you mean {f'gencomp {near[0]}'!r}?" if near else "it is not in the table"
    table = f"gencomp {group} --help" if group else "gencomp --help"
    return f"unknown command {name!r}: {mend} ({table} lists them)"


def _explain(error: Exception) -> int:
    """Print one sentence about an error and return the exit code that belongs to it."""
    # Ray wraps what a worker raised and keeps the original in `cause`.
    while isinstance(inner := getattr(error, "cause", None), Exception):
        error = inner
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        print(f"{ERROR}{error}", file=sys.stderr)
        return code
    if isinstance(error, ModuleNotFoundError):
        what = f"the module {error.name!r} is not installed; gencomp doctor says what is missing"
    else:
        what = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    what = f"{type(error).__name__}: {what}" if what else type(error).__name__
    print(f"{FAILURE}{what} (run with --debug for the traceback)", file=sys.stderr)
    return FAILED


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or DONE
    print(stop.code, file=sys.stderr)
    return FAILED
