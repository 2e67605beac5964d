"""The part of a report's page about files without loss: bits per dimension, bound, other codecs."""

from __future__ import annotations

from matplotlib.axes import Axes

from gencomp.report.content import EngineeredFiles, Lossless, LosslessFiles
from gencomp.report.drawing import GROUPS, INK, MUTED, handle, new, style, to_svg
from gencomp.report.markup import DASH, Column, fixed, measured, number, section, table, text
from gencomp.report.markup import figure as drawn

_WIDTH, _ROW = 6.4, 0.34  # inches
_CAPTION = (
    "All bits of the files, per colour value of a pixel; to the left is better. Filled: all "
    "pictures in one file or archive; hollow: each in a file of its own, with the 95 % interval "
    "over pictures. The line is the bound −ELBO of the model’s latents."
)


def lossless(content: Lossless) -> str:
    """The section as markup."""
    said = (
        "<p>Every picture came back exactly. Rates are those of real files, in bits per dimension "
        f"(a colour value of a pixel). Pictures: {text(content.pictures)}.</p>"
    )
    body = said + drawn(_drawing(content), _CAPTION) + _table(content)
    return section("Files without loss", body)


def _drawing(content: Lossless) -> str:
    rows: list[LosslessFiles | EngineeredFiles] = [*content.codecs, *content.engineered]
    with style():
        figure, axes_RC = new(_WIDTH, 1.3 + _ROW * len(rows))
        axes: Axes = axes_RC[0][0]
        for place, row in enumerate(rows):
            ours = isinstance(row, LosslessFiles)
            _draw_row(axes, place, row, GROUPS[0] if ours else MUTED)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("bits per dimension")
        handles = [
            handle(INK, "o", "together in one file", "none"),
            handle(INK, "o", "each alone", "none"),
            handle(INK, "|", "bound, −ELBO", "none"),
        ]
        handles[1].set_markerfacecolor("none")
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return to_svg(figure, "lossless", "Bits per dimension of files without loss")


def _draw_row(axes: Axes, place: int, row: LosslessFiles | EngineeredFiles, colour: str) -> None:
    low, high = row.alone.interval or (row.alone.value, row.alone.value)
    axes.errorbar(
        [row.alone.value],
        [place],
        xerr=[[max(row.alone.value - low, 0.0)], [max(high - row.alone.value, 0.0)]],
        color=colour,
        marker="o",
        markerfacecolor="none",
        elinewidth=0.8,
    )
    axes.plot([row.joint], [place], marker="o", color=colour)
    if isinstance(row, LosslessFiles) and row.bound is not None:
        axes.plot([row.bound.value], [place], marker="|", markersize=15, color=INK)


def _table(content: Lossless) -> str:
    columns = [
        Column("files", words=True),
        Column("bound,<br>−ELBO"),
        Column("code<br>alone"),
        Column("file<br>alone"),
        Column("file<br>together"),
        Column("above<br>the bound"),
        Column("write,<br>s a picture"),
        Column("read,<br>s a picture"),
        Column("directory or source", words=True),
    ]
    ours = [
        [
            text(one.name),
            measured(one.bound),
            number(one.code),
            measured(one.alone),
            number(one.joint),
            _above(one),
            *(number(seconds, 2) for seconds in one.seconds),
            f"<code>{text(one.directory)}</code>",
        ]
        for one in content.codecs
    ]
    others = [
        [text(one.name), DASH, DASH, measured(one.alone), number(one.joint), *4 * [DASH]]
        for one in content.engineered
    ]
    published = [
        [
            f"{text(one.name)}, published",
            *2 * [DASH],
            number(one.alone),
            *4 * [DASH],
            f'<a href="{text(one.source)}">{text(one.source)}</a>',
        ]
        for one in content.published
    ]
    note = (
        "In brackets: 95 % intervals over pictures. Above the bound: the shorter one of both files,"
        " over −ELBO. A joint file of bits-back coding can be below it, since its first pictures"
        " are in lossless WebP. Engineered codecs: all their bytes, and those of one archive."
    )
    said = "".join(f'<p class="muted">{text(line)}</p>' for line in content.left_out)
    return table(columns, ours + others + published) + f'<p class="muted">{note}</p>{said}'


def _above(one: LosslessFiles) -> str:
    if one.bound is None:
        return DASH
    return f"{fixed(100 * (min(one.alone.value, one.joint) / one.bound.value - 1), 1)} %"
