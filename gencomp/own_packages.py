"""Processes of gencomp import gencomp's packages, whatever files lie where they were started.

Four of the packages have names that a user's own files may have as well.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import gencomp
from gencomp.errors import InputError

SAFE_PATH = "PYTHONSAFEPATH"
_NAMES = ("cluster", "shards", "slurm", "sweeps")


def keep_out_current_directory() -> None:
    """Keep the current directory off the path of all Python processes that this one starts.

    This is for a process of the command line alone: the scripts of a program that calls gencomp
    would not find what lies beside them.
    """
    os.environ[SAFE_PATH] = "1"


def require_own() -> None:
    """Check that our packages are ours.

    Raises:
        InputError: a file of somebody else would be imported in place of one of our packages.
    """
    root = Path(gencomp.__file__).resolve().parents[1]
    for name in _NAMES:
        spec = find_spec(name)
        if spec is None:
            raise InputError(f"gencomp's package {name} is missing from {root}: install it anew")
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or [""]))).resolve()
        if not found.is_relative_to(root / name):
            raise InputError(
                f"{found} would be imported in place of gencomp's own package {name}: rename it, or"
                " take its directory out of PYTHONPATH"
            )
