"""Published curves as a layer of a figure of curves, where data set and protocol agree."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from gencomp import published
from gencomp.errors import InputError
from gencomp.figures.curves import Panel, Point
from gencomp.published import PublishedCurve, agreement

EVERY = "all"


def parse(text: str) -> list[str]:
    """The methods that a text such as `vtm,mbt2018` names; `all` stands for every method.

    A method is named with its training target, as in `mbt2018 (mse)`, or without, for all of them.
    Capitals do not matter.

    Raises:
        InputError: nothing is published of a method.
    """
    methods = _every_method()
    found: list[str] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        named = methods if word.lower() == EVERY else [m for m in methods if _is_named(m, word)]
        if not named:
            near = difflib.get_close_matches(word.lower(), [m.lower() for m in methods], n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"--published {word!r} is no method of which something is published here: `gencomp"
                f" published` lists them{meant}"
            )
        found += named
    return list(dict.fromkeys(found))


def with_published(
    panels: Sequence[Panel], methods: Sequence[str]
) -> tuple[list[Panel], list[str]]:
    """Panels with the published curves that may stand in them, and a sentence for all others.

    Args:
        panels: the panels with measured points.
        methods: the methods whose curves are wanted.

    Raises:
        InputError: no panel has a curve that may stand in it; the message says why.
    """
    drawn, sentences = [], []
    for panel in panels:
        points, said = _beside(panel, methods)
        drawn.append(Panel(panel.metric, [*panel.points, *points]))
        sentences += said
    if not any(point.kind == "published" for panel in drawn for point in panel.points):
        why = "; ".join(sentences) or "nothing is published here of any of the --metrics"
        raise InputError(f"--published has nothing to draw: {why}")
    return drawn, sentences


def remarks(panels: Sequence[Panel]) -> list[str]:
    """What the figure says of its published curves: their sources, and how their rates count."""
    points = [point for panel in panels for point in panel.points if point.kind == "published"]
    if not points:
        return []
    sources = dict.fromkeys(point.source.partition(" ")[0] for point in points)
    said = "published curves are dashed; their rates are of files, or of code without containers"
    return [said, *(f"published: {source}" for source in sources)]


def _every_method() -> list[str]:
    return list(dict.fromkeys(curve.method for curve in published.curves()))


def _is_named(method: str, word: str) -> bool:
    method, word = method.lower(), word.lower()
    return method == word or method.startswith(f"{word} (")


def _beside(panel: Panel, methods: Sequence[str]) -> tuple[list[Point], list[str]]:
    """The published points of a panel, and a sentence for each reason to leave curves out."""
    column = agreement.column(panel.metric)
    if column is None:
        return [], []
    beside = next((p.protocol for p in panel.points if p.protocol and p.kind == "result"), None)
    if beside is None:
        return [], [f"{panel.metric} has no result whose data set is known"]
    measured = agreement.measured(
        data_set=str(beside.get("data set")),
        split=str(beside.get("split")),
        images=str(beside.get("images")),
        geometry=beside.get("the geometry of images"),
        transforms=beside.get("the transforms of images") or {},
    )
    every = [curve for curve in published.curves() if curve.method in methods]
    here = [one for one in every if one.protocol.data_set == measured.data_set]
    if not here:
        sets = ", ".join(sorted({one.protocol.data_set for one in every}))
        return [], [f"{panel.metric} is of {measured.data_set}, and these are of {sets}"]
    drawn: list[PublishedCurve] = []
    left: dict[str, list[str]] = {}
    for curve in here:
        if any(column in p.values or f"{column}_db" in p.values for p in curve.points):
            why = agreement.difference(curve, panel.metric, measured)
        else:
            why = "without this metric"
        if why is None:
            drawn.append(curve)
        else:
            left.setdefault(why, []).append(curve.method)
    points = [
        point for curve in drawn for point in _points(curve, _label(curve, here), column, beside)
    ]
    said = [agreement.left_out(why, "curve", those) for why, those in left.items()]
    if len(methods) < len(_every_method()):  # `all` means those of the data set
        absent = [name for name in methods if not any(one.method == name for one in here)]
        if absent:
            said.append(f"nothing is published here on {measured.data_set} of {', '.join(absent)}")
    return points, [f"{panel.metric}: {one}" for one in said]


def _label(curve: PublishedCurve, among: Sequence[PublishedCurve]) -> str:
    """The method, with the repository where several have published it on the same images."""
    if sum(one.method == curve.method for one in among) == 1:
        return f"{curve.method}, published"
    return f"{curve.method}, published in {curve.source.repository.rpartition('/')[2]}"


def _points(
    curve: PublishedCurve, label: str, column: str, beside: Mapping[str, Any]
) -> list[Point]:
    source = f"{curve.source.repository}@{curve.source.commit} {curve.source.path}"
    return [
        Point(label, point.bpp, point.values[column], None, source, beside, "published")
        for point in curve.points
        if point.bpp and column in point.values
    ]
