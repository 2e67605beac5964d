"""From words to a call: tyro parses, and its refusals become one sentence each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tyro

from gencomp.errors import InputError


def call(function: Callable[..., Any], words: Sequence[str], prog: str) -> Any:
    """Parse ``words`` by the signature of ``function`` and call it.

    Raises:
        InputError: The words do not fit the signature.
        SystemExit: ``--help`` was asked for and printed.
    """
    try:
        from tyro._errors import on_parse_error
    except ImportError:  # an older tyro prints its own box and exits 2
        return tyro.cli(function, args=list(words), prog=prog)
    with on_parse_error(_refuse):
        return tyro.cli(function, args=list(words), prog=prog)


def _refuse(event: Any) -> None:
    try:
        sentence = _sentence(event)
    except AttributeError:  # tyro's events are not a stable interface: let it print its own box
        return
    if sentence:
        raise InputError(f"{sentence}; see {event.prog} --help")


def _sentence(event: Any) -> str:
    """What was wrong, by the kind of the event; empty for kinds not known here."""
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
