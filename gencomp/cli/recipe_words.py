"""The help of commands that take values of a recipe, and hints at the keys of the recipe.

A recipe that is trained takes any of its values; a finished run takes those alone that say how its
codec writes files, the keys `--codec.KEY`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from gencomp import recipes
from gencomp.cli import arguments
from gencomp.errors import InputError
from gencomp.exit_codes import DONE
from gencomp.recipes import key_help
from gencomp.recipes.key_help import KeyHelp
from gencomp.validation import did_you_mean, nearest

_HELP = {"-h", "--help"}
_WRITING = "--codec."
# A function that describes the keys of the recipe or sweep of that name, for a terminal with so
# many columns.
Describe = Callable[[str, int], KeyHelp]


def call(function: Callable[..., Any], words: Sequence[str], prog: str, describe: Describe) -> int:
    """Parse words by the signature of a function and call it.

    With `--help`, the keys are printed after the usual text if the words name a recipe or a sweep.

    Args:
        function: The function, whose first argument names the recipe, the sweep or the run, or is a
            list of runs that the first one stands for.
        words: The words of the command line without the values of the recipe.
        prog: The words of the command itself, for messages.
        describe: The function that describes the keys of the recipe or sweep.

    Raises:
        InputError: The words do not fit the signature.
    """
    width = shutil.get_terminal_size().columns
    if _HELP.isdisjoint(words):
        try:
            return int(arguments.call(function, words, prog))
        except arguments.NotUnderstood as error:
            raise _with_hint(error, _named(function, error.others(words), prog), describe) from None
    arguments.show_help(function, prog)
    named = _named(function, [word for word in words if word not in _HELP], prog)
    if named is not None:
        if text := describe(named, width).text:
            print(f"\n{text}")
    return DONE


def split_writing(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Take the words that say how files are written out of a command line, and check their form.

    Returns:
        The other words, and the words of these values as `cluster.runs.open_run` takes them.
    """
    own: list[str] = []
    writing: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith(_WRITING):
            own.append(word)
            continue
        writing += [word] if "=" in word or not rest else [word, rest.pop(0)]
    _, values = recipes.split_overrides(writing)
    return own, tuple(recipes.override_words(values))


def writing_keys(run: str, width: int) -> KeyHelp:
    """The keys that say how the codec of a run or of a model file writes files.

    There are none where there is no such run or file.
    """
    from cluster.compressed_files.sources import open_source

    try:
        recipe = open_source(run).recipe()
    except InputError:
        return KeyHelp((), "")
    allowed = recipes.writing(recipe)
    if not allowed:
        return KeyHelp((), f"{recipe.system}/{recipe.stage} has no values of how it writes files.")
    title = f"How {run} ({recipe.system}/{recipe.stage}) writes files, each set by --KEY VALUE:"
    return key_help.describe(recipe, title, width, allowed.__contains__)


def _named(function: Callable[..., Any], words: Sequence[str], prog: str) -> str | None:
    """The first argument, if the words fit the signature and give one."""
    try:
        found = arguments.first(function, words, prog)
    except InputError:
        return None
    if isinstance(found, tuple):
        return str(found[0]) if found else None
    return str(found)


def _with_hint(error: arguments.NotUnderstood, named: str | None, describe: Describe) -> InputError:
    """The error with a hint at the keys that an option without a section may mean."""
    if named is None:
        return error
    key = error.tokens[0].lstrip("-").partition("=")[0].replace("-", "_")
    near = nearest(key, describe(named, 100).names)
    if not near:
        return error
    return InputError(f"{error.said}; {did_you_mean([f'--{one}' for one in near])}")
