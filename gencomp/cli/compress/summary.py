"""The summary of compressing or decompressing a folder, as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gencomp.cli.compress import work
from gencomp.cli.console import print_table
from gencomp.exit_codes import DONE, FAILED, SPEAKER


def conclude(title: str, results: Sequence[work.Done | work.Failed]) -> int:
    """Print the summary of a folder's files; returns the exit code, which is 1 if some failed."""
    done = [result for result in results if isinstance(result, work.Done)]
    failed = [result for result in results if isinstance(result, work.Failed)]
    if done:
        columns = {
            "images": f"{len(done)}",
            "kept": f"{sum(one.kept for one in done)}",
            "bytes": f"{sum(one.bytes for one in done)}",
            "bpp nominal": nominal_bpp(done) or "–",
            "bpp of code": bpp(sum(one.code_bits for one in done), done),
            "bpp of containers": bpp(sum(one.container_bits for one in done), done),
        }
        print_table(title, list(columns), [list(columns.values())])
    if failed:
        print(f"{SPEAKER}{len(failed)} of {len(results)} images failed:", file=sys.stderr)
        for one in failed:
            print(f"  {one.sentence}", file=sys.stderr)
    return FAILED if failed else DONE


def nominal_bpp(done: Sequence[work.Done]) -> str:
    """The bits per pixel at the method's fixed length; empty for a method without fixed length."""
    nominal = [one.nominal_bits for one in done if one.nominal_bits is not None]
    return bpp(sum(nominal), done) if len(nominal) == len(done) else ""


def bpp(bits: int, done: Sequence[work.Done]) -> str:
    """The bits of several files divided by the number of pixels of their images, as text."""
    return f"{bits / sum(one.height * one.width for one in done):.4g}"
