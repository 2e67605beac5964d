"""``python -m docs.site FOLDER``: write the sources and the configuration of the site."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from docs.site import api, commands, recipes, repository

ROOT = Path(__file__).resolve().parents[2]

# What a reader looks for, as a newcomer asks for it; pages are paths in the repository,
# those of notebooks with the ending of the page that is made of them.
NAVIGATION: list[dict[str, Any]] = [
    {
        "Overview": [
            "README.md",
            {"Start here": "docs/start.md"},
            {"A codec in a minute": "docs/notebooks/codec.md"},
            {"The curve of your own decoder": "docs/notebooks/curve.md"},
            {"Every command": "docs/commands.md"},
            {"What holds": "docs/guarantees.md"},
            {"Changes": "CHANGELOG.md"},
        ]
    },
    {
        "Tasks": [
            {"Bring data": "docs/data.md"},
            {"Train": "docs/training.md"},
            {"Train and measure on a cluster": "docs/slurm.md"},
            {"Search": "docs/sweeps.md"},
            {"Evaluate": "docs/evaluation.md"},
            {"Compress": "docs/compress.md"},
            {"Follow runs in a tracker": "docs/tracking.md"},
            {"Share a model": "docs/model_files.md"},
            {"Measure your own model": "docs/models.md"},
            {"Add your own method": "CONTRIBUTING.md"},
            {"Keep checkpoints": "docs/checkpoints.md"},
            {"Write scripts": "docs/json.md"},
            {"Plan for many GPUs": "docs/scaling.md"},
            {"Stay secure": "docs/security.md"},
        ]
    },
    {
        "Methods": [
            {"Distribution-preserving compression": "docs/dplc.md"},
            {"Rate-distortion curves by AIS": "docs/ais.md"},
            {"Rate-distortion-perception codecs": "docs/urdp.md"},
            {"Relative entropy coding": "docs/irec.md"},
            {"Compression with GANs": "docs/gan_compression.md"},
            {"Measured speed": "benchmarks/README.md"},
        ]
    },
]


def write(root: Path, folder: Path) -> None:
    """Write the pages and ``mkdocs.yml`` into a folder, of which nothing older is left.

    Args:
        root: The checkout.
        folder: The folder; the site is built into ``site`` beside the pages.
    """
    source = folder / "docs_source"
    shutil.rmtree(source, ignore_errors=True)
    repository.write(root, source)
    shutil.copyfile(Path(__file__).with_name("style.css"), source / "style.css")
    reference = [
        {"Commands": commands.write(source)},
        {"Recipes": recipes.write(source)},
        {"Python": api.write(root, source)},
    ]
    config = {
        "INHERIT": str((root / "mkdocs.yml").resolve()),
        "docs_dir": "docs_source",
        "site_dir": "site",
        "nav": [*NAVIGATION, {"Reference": reference}],
        # Pages that are reached from others: source files, and recipes as they ship.
        "not_in_nav": f"*{repository.SUFFIX}\n/{recipes.SHIPPED}/*\n",
        "plugins": {"mkdocstrings": {"handlers": {"python": {"paths": [str(root.resolve())]}}}},
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (folder / "mkdocs.yml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(ROOT, Path(sys.argv[1]))
