"""YAML files that ship inside a package: recipes in this one, sweeps in theirs.

The first line of each is a comment: what it is, in one sentence.
"""

from __future__ import annotations

from importlib import resources


def names(package: str) -> list[str]:
    """Names of the files of a package, without their suffix, sorted."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files(package).iterdir()
        if entry.name.endswith(".yaml")
    )


def content(package: str, name: str) -> bytes:
    """The bytes of one of them."""
    return resources.files(package).joinpath(f"{name}.yaml").read_bytes()


def summary(package: str, name: str) -> str:
    """What one of them is, in one sentence."""
    return content(package, name).decode().partition("\n")[0].removeprefix("#").strip()
