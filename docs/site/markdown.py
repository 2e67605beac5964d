"""Texts of the code, such as docstrings and help, as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_SPECIAL = re.compile(r"([\\*_\[\]|~#])")


def text(plain: str) -> str:
    """A sentence in which nothing but words in backticks has a meaning for Markdown.

    >>> text("for each *.png of `runs/*`")
    'for each \\\\*.png of `runs/*`'
    """
    shown, end = "", 0
    for found in _CODE.finditer(plain):
        shown += _escaped(plain[end : found.start()]) + code(found[2])
        end = found.end()
    return shown + _escaped(plain[end:])


def code(plain: str) -> str:
    """Words as code, if there are any."""
    return f"`{plain}`" if plain else ""


def paragraphs(plain: str) -> str:
    """A docstring, whose lines end where a paragraph has an end."""
    return "\n\n".join(text(" ".join(one.split())) for one in plain.split("\n\n"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(plain: str) -> str:
    return _SPECIAL.sub(r"\\\1", html.escape(plain, quote=False))
