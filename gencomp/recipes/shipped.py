"""The YAML files that ship inside a package, such as recipes in this one and sweeps in another.

The first line of each file is a comment that says what the file is.
"""

from __future__ import annotations

from importlib import resources


def names(package: str) -> list[str]:
    """The sorted names of the files of a package, without their suffix."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files(package).iterdir()
        if entry.name.endswith(".yaml")
    )


def content(package: str, name: str) -> bytes:
    """The bytes of the file with a given name."""
    return resources.files(package).joinpath(f"{name}.yaml").read_bytes()


def summary(package: str, name: str) -> str:
    """The first line of the file with a given name, which says what the file is."""
    return content(package, name).decode().partition("\n")[0].removeprefix("#").strip()
