"""`gencomp shards verify`, which checks every byte of a shard set."""

from __future__ import annotations

from gencomp.cli.console import progress
from gencomp.cli.shards.showing import Location, megabytes
from gencomp.exit_codes import DONE, FAILED

_MOST_PROBLEMS = 100


def verify(location: Location, /, processes: int | None = None) -> int:
    """Check every byte of a shard set; the exit code is 1 when something is wrong.

    The command checks the index against dataset.json, the hashes of shards and samples, the members
    of the tars against the index, that images and maps decode and fit one another, and that no
    image is in two splits.

    Args:
        location: The shard set, a directory or a URI.
        processes: How many processes work at once; by default as many as pay off on this machine.
    """
    from shards.checking.verify import verify as check

    with progress("verifying", "samples") as show:
        report = check(location, processes, show)
    for problem in report.problems[:_MOST_PROBLEMS]:
        print(problem)
    if report.found > _MOST_PROBLEMS:
        print(f"and {report.found - _MOST_PROBLEMS} more")
    for note in report.notes:
        print(f"note: {note}")
    extent = f"{report.samples} samples in {report.shards} shards, {megabytes(report.bytes)}"
    if not report.ok:
        plural = "s" if report.found > 1 else ""
        print(f"{location}: {report.found} problem{plural}; {extent}")
        return FAILED
    print(f"{location}: whole; {extent}")
    return DONE
