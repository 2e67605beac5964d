"""Small pieces of HTML; every string that comes from outside passes through `text`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from gencomp.evaluation.measured import Measured

DASH = "–"


class Column(NamedTuple):
    """A column of a table, with its heading as markup; `words` tells words from numbers."""

    heading: str
    words: bool = False


def text(value: object) -> str:
    return escape(str(value), quote=True)


def number(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits; a dash if there is no number."""
    if value is None or math.isnan(value):
        return DASH
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return DASH if value is None else f"{int(value):,}".replace(",", "\u202f")


def fixed(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.{decimals}f}".replace("-", "−")


def plus_minus(value: float | None, error: float | None) -> str:
    """A value and its standard error, both rounded to the error's two leading digits.

    An error that is not a number is said to be unknown.
    """
    if value is not None and error is not None and math.isnan(error):
        return f'{number(value)}<span class="pm"> (error unknown)</span>'
    if value is None or error is None or not math.isfinite(error) or error <= 0:
        return number(value)
    decimals = min(8, max(0, 1 - math.floor(math.log10(error))))
    return f'{fixed(value, decimals)}<span class="pm"> ± {fixed(error, decimals)}</span>'


def measured(value: Measured | None) -> str:
    """A measured value with its interval in brackets, where that is known; a dash without one."""
    if value is None:
        return DASH
    if value.interval is None:
        return number(value.value)
    low, high = value.interval
    interval = f'<span class="pm"> ({number(low)} to {number(high)})</span>'
    return number(value.value) + interval


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()
) -> str:
    """A table whose cells are markup already; `classes` names one class for each row."""
    kinds = [' class="words"' if column.words else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{c.heading}</th>' for c, kind in zip(columns, kinds, strict=True)
    )
    body = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        name = f' class="{classes[i]}"' if i < len(classes) and classes[i] else ""
        body.append(f"<tr{name}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """A definition list of plain strings."""
    body = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in items)
    return f"<dl>{body}</dl>"


def figure(svg: str, caption: str = "") -> str:
    """An inline drawing that scrolls sideways on a narrow screen; its caption is markup."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><div class="scroll">{svg}</div>{below}</figure>'


def image(pixels_HWC: np.ndarray, alt: str) -> str:
    """A uint8 image as an HTML element that contains the image's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels_HWC.shape[:2]
    return (
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{text(alt)}">'
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"
