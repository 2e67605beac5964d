"""The help of commands that take values of a recipe, and hints at the keys of the recipe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from gencomp.cli import arguments
from gencomp.errors import InputError
from gencomp.exit_codes import DONE
from gencomp.recipes.key_help import KeyHelp
from gencomp.validation import did_you_mean, nearest

_HELP = {"-h", "--help"}
# A function that describes the keys of the recipe or sweep of that name, for a terminal with so
# many columns.
Describe = Callable[[str, int], KeyHelp]


def call(function: Callable[..., Any], words: Sequence[str], prog: str, describe: Describe) -> int:
    """Parse words by the signature of a function and call it.

    With `--help`, the keys are printed after the usual text if the words name a recipe or a sweep.

    Args:
        function: The function, whose first argument names the recipe or the sweep.
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
        print(f"\n{describe(named, width).text}")
    return DONE


def _named(function: Callable[..., Any], words: Sequence[str], prog: str) -> str | None:
    """The first argument, if the words fit the signature."""
    try:
        return str(arguments.first(function, words, prog))
    except InputError:
        return None


def _with_hint(error: arguments.NotUnderstood, named: str | None, describe: Describe) -> InputError:
    """The error with a hint at the keys that an option without a section may mean."""
    if named is None:
        return error
    key = error.tokens[0].lstrip("-").partition("=")[0].replace("-", "_")
    near = nearest(key, describe(named, 100).names)
    if not near:
        return error
    return InputError(f"{error.said}; {did_you_mean([f'--{one}' for one in near])}")
