"""Rows of images under one another, each with its title."""

from __future__ import annotations

from collections.abc import Sequence

from gencomp.report.content import PictureRow
from gencomp.report.markup import image, text


def gallery(rows: Sequence[PictureRow]) -> str:
    """The rows as markup, one or more; columns are as wide as the longest row needs."""
    columns = max(len(row.images) for row in rows)
    cells = []
    for row in rows:
        cells.append(f"<h3>{text(row.title)} <small>{text(row.note)}</small></h3>")
        for i in range(columns):
            if i >= len(row.images):
                cells.append("<div></div>")
                continue
            caption = text(row.captions[i]) if row.captions else ""
            cells.append(f"<div>{image(row.images[i], f'{row.title}, {i + 1}')}{caption}</div>")
    return (
        '<div class="scroll"><div class="gallery" '
        f'style="grid-template-columns:repeat({columns},auto)">{"".join(cells)}</div></div>'
    )
