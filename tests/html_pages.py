"""What tests ask of an HTML page."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

_VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags must nest, ids must be unique; what a browser would fetch is collected."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.targets.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def assert_self_contained(html: str) -> Page:
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert "://" not in html and "@import" not in html
    assert all(one.startswith(("#", "data:image/png;base64,")) for one in page.targets)
    assert all(one.startswith("#") for one in re.findall(r"url\(([^)]*)\)", html))
    # Every reference inside a drawing leads somewhere.
    inside = [one[1:] for one in page.targets if one.startswith("#")]
    assert set(inside + re.findall(r"url\(#([^)]*)\)", html)) <= set(page.ids)
    return page


def pictures_of(html: str) -> list[np.ndarray]:
    """Every image of a page, decoded."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]
