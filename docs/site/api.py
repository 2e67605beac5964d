"""A page for each module of the science that people use from Python; mkdocstrings fills it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

FOLDER = "reference/python"
PACKAGES = ("gencomp/rate_distortion", "gencomp/coding", "gencomp/evaluation")
MODULES = ("gencomp/system.py",)


def write(root: Path, source: Path) -> list[Any]:
    """Write the pages below the folder `source`, and return their navigation."""
    (source / FOLDER).mkdir(parents=True)
    navigation: list[Any] = [
        {_name(root, root / one): _page(root, source, root / one)} for one in MODULES
    ]
    for package in PACKAGES:
        files = sorted((root / package).rglob("*.py"), key=lambda file: _name(root, file))
        whole = package.replace("/", ".")
        pages = [
            {
                _name(root, file).removeprefix(f"{whole}.").replace(whole, "overview"): _page(
                    root, source, file
                )
            }
            for file in files
            if _is_documented(file)
        ]
        navigation.append({whole: pages})
    return navigation


def _name(root: Path, file: Path) -> str:
    """The name by which a module is imported."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _page(root: Path, source: Path, file: Path) -> str:
    """Write the page of one module, and return where it lies."""
    name = _name(root, file)
    page = f"{FOLDER}/{name}.md"
    (source / page).write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")
    return page


def _is_documented(file: Path) -> bool:
    """Whether a module has public functions, classes or a docstring of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = any(
        isinstance(one, ast.FunctionDef | ast.ClassDef) and not one.name.startswith("_")
        for one in tree.body
    )
    return public or ast.get_docstring(tree) is not None
