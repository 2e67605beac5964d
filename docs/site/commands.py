"""A page for each command of the table, from the parser that reads its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs.site import markdown
from gencomp.cli import COMMANDS, parameters
from gencomp.cli.parameters import Parameter, Usage

FOLDER = "reference/commands"


def write(source: Path) -> list[Any]:
    """Write the pages below the folder `source`, and return their navigation."""
    (source / FOLDER).mkdir(parents=True)
    (source / FOLDER / "index.md").write_text(index(), encoding="utf-8")
    sections: dict[str, list[Any]] = {}
    for name, command in COMMANDS.items():
        file = f"{FOLDER}/{_file(name)}"
        (source / file).write_text(page(name, parameters.of_command(name)), encoding="utf-8")
        sections.setdefault(command.section, []).append({name: file})
    return [f"{FOLDER}/index.md", *({section: pages} for section, pages in sections.items())]


def index() -> str:
    """The table of all commands."""
    rows = [
        [f"[gencomp {name}]({_file(name)})", markdown.text(command.help)]
        for name, command in COMMANDS.items()
    ]
    return (
        "# Commands\n\n"
        "`gencomp COMMAND --help` prints what these pages say, and `--debug` in front of a command"
        " shows the traceback of an error. Exit codes: 0 done, 1 failed, 2 wrong usage or input,"
        " 130 stopped by a signal, 141 nobody reads the output any more.\n\n"
        + markdown.table(["command", "what it does"], rows)
    )


def page(name: str, usage: Usage) -> str:
    """The page of one command."""
    named = [one for one in usage.parameters if one.names]
    unnamed = [one for one in usage.parameters if not one.names]
    words = [f"gencomp {name}", *map(_argument, unnamed), *["[OPTIONS]"] * bool(named)]
    words += [f"[{usage.keys} ...]"] * bool(usage.keys)
    parts = [f"# gencomp {name}", f"```\n{' '.join(words)}\n```"]
    parts.append(markdown.paragraphs(usage.description))
    if unnamed:
        rows = [[markdown.code(one.value), *_about(one)] for one in unnamed]
        parts.append("## Arguments\n\n" + markdown.table(["argument", "meaning", "default"], rows))
    if named:
        rows = [[_option(one), *_about(one)] for one in named]
        parts.append("## Options\n\n" + markdown.table(["option", "meaning", "default"], rows))
    return "\n\n".join(parts) + "\n"


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.md"


def _argument(one: Parameter) -> str:
    return one.value if one.required or one.value.startswith("[") else f"[{one.value}]"


def _option(one: Parameter) -> str:
    names = "<br>".join(map(markdown.code, one.names))
    if one.choices:
        return f"{names} {' '.join(map(markdown.code, one.choices))}"
    return f"{names} {markdown.code(one.value)}".strip()


def _about(one: Parameter) -> list[str]:
    """The cells of the meaning and of the default."""
    allowed = f" One of {', '.join(map(markdown.code, one.choices))}."
    meaning = markdown.text(one.meaning) + (allowed if one.choices and not one.names else "")
    return [meaning, "required" if one.required else markdown.code(one.default)]
