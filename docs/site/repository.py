"""The pages that lie in the repository, with the pictures and source files to which they link.

The sources of the site have the folders of the repository, so that links between pages work on a
Git host and on the site. A source file becomes a page of its own, and so does a notebook.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Set
from pathlib import Path

from docs.site import notebooks

# Where pages begin; other pages are found by links.
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "docs/notebooks/*.ipynb")
PICTURES = {".png", ".svg", ".jpg"}
# The end of the name of a page that shows a file, behind the file's own ending.
SUFFIX = ".source.md"
# A notebook becomes a page with the pictures in it.
NOTEBOOK = ".ipynb"

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


def write(root: Path, source: Path) -> None:
    """Write all pages below the folder `source`.

    Raises:
        ValueError: A page links to something that is not a file of the repository.
    """
    todo = [path.relative_to(root) for pattern in PAGES for path in sorted(root.glob(pattern))]
    done: set[Path] = set()
    while todo:
        page = todo.pop()
        if page in done:
            continue
        done.add(page)
        target = source / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix in PICTURES:
            shutil.copyfile(root / page, target)
        elif page.suffix == ".md":
            text = (root / page).read_text(encoding="utf-8")
            todo += linked(root, page, text)
            target.write_text(with_pages_of_files(text), encoding="utf-8")
        elif page.suffix == NOTEBOOK:
            text, pictures = notebooks.page(notebooks.read(root / page), page.stem)
            todo += linked(root, page, text, set(pictures))
            target.with_suffix(".md").write_text(with_pages_of_files(text), encoding="utf-8")
            for name, content in pictures.items():
                (target.parent / name).write_bytes(content)
        else:
            shown = _shown(page, (root / page).read_text(encoding="utf-8"))
            target.with_name(target.name + SUFFIX).write_text(shown, encoding="utf-8")


def linked(root: Path, page: Path, text: str, own: Set[str] = frozenset()) -> Iterator[Path]:
    """The files to which a page links.

    Args:
        root: The checkout.
        page: The page.
        text: The text of the page in Markdown.
        own: The names of the pictures that are written beside the page.

    Raises:
        ValueError: There is no such file in the repository.
    """
    for part in _FENCED.split(text)[::2]:
        for link in _LINK.finditer(part):
            if link["path"] in own:
                continue
            path = (root / page.parent / link["path"]).resolve()
            if not path.is_file() or not path.is_relative_to(root.resolve()):
                raise ValueError(f"{page} links to {link['path']}, which is no file here")
            yield path.relative_to(root.resolve())


def with_pages_of_files(text: str) -> str:
    """A page whose links to source files go to the pages that show these files."""
    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(_to_page, part) for part in parts[::2]]
    return "".join(parts)


def _to_page(link: re.Match[str]) -> str:
    path = Path(link["path"])
    if path.suffix == NOTEBOOK:
        target = str(path.with_suffix(".md"))
    else:
        target = str(link["path"]) + ("" if path.suffix in {".md", *PICTURES} else SUFFIX)
    return target + (link["anchor"] or "")


def _shown(path: Path, text: str) -> str:
    language = _LANGUAGES.get(path.suffix, "text")
    return f"# {path}\n\n`````{language}\n{text}\n`````\n"
