"""The documentation site's pages; `make docs` builds them, and refuses broken links and anchors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from docs.site import __main__ as site
from docs.site import api, commands, markdown, recipes, repository
from gencomp.cli import COMMANDS, parameters
from gencomp.recipes import RECIPES, shipped
from gencomp.validation import keys
from tests.conftest import ROOT

NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))


def test_every_page_of_the_repository_is_in_the_navigation() -> None:
    listed = re.findall(r"[\w/]+\.md", yaml.safe_dump(site.NAVIGATION))
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    made = {path.relative_to(ROOT).with_suffix(".md").as_posix() for path in NOTEBOOKS}
    assert there | made <= set(listed)
    assert all((ROOT / page).is_file() for page in set(listed) - made)


def test_links_lead_to_pages_pictures_and_pages_of_source_files(tmp_path: Path) -> None:
    root, source = tmp_path / "root", tmp_path / "source"
    files = {
        "README.md": "[a](docs/a.md#x) [web](https://example.org) ![p](docs/p.png)",
        "docs/a.md": "[code](../code/b.py#L1) [top](#x)\n```\n[not](a-link.py)\n```\n",
        "docs/p.png": "pixels",
        "code/b.py": "print('```')\n",
        "code/c.py": "nobody links here",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    repository.write(root, source)
    written = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert written == {"README.md", "docs/a.md", "docs/p.png", "code/b.py.source.md"}
    assert (source / "README.md").read_text() == files["README.md"]
    page = (source / "docs/a.md").read_text()
    assert page == files["docs/a.md"].replace("b.py#L1", "b.py.source.md#L1")
    assert "print('```')" in (source / "code/b.py.source.md").read_text()


@pytest.mark.parametrize("link", ["gone.md", "../../outside.md", "folder"])
def test_a_link_to_no_file_of_the_repository_is_refused(link: str, tmp_path: Path) -> None:
    (tmp_path / "root/docs/folder").mkdir(parents=True)
    (tmp_path / "outside.md").touch()
    (tmp_path / "root/docs/a.md").write_text(f"[b]({link})")
    with pytest.raises(ValueError, match=re.escape(f"docs/a.md links to {link}, which is no file")):
        repository.write(tmp_path / "root", tmp_path / "source")


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("a *.png, [-1, 1]", r"a \*.png, \[-1, 1\]"),
        ("`a|b_*` <run>", "`a|b_*` &lt;run&gt;"),
        ("``--json`` of snake_case", r"`--json` of snake\_case"),
    ],
)
def test_text_means_nothing_to_markdown(plain: str, shown: str) -> None:
    assert markdown.text(plain) == shown


@pytest.mark.parametrize("name", ["status", "slurm ais", "evaluate", "doctor", "shards build"])
def test_the_page_of_a_command_has_its_options(name: str) -> None:
    usage = parameters.of_command(name)
    page = commands.page(name, usage)
    assert page.startswith(f"# gencomp {name}\n\n```\ngencomp {name}")
    named = [one for one in usage.parameters if one.names]
    assert named
    for one in named:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{one.names[0]}`"))
        assert len(markdown.text(one.meaning)) > 10 and markdown.text(one.meaning) in row
        assert one.required == row.endswith("| required |")
        assert not one.default or row.endswith(f"| `{one.default}` |")


@pytest.mark.parametrize(
    ("name", "keys"),
    [("slurm sweep", "--section.field VALUE"), ("compress", "--codec.KEY VALUE"), ("doctor", "")],
)
def test_the_page_of_a_command_says_which_values_of_a_recipe_it_takes(name: str, keys: str) -> None:
    line = commands.page(name, parameters.of_command(name)).splitlines()[3]
    assert line.endswith(f" [{keys} ...]" if keys else " [OPTIONS]")


def test_all_commands_are_listed() -> None:
    listed = re.findall(r"^\| \[gencomp ([a-z -]+)\]", commands.index(), re.MULTILINE)
    assert listed == list(COMMANDS)


def lines_without_a_meaning(page: str) -> list[str]:
    return [x for x in page.splitlines() if x.startswith("| `") and x.endswith("|  |")]


@pytest.mark.parametrize(("system", "stage"), RECIPES)
def test_the_page_of_a_recipe_has_its_keys(system: str, stage: str) -> None:
    model = RECIPES[system, stage]
    page = recipes.page(system, stage, model)
    listed = re.findall(r"^\| `([a-z0-9_.]+)` \| `.+` \| (\S.*?) \|", page, re.MULTILINE)
    expected = [key.dotted for key in keys(model) if key.section and key.model is None]
    assert sorted(key for key, _ in listed) == sorted(expected)
    assert "PydanticUndefined" not in page
    assert not lines_without_a_meaning(page)


def test_everything_that_ships_has_a_page() -> None:
    index = recipes.index()
    for package in ("gencomp.recipes", "sweeps"):
        for name in shipped.names(package):
            assert f"| [{name}](" in index
            assert shipped.content(package, name).decode() in recipes.of_file(package, name)
    page = recipes.of_sweeps()
    assert "`objective.minimise`" in page
    assert not lines_without_a_meaning(page)


def test_every_module_of_the_science_floor_has_a_page(tmp_path: Path) -> None:
    navigation = api.write(ROOT, tmp_path)
    names = {path.stem for path in (tmp_path / api.FOLDER).iterdir()}
    assert {"gencomp.system", "gencomp.coding.ans", "gencomp.rate_distortion.ais"} <= names
    assert set(re.findall(r"[\w/.]+\.md", yaml.safe_dump(navigation))) == {
        f"{api.FOLDER}/{name}.md" for name in names
    }
