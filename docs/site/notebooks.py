"""Notebooks: a page of the site from one, and its cells run anew, both without Jupyter.

``python -m docs.site.notebooks FILE.ipynb ...`` runs the code of each notebook from top to bottom
in a directory that is removed afterwards, and writes what it prints and draws into the file.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]

_RESOLUTION = 80  # dots per inch of the figures
_SHELL = re.compile(r"^!(.*)$", re.MULTILINE)


def read(path: Path) -> Notebook:
    """The content of a notebook."""
    found: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, notebook: Notebook) -> None:
    """Write a notebook as Jupyter does."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def page(notebook: Notebook, name: str) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook in Markdown, and its pictures by their file names.

    Args:
        notebook: The notebook.
        name: What the names of the pictures begin with.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced(source, "bash" if source.startswith("!") else "python"))
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(_fenced("".join(output["text"]).rstrip(), "text"))
            else:
                file = f"{name}_{len(pictures)}.png"
                pictures[file] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![what the code above draws]({file})")
    return "\n\n".join(parts) + "\n", pictures


def run(notebook: Notebook, directory: Path) -> None:
    """Run the code of a notebook in a directory; its outputs replace those that it had.

    A line that begins with `!` is a command of a shell, as in Jupyter; one that fails ends the run,
    as an exception does.
    """
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    names: dict[str, Any] = {"__name__": "__main__", "_shell": _shell}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with contextlib.chdir(directory):
        for number, cell in enumerate(code, start=1):
            source = _SHELL.sub(lambda line: f"_shell({line[1]!r})", "".join(cell["source"]))
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(source, f"<cell {number}>", "exec"), names)
            cell["execution_count"] = number
            cell["outputs"] = [*_stream(said.getvalue()), *_figures()]


def _shell(command: str) -> None:
    """Run a command, all parts of which must succeed, and print what it prints."""
    words = ["bash", "-o", "pipefail", "-c", command]
    # `gencomp` is the command that belongs to this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "PATH": path}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    print(done.stdout, end="")


def _stream(text: str) -> Iterator[dict[str, Any]]:
    if text:
        lines = text.splitlines(keepends=True)
        yield {"name": "stdout", "output_type": "stream", "text": lines}


def _figures() -> Iterator[dict[str, Any]]:
    """The figures that were drawn since the last call."""
    from matplotlib import pyplot

    for number in pyplot.get_fignums():
        drawn = io.BytesIO()
        pyplot.figure(number).savefig(drawn, dpi=_RESOLUTION, bbox_inches="tight")
        data = {"image/png": base64.b64encode(drawn.getvalue()).decode()}
        yield {"data": data, "metadata": {}, "output_type": "display_data"}
    pyplot.close("all")


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


if __name__ == "__main__":
    for word in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            found = read(Path(word))
            run(found, Path(folder))
            write(Path(word), found)
