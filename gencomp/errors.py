"""The error that a user can mend."""

from __future__ import annotations

from gencomp.exit_codes import BAD_INPUT


class InputError(ValueError):
    """Bad input: one sentence that says what is wrong, where, and what is allowed.

    The command line prints the sentence and exits with ``exit_code``; nothing has been written.
    """

    exit_code = BAD_INPUT
