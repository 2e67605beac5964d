"""The part of a report's page about what files are made of."""

from __future__ import annotations

from collections.abc import Sequence

from gencomp.figures.file_parts import CONTAINER, FileParts, parts_of, stack
from gencomp.report.drawing import GROUPS, INK, MUTED, new, style, to_svg
from gencomp.report.markup import DASH, Column, figure, measured, number, section, table, text

_WIDTH, _ROW = 6.4, 0.34  # inches
_CAPTION = (
    "All bits of files of one picture, per pixel: means over pictures, with the 95 % interval of "
    "the whole rate."
)


def rate_by_part(files: Sequence[FileParts]) -> str:
    """The section as markup."""
    names = parts_of(files)
    colours = dict(zip((part for part in names if part != CONTAINER), GROUPS, strict=False))
    with style():
        drawing, axes_RC = new(_WIDTH, 1.2 + _ROW * len(files))
        stack(axes_RC[0][0], files, colours | {CONTAINER: MUTED}, INK)
        drawing.legend(loc="outside lower center", ncols=min(len(names), 4))
        svg = to_svg(drawing, "parts", "Bits per pixel of each part of files")
    columns = [Column("files", words=True), *map(Column, names.values()), Column("file, bpp")]
    rows = [
        [
            text(one.name),
            *(number(one.bpp[part]) if part in one.bpp else DASH for part in names),
            measured(one.file),
        ]
        for one in files
    ]
    return section("Rate by part", figure(svg, _CAPTION) + table([*columns], rows))
