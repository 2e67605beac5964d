"""`gencomp published`, which lists the published results that ship with gencomp."""

from __future__ import annotations

from typing import Annotated

import tyro

from gencomp.cli.console import print_table
from gencomp.errors import InputError

_OTHERS = ("lossless", "speed")


def published(table: Annotated[str | None, tyro.conf.arg(metavar="[TABLE]")] = None, /) -> None:
    """List published results of codecs and bounds, each with its source and its protocol.

    Without TABLE, the data sets are listed with the methods that `gencomp figure curves
    --published` takes. `lossless` and `speed` list rates of lossless coders and times of coding.

    Args:
        table: Data set whose curves are listed, or lossless, or speed.
    """
    if table is None:
        _print_data_sets()
    elif table == "lossless":
        _print_lossless()
    elif table == "speed":
        _print_speed()
    else:
        _print_curves(table)


def _print_data_sets() -> None:
    from gencomp.published import curves

    print("gencomp published DATA_SET lists its curves with their sources and protocols.\n")
    found: dict[str, list[str]] = {}
    for curve in curves():
        found.setdefault(curve.protocol.data_set, []).append(curve.method)
    rows = [
        (name, str(len(methods)), ", ".join(dict.fromkeys(methods)))
        for name, methods in sorted(found.items())
    ]
    print_table("", ("data set", "curves", "methods"), rows)


def _print_curves(data_set: str) -> None:
    from gencomp.published import curves

    found = [curve for curve in curves() if curve.protocol.data_set == data_set]
    if not found:
        sets = ", ".join(sorted({curve.protocol.data_set for curve in curves()}))
        raise InputError(
            f"nothing is published here of the data set {data_set!r}; there are results of {sets},"
            f" and {' and '.join(_OTHERS)}"
        )
    rows = []
    for curve in found:
        own = curve.protocol
        given = dict.fromkeys(name for point in curve.points for name in point.values)
        rates = [point.bpp for point in curve.points if point.bpp is not None]
        rows.append(
            (
                curve.method,
                curve.family,
                str(len(curve.points)),
                f"{min(rates):.4g} to {max(rates):.4g}" if rates else "",
                ", ".join(given),
                own.rate,
                own.psnr,
                own.pixels,
                str(curve.source),
                "; ".join(filter(None, (own.metrics_note, own.patches_note, curve.note))),
            )
        )
    columns = ("method", "family", "points", "bpp", "metrics", "rate of", "psnr", "pixels")
    images = "; ".join(dict.fromkeys(curve.protocol.images_note for curve in found))
    print_table(data_set, (*columns, "source", "notes"), rows, images)


def _print_lossless() -> None:
    from gencomp.published import lossless

    rows = [
        (
            one.method,
            one.data_set,
            f"{one.bits_per_dimension:g}",
            "yes" if one.single_image else "no",
            str(one.source),
            one.note,
        )
        for one in lossless()
    ]
    columns = ("method", "data set", "bits per dimension", "single image", "source", "note")
    print_table("", columns, rows)


def _print_speed() -> None:
    from gencomp.published import coding_times

    rows = [
        (
            one.method,
            one.device,
            one.resolution,
            "" if one.encode_ms is None else f"{one.encode_ms:g}",
            "" if one.decode_ms is None else f"{one.decode_ms:g}",
            str(one.source),
            one.note,
        )
        for one in coding_times()
    ]
    columns = ("method", "device", "size", "encode, ms", "decode, ms", "source", "note")
    print_table("", columns, rows)
