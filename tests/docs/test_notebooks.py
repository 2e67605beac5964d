"""Notebooks run from top to bottom, by the program that fills their outputs, and become pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs.site import notebooks, repository
from tests.conftest import ROOT
from tests.docs.test_site import NOTEBOOKS
from tests.processes import ENVIRONMENT

_MOST_BYTES = 300_000


def printed(notebook: notebooks.Notebook) -> str:
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", ())]
    return "".join("".join(one.get("text", ())) for one in outputs)


def figures(notebook: notebooks.Notebook) -> int:
    return len(notebooks.page(notebook, "any")[1])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def committed(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def run_again(committed: Path, tmp_path: Path) -> notebooks.Notebook:
    """A notebook that has just been run, in another process."""
    copy = tmp_path / committed.name
    shutil.copyfile(committed, copy)
    words = [sys.executable, "-m", "docs.site.notebooks", str(copy)]
    done = subprocess.run(
        words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return notebooks.read(copy)


def test_a_notebook_runs_and_says_what_it_promises(
    committed: Path, run_again: notebooks.Notebook
) -> None:
    said = printed(run_again)
    if committed.stem == "curve":
        (error,) = re.findall(r"largest error of the mean of log Z along the curve: ([\d.]+)", said)
        assert float(error) < 0.2  # nats, where the closed form is known; single images have 0.3
        assert all(abs(float(gap)) < 0.7 for gap in re.findall(r"gap (-?[\d.]+) nats", said))
        assert all(float(one) < 1 for one in re.findall(r"at least (-?[\d.]+) nats", said))
    else:
        assert "run runs/letters is finished: step 242" in said
        assert "the same bytes and the same pixels again: True" in said
        assert len(said.splitlines()[-1].replace(" ", "")) == 2 * 29  # hexadecimal digits
    assert figures(run_again) == figures(notebooks.read(committed))


def test_a_committed_notebook_has_its_outputs_and_is_small(committed: Path) -> None:
    notebook = notebooks.read(committed)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert figures(notebook) and printed(notebook)
    assert committed.stat().st_size < _MOST_BYTES


def cell(kind: str, source: str) -> dict[str, Any]:
    more = {"outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "source": source.splitlines(keepends=True), **more}


def test_cells_share_names_and_commands_are_run_between_them(tmp_path: Path) -> None:
    sources = [
        "x = 41\nprint(x)",
        "x += 1\n!echo from the shell > file\n!cat file | tr a-z A-Z",
        "x;",
    ]
    notebook = {"cells": [cell("code", source) for source in [*sources, "print(x)"]]}
    notebooks.run(notebook, tmp_path)
    assert printed(notebook) == "41\nFROM THE SHELL\n42\n"
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("source", ["1 / 0", "!false | cat"])
def test_what_fails_ends_the_run(source: str, tmp_path: Path) -> None:
    notebook = {"cells": [cell("code", source), cell("code", "open('never', 'w')")]}
    with pytest.raises((ZeroDivisionError, subprocess.CalledProcessError)):
        notebooks.run(notebook, tmp_path)
    assert not (tmp_path / "never").exists()


def test_the_page_of_a_notebook_has_its_texts_code_outputs_and_pictures(tmp_path: Path) -> None:
    root, source = tmp_path / "root", tmp_path / "source"
    draw = "from matplotlib import pyplot\npyplot.plot([1, 2])\nprint('[not](a-link.py)')"
    cells = [cell("markdown", "# Title\n[a](../a.md) [b](../b.py)"), cell("code", draw)]
    notebook = {"cells": [*cells, cell("code", "!echo shell")]}
    notebooks.run(notebook, tmp_path)
    (root / "docs/notebooks").mkdir(parents=True)
    notebooks.write(root / "docs/notebooks/one.ipynb", notebook)
    (root / "docs/a.md").write_text("[notebook](notebooks/one.ipynb)", encoding="utf-8")
    (root / "docs/b.py").write_text("pass", encoding="utf-8")
    repository.write(root, source)
    page = (source / "docs/notebooks/one.md").read_text(encoding="utf-8")
    assert page.startswith("# Title\n[a](../a.md) [b](../b.py.source.md)\n\n```python\nfrom")
    assert "```text\n[not](a-link.py)\n```\n\n![what the code above draws](one_0.png)" in page
    assert page.endswith("```bash\n!echo shell\n```\n\n```text\nshell\n```\n")
    assert (source / "docs/notebooks/one_0.png").read_bytes().startswith(b"\x89PNG")
    assert "[notebook](notebooks/one.md)" in (source / "docs/a.md").read_text(encoding="utf-8")
