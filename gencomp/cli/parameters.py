"""What each command takes, as the parser of its words knows it: for completion and for pages."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gencomp.cli import COMMANDS, arguments, load

# What tyro appends to the sentence about an argument.
_NOTE = re.compile(r" \((?:default: (?P<default>.*)|(?P<word>required|repeatable))\)\Z", re.DOTALL)
# How a command that writes its help itself names an option.
_WRITTEN = re.compile(r"^  (?P<option>--[a-z-]+)  +(?P<meaning>.*)$", re.MULTILINE)
# The commands that train what a recipe or a sweep describes.
_TRAIN = ("train", "sweep", "slurm train", "slurm sweep")
_NOTHING = {"None", "''", ""}
# What tyro calls an argument that its function has not named for the help.
_TYPE = re.compile(r"\[?(?:\{None\}\|)?(?:STR|PATH|INT|FLOAT)\]?")


class Parameter(NamedTuple):
    """An argument or an option of a command.

    Attributes:
        names: The names of an option, such as ``--gpu``; none for an argument without a name.
        value: What stands for its value, such as ``INT``; empty for an option without a value.
        meaning: The sentences about it.
        default: The default as text; empty if there is none.
        choices: The values that are allowed; empty if they are not a list.
        required: Whether the command cannot do without it.
    """

    names: tuple[str, ...]
    value: str
    meaning: str
    default: str
    choices: tuple[str, ...]
    required: bool


class Usage(NamedTuple):
    """What a command does and takes.

    Attributes:
        description: The paragraphs about the command.
        parameters: Its arguments, and then its options.
        keys: How it takes values of a recipe beside its options; empty if it takes none.
    """

    description: str
    parameters: tuple[Parameter, ...]
    keys: str


def of_command(name: str) -> Usage:
    """What the command of that name does and takes; its module is imported."""
    function: Callable[..., Any] | None = load(name)
    assert function is not None
    written = io.StringIO()
    if COMMANDS[name].raw:
        with contextlib.redirect_stdout(written):
            function = arguments.asked_for_help(function)
    if function is None:
        return _written(written.getvalue())
    description = inspect.cleandoc(function.__doc__ or "").split("\nArgs:\n")[0].strip()
    return Usage(description, tuple(_parameters(function, name)), _keys(name))


def _keys(name: str) -> str:
    """A finished run takes the values alone that say how its codec writes files."""
    if not COMMANDS[name].raw:
        return ""
    return "--section.field VALUE" if name in _TRAIN else "--codec.KEY VALUE"


def _written(text: str) -> Usage:
    """What a command says that must do without a parser."""
    _, *paragraphs = text.strip().split("\n\n")
    said = [one for one in paragraphs if not one.startswith("options:")]
    options = [
        Parameter((one["option"],), "", one["meaning"], "", (), False)
        for one in _WRITTEN.finditer(text)
    ]
    return Usage("\n\n".join(said), tuple(options), "")


def _parameters(function: Callable[..., Any], name: str) -> Iterator[Parameter]:
    from tyro.extras import get_parser

    with warnings.catch_warnings():
        # tyro has announced the end of this function, but offers no other that lists the options.
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = get_parser(function, prog=f"gencomp {name}")
    for action in parser._actions:
        if action.dest != "help":
            yield _parameter(action)


def _choices(found: list[str]) -> tuple[str, ...]:
    """The values that are allowed, without the None of an option that may be left out.

    tyro keeps the values beside a None in a set, whose order is another one in each process.
    """
    return tuple(sorted({*found} - {"None"}) if "None" in found else found)


def _parameter(action: Any) -> Parameter:
    """The parameter behind an action of argparse."""
    whole = " ".join((action.help or "").replace("%%", "%").split())
    note = _NOTE.search(whole)
    default = (note["default"] or "") if note else ""
    value = "" if action.nargs == 0 else action.metavar or action.dest.upper()
    if not action.option_strings and _TYPE.fullmatch(value):
        value = action.dest.upper()
    return Parameter(
        names=tuple(action.option_strings),
        value=value.replace("{None}|", "").replace("None,", ""),
        meaning=whole[: note.start()] if note else whole,
        default="" if action.nargs == 0 or default in _NOTHING else default,
        choices=_choices([str(one) for one in action.choices or ()]),
        required=bool(note and note["word"] == "required"),
    )
