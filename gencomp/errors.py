"""The error of an input that the user can correct."""

from __future__ import annotations

from gencomp.exit_codes import BAD_INPUT


class InputError(ValueError):
    """The error of a bad input: one sentence says what is wrong, where, and what is allowed.

    The command line prints the sentence and exits with ``exit_code``; nothing has been written.
    """

    exit_code = BAD_INPUT
