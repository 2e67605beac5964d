"""A page for each kind of recipe, with all of its keys, and one for each recipe that ships."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import gencomp.recipes as recipes
import sweeps.sweep_file
from docs.site import markdown
from gencomp.recipes import key_help, shipped
from gencomp.recipes.schema import BaseRecipe
from gencomp.validation import Key, keys

FOLDER = "reference/recipes"
SHIPPED = "reference/shipped"
_NAMES = {"gencomp.recipes": "recipes", "sweeps": "sweeps"}


def write(source: Path) -> list[Any]:
    """Write the pages below the folder `source`, and return their navigation."""
    for folder in (FOLDER, SHIPPED):
        (source / folder).mkdir(parents=True)
    (source / FOLDER / "index.md").write_text(index(), encoding="utf-8")
    for package in _NAMES:
        for name in shipped.names(package):
            text = of_file(package, name)
            (source / SHIPPED / f"{name}.md").write_text(text, encoding="utf-8")
    navigation: list[Any] = [f"{FOLDER}/index.md"]
    for (system, stage), model in recipes.RECIPES.items():
        file = f"{FOLDER}/{_file(system, stage)}"
        (source / file).write_text(page(system, stage, model), encoding="utf-8")
        navigation.append({f"{system}/{stage}": file})
    sweep = f"{FOLDER}/sweep.md"
    (source / sweep).write_text(of_sweeps(), encoding="utf-8")
    return [*navigation, {"Sweep files": sweep}]


def index() -> str:
    """The list of the recipes and sweeps that ship."""
    parts = [
        "# Recipes",
        "A recipe is a YAML file that says everything about one stage of training; a sweep is one"
        " that searches over a recipe. `gencomp recipes NAME` prints one that ships, to copy and"
        " edit. Every key can also be set on the command line, as `--section.field VALUE`.",
    ]
    for package, heading in _NAMES.items():
        rows = [
            [
                f"[{name}](../../{SHIPPED}/{name}.md)",
                *([_kind(name)] if package == recipes.__name__ else []),
                markdown.text(shipped.summary(package, name)),
            ]
            for name in shipped.names(package)
        ]
        kind = ["keys"] if package == recipes.__name__ else []
        parts.append(f"## Shipped {heading}")
        parts.append(markdown.table(["name", *kind, "what it is"], rows))
    return "\n\n".join(parts)


def of_file(package: str, name: str) -> str:
    """The page of a recipe or a sweep that ships."""
    command = "train" if package == recipes.__name__ else "sweep"
    text = shipped.content(package, name).decode()
    return f"# {name}\n\n```\ngencomp {command} {name}\n```\n\n```yaml\n{text}```\n"


def page(system: str, stage: str, model: type[BaseRecipe]) -> str:
    """The page of a kind of recipe: its keys, section by section."""
    mine = [
        f"[{name}](../../{SHIPPED}/{name}.md)"
        for name in recipes.names()
        if _pair(name) == (system, stage)
    ]
    parts = [f"# {system}/{stage}", _paragraphs_of(model)]
    parts.append(f"Shipped: {', '.join(mine)}." if mine else "")
    parts.append(f"```yaml\nsystem: {system}\nstage: {stage}\n```")
    return _with_tables(parts, model, lambda key: bool(key.section))


def of_sweeps() -> str:
    """The page of the keys of a sweep file."""
    model = sweeps.sweep_file.Sweep
    return _with_tables(["# Sweep files", _paragraphs_of(model)], model, lambda key: True)


def _with_tables(parts: list[str], model: type[BaseModel], is_shown: Any) -> str:
    listed = [key for key in keys(model) if key.model is None and is_shown(key)]
    about = {key.path: key.model for key in keys(model) if key.model is not None}
    for section in dict.fromkeys(key.section for key in listed):
        if section:
            parts.append(f"## {'.'.join(section)}")
            parts.append(_paragraphs_of(about[section]))
        rows = [_row(model, key) for key in listed if key.section == section]
        header = ["key", "type", "default", "range", "meaning"]
        parts.append(markdown.table(header, rows))
    return "\n\n".join(filter(None, parts))


def _row(model: type[BaseModel], key: Key) -> list[str]:
    return [
        markdown.code(key.dotted),
        markdown.code(_type(key)),
        _default(model, key),
        key_help.range_of(key.field),
        markdown.text(key.field.description or ""),
    ]


def _type(key: Key) -> str:
    try:
        return key_help.type_of(key.field.annotation)
    except KeyError:  # a mapping, or a list of mappings
        return "{...}"


def _default(model: type[BaseModel], key: Key) -> str:
    """The default of a key, which its section may have set to another than the key's own."""
    found: Any = PydanticUndefined
    fields = model.model_fields
    holder: Any = None
    for name in key.path:
        name = next(n for n, field in fields.items() if name in (field.alias, n))
        field = fields[name]
        found = getattr(holder, name) if holder is not None else _own_default(field)
        holder = found if isinstance(found, BaseModel) else None
        inner = next((one.model for one in keys(model) if one.field is field), None)
        fields = inner.model_fields if inner is not None else {}
    if found is PydanticUndefined:
        return "required"
    plain = found.model_dump(mode="json") if isinstance(found, BaseModel) else found
    if isinstance(plain, str):
        return markdown.code(plain)
    return markdown.code(json.dumps(plain, ensure_ascii=False, default=str))


def _own_default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _paragraphs_of(model: type[BaseModel] | None) -> str:
    """The docstring of a model, but not that of a base class."""
    own = vars(model).get("__doc__") if model is not None else None
    return markdown.paragraphs(inspect.cleandoc(own)) if own else ""


def _pair(name: str) -> tuple[str, str]:
    raw = recipes.read(name)
    return raw["system"], raw["stage"]


def _kind(name: str) -> str:
    system, stage = _pair(name)
    return f"[{system}/{stage}]({_file(system, stage)})"


def _file(system: str, stage: str) -> str:
    return f"{system}-{stage}.md"
