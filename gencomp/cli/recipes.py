"""`gencomp recipes`, which lists or prints the recipes and sweeps that ship with gencomp."""

from __future__ import annotations

import difflib
import sys

from gencomp.errors import InputError
from gencomp.recipes import shipped

# The headings of the list, and the packages whose recipes or sweeps are listed below them.
_KINDS = {
    "recipes, for gencomp train NAME": "gencomp.recipes",
    "sweeps, for gencomp sweep NAME": "sweeps",
}


def recipes(name: str | None = None, /) -> None:
    """List the recipes and sweeps that ship with gencomp, or print one of them to copy.

    For example: gencomp recipes dplc_wae_photos > mine.yaml, then gencomp train mine.yaml.

    Args:
        name: The recipe or the sweep to print; by default all are listed.
    """
    if name is None:
        print(_table())
        return
    for package in _KINDS.values():
        if name in shipped.names(package):
            # Bytes are written, so that the copy is the same file whatever the terminal's encoding.
            sys.stdout.flush()
            sys.stdout.buffer.write(shipped.content(package, name))
            sys.stdout.buffer.flush()
            return
    near = difflib.get_close_matches(name, _names(), n=1)
    mend = f"did you mean {near[0]}?" if near else "gencomp recipes lists them"
    raise InputError(f"no recipe or sweep {name!r} ships with gencomp; {mend}")


def _table() -> str:
    width = max(map(len, _names())) + 2
    lines = ["gencomp recipes NAME prints one to copy."]
    for heading, package in _KINDS.items():
        lines += ["", heading]
        lines += [
            f"  {name:<{width}}{shipped.summary(package, name)}" for name in shipped.names(package)
        ]
    return "\n".join(lines)


def _names() -> list[str]:
    return [name for package in _KINDS.values() for name in shipped.names(package)]
