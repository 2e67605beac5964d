"""Call a function with the words of a command line; tyro's errors become one sentence each."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Annotated, Any

import tyro

from gencomp.errors import InputError

# The option of every command that works with the weights of a run.
Checkpoint = Annotated[
    str,
    tyro.conf.arg(
        help="Checkpoint of the run: last, best (by training.keep_best_metric), or the number of a"
        " step."
    ),
]


# The option of every command that answers scripts.
Json = Annotated[
    bool,
    tyro.conf.arg(
        name="json",
        help="For scripts, print one JSON document instead, with the keys that docs/json.md lists;"
        " words go to standard error.",
    ),
    tyro.conf.FlagCreatePairsOff,
]
# Where `asked_for_help` wants the function itself and not its help.
_asked: ContextVar[list[Callable[..., Any]] | None] = ContextVar("asked", default=None)


def require_max_pixels(max_pixels: int) -> None:
    """Raise `InputError` unless at least one pixel may be decoded."""
    if max_pixels < 1:
        raise InputError(f"--max-pixels is {max_pixels}, it must be at least 1")


class NotUnderstood(InputError):
    """The command line has words that the signature of the command does not allow.

    Attributes:
        tokens: The words that are not allowed.
        said: The message without the hint at ``--help``.
    """

    def __init__(self, said: str, prog: str, tokens: Sequence[str]) -> None:
        super().__init__(f"{said}; see {prog} --help")
        self.said, self.tokens = said, list(tokens)

    def others(self, words: Sequence[str]) -> list[str]:
        """The words of a command line that were understood."""
        rest = list(words)
        for token in self.tokens:
            with suppress(ValueError):
                rest.remove(token)
        return rest


def call(function: Callable[..., Any], words: Sequence[str], prog: str) -> Any:
    """Parse ``words`` by the signature of ``function`` and call it.

    Raises:
        InputError: The words do not fit the signature.
        SystemExit: ``--help`` was asked for and printed.
    """
    try:
        from tyro._errors import on_parse_error
    except ImportError:  # an older tyro prints its own message and exits with 2
        return tyro.cli(function, args=list(words), prog=prog)
    with on_parse_error(_refuse):
        return tyro.cli(function, args=list(words), prog=prog)


def show_help(function: Callable[..., Any], prog: str) -> None:
    """Print what ``--help`` prints."""
    if (asked := _asked.get()) is not None:
        asked.append(function)
        return
    with suppress(SystemExit):
        tyro.cli(function, args=["--help"], prog=prog)


def asked_for_help(command: Callable[[list[str]], Any]) -> Callable[..., Any] | None:
    """The function whose help a command that takes raw words shows.

    Returns:
        The function; None for a command that writes its help itself, which it prints.
    """
    asked: list[Callable[..., Any]] = []
    token = _asked.set(asked)
    try:
        command(["--help"])
    finally:
        _asked.reset(token)
    return asked[0] if asked else None


def first(function: Callable[..., Any], words: Sequence[str], prog: str) -> Any:
    """The first argument with which ``function`` would be called.

    Raises:
        InputError: The words do not fit the signature.
    """

    @functools.wraps(function)
    def keep(*given: Any, **named: Any) -> Any:
        return [*given, *named.values()][0]

    return call(keep, words, prog)


def _refuse(event: Any) -> None:
    try:
        sentence = _out_of_range() or _sentence(event)
        if type(event).__name__ == "UnrecognizedArgs":
            raise NotUnderstood(sentence, event.prog, event.tokens)
    except AttributeError:  # tyro's events may have changed: let tyro print its own message
        return
    if sentence:
        raise InputError(f"{sentence}; see {event.prog} --help")


def _out_of_range() -> str:
    """The sentence about a value that a group of options has refused; empty for other errors."""
    error = sys.exception()
    while error is not None and type(error).__name__ != "ValidationError":
        error = error.__context__
    if error is None:
        return ""
    from pydantic import BaseModel, ValidationError

    from gencomp.validation import option_name, sentence

    assert isinstance(error, ValidationError)
    return sentence(error, BaseModel, option_name)


def _sentence(event: Any) -> str:
    """The sentence about an event of tyro; empty for kinds of events that are not known here."""
    kind = type(event).__name__
    if kind == "MissingArgs":
        unknown = event.unrecognized_tokens
        missing = ", ".join(_name(one.arg) for one in event.missing_arguments)
        also = f" (and {', '.join(map(repr, unknown))} is not understood)" if unknown else ""
        return f"missing {missing}{also}"
    if kind == "UnrecognizedArgs":
        return f"not understood: {' '.join(event.tokens)}"
    if kind == "InvalidChoice":
        allowed = ", ".join(event.choices)
        return f"{_name(event.argument)} cannot be {event.value!r}, only one of {allowed}"
    if kind == "BadValue" and event.reason == "too_few_values":
        return f"{_name(event.argument)} needs a value"
    if kind == "InstantiationFailure" and event.argument is not None:
        return f"{_name(event.argument)}: {' '.join(str(event.message).split())}"
    return ""


def _name(argument: Any) -> str:
    """``--size INT`` for an option, ``IMAGE`` for a positional argument."""
    name = argument.lowered.name_or_flags[-1]
    if not name.startswith("-"):
        return str(name).upper()
    return f"{name} {argument.lowered.metavar or ''}".rstrip()
