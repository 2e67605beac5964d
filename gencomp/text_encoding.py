"""Texts and names of files are UTF-8, whatever the locale says.

Under a locale with another encoding Python would read names of files as other characters, so that
one folder would give other keys on two machines, and a Greek letter would end a command.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from collections.abc import Iterable

from gencomp.errors import InputError

UTF8_MODE = "PYTHONUTF8"


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if names of files are not UTF-8 in it.

    Processes that it starts are in that mode too. What is printed keeps the encoding of the
    terminal; a character that the terminal cannot show becomes a question mark. This is for a
    process of the command line alone.
    """
    if sys.getfilesystemencoding() != "utf-8":
        words = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, words, {**os.environ, UTF8_MODE: "1"})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = _encoding_of(stream)
            lost = "surrogateescape" if encoding == "utf-8" else "replace"
            stream.reconfigure(encoding=encoding, errors=lost)


def require_utf8(words: Iterable[str]) -> None:
    """Check that the words of a command line are UTF-8.

    Raises:
        InputError: one of them has bytes that are not UTF-8.
    """
    for text in words:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise InputError(
                f"{shown} is not UTF-8, in which gencomp writes all names: give it another name"
            ) from None


def _encoding_of(stream: io.TextIOWrapper) -> str:
    """The encoding of what is printed: in UTF-8 mode Python forgets that of the terminal."""
    current = codecs.lookup(stream.encoding).name
    if not sys.flags.utf8_mode or "PYTHONIOENCODING" in os.environ:
        return current
    terminal = codecs.lookup(locale.getencoding()).name
    # The locales C and POSIX name ASCII because they know nothing about the terminal.
    return current if terminal == "ascii" else terminal
