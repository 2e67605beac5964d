"""The header of a container of many pictures, and the pictures that it lists.

A picture's sections are found from arrays of sizes and lengths, so a container of 50,000 pictures
is opened in milliseconds, and one of its pictures is read without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np

from gencomp.coding import fixed_length
from gencomp.coding.fields import MAX_BITS, Fields, Integers, malformed, varints
from gencomp.errors import InputError

MAX_SECTIONS = 64
# An opened container takes some 50 bytes of memory for each picture and section that it lists.
MAX_ENTRIES = 2**17


class Member(NamedTuple):
    """One picture of a container.

    Attributes:
        height, width: the size of the picture in pixels.
        sections: the picture's coded data, in the order in which a decoder needs it.
    """

    height: int
    width: int
    sections: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The sizes of pictures and the lengths of their sections.

    Attributes:
        runs_R4: the runs of pictures with the same height, width and number of sections: pictures
            in the run, height, width, sections of each.
        lengths_E: the length of each section in bytes, picture by picture.
    """

    runs_R4: Integers
    lengths_E: Integers

    @cached_property
    def stops_R(self) -> Integers:
        """The place behind the last picture of each run."""
        return np.cumsum(self.runs_R4[:, 0])

    @cached_property
    def counts_M(self) -> Integers:
        """The number of sections of each picture."""
        return np.repeat(self.runs_R4[:, 3], self.runs_R4[:, 0])

    @cached_property
    def firsts_M(self) -> Integers:
        """The place of each picture's first section among all sections."""
        return np.cumsum(self.counts_M) - self.counts_M

    @cached_property
    def ends_E(self) -> Integers:
        """The end of each section, counted from the start of the first one."""
        return np.cumsum(self.lengths_E)

    @property
    def pictures(self) -> int:
        return int(self.runs_R4[:, 0].sum())

    @property
    def code_bytes(self) -> int:
        return int(self.lengths_E.sum())

    def size(self, place: int) -> tuple[int, int]:
        """Height and width of the picture at a place."""
        run = int(np.searchsorted(self.stops_R, place, side="right"))
        return int(self.runs_R4[run, 1]), int(self.runs_R4[run, 2])

    def columns(self) -> list[Integers]:
        """The places of the pictures' first sections, those of their second sections, and so on."""
        most = int(self.runs_R4[:, 3].max(initial=0))
        return [self.firsts_M[self.counts_M > i] + i for i in range(most)]


class Members(Sequence[Member]):
    """The pictures of an opened container, which are cut out of its bytes when they are asked for.

    Args:
        layout: their sizes and lengths.
        content: the bytes in which their sections lie.
        start: the place of the first section in the content.
    """

    def __init__(self, layout: Layout, content: bytes, start: int) -> None:
        self.layout, self._content, self._start = layout, content, start

    def __len__(self) -> int:
        return self.layout.pictures

    @overload
    def __getitem__(self, place: int) -> Member: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Member, ...]: ...
    def __getitem__(self, place: int | slice) -> Member | tuple[Member, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        place = range(len(self))[place]
        first = int(self.layout.firsts_M[place])
        chosen = slice(first, first + int(self.layout.counts_M[place]))
        lengths = self.layout.lengths_E[chosen].tolist()
        ends = self.layout.ends_E[chosen].tolist()
        sections = tuple(
            self._content[self._start + end - length : self._start + end]
            for end, length in zip(ends, lengths, strict=True)
        )
        return Member(*self.layout.size(place), sections)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


def layout_of(members: Sequence[Member]) -> Layout:
    """The layout of pictures that may lie anywhere."""
    if isinstance(members, Members):
        return members.layout
    kinds = [(one.height, one.width, len(one.sections)) for one in members]
    kinds_M3 = np.array(kinds, np.int64).reshape(-1, 3)
    new_M = np.ones(len(kinds), np.bool_)
    new_M[1:] = (kinds_M3[1:] != kinds_M3[:-1]).any(axis=1)
    starts_R = np.flatnonzero(new_M)
    counts_R = np.diff(np.append(starts_R, len(kinds)))
    lengths = [len(section) for one in members for section in one.sections]
    runs_R4 = np.column_stack([counts_R, kinds_M3[starts_R]])
    return Layout(runs_R4, np.array(lengths, np.int64))


def write(layout: Layout, shared: Sequence[bytes]) -> bytes:
    """The bytes that `read` reads.

    Raises:
        InputError: a section is longer than the header can express.
    """
    tables = (_table(layout.lengths_E[column]) for column in layout.columns())
    runs = varints([len(layout.runs_R4)]) + varints(layout.runs_R4.ravel())
    return b"".join([runs, lengths(shared), *tables])


def read(fields: Fields) -> tuple[Layout, list[int | None]]:
    """The layout that a header lists, and the lengths of the shared sections, as `read_lengths`.

    Raises:
        InputError: the header does not fit its length, or lists more than a container may.
    """
    count = fields.varint()
    if 4 * count > fields.left:
        raise malformed()
    _require_entries(count)
    runs_R4 = fields.varints(4 * count).reshape(-1, 4)
    if int(runs_R4[:, 3].max(initial=0)) > MAX_SECTIONS or not _is_shortest(runs_R4):
        raise malformed()
    _require_entries(entries(runs_R4))
    shared_lengths = read_lengths(fields)
    empty = Layout(runs_R4, np.zeros(int((runs_R4[:, 0] * runs_R4[:, 3]).sum()), np.int64))
    for column in empty.columns():
        empty.lengths_E[column] = _read_table(fields, len(column))
    return empty, shared_lengths


def lengths(sections: Sequence[bytes]) -> bytes:
    """The number of the sections and the length of each but the last."""
    return varints([len(sections), *map(len, sections[:-1])])


def read_lengths(fields: Fields) -> list[int | None]:
    """The inverse of `lengths`; the last length is None and means the bytes that are left."""
    count = fields.varint()
    if count > MAX_SECTIONS:
        raise malformed()
    return [fields.varint() for _ in range(count - 1)] + [None] * (count > 0)


def entries(runs_R4: Integers) -> int:
    """The number of pictures and of their sections."""
    return int((runs_R4[:, 0] * (1 + runs_R4[:, 3])).sum())


def require_entries(layout: Layout) -> None:
    """Refuse pictures and sections that are more than a container lists."""
    _require_entries(entries(layout.runs_R4))


def _require_entries(count: int) -> None:
    if count > MAX_ENTRIES:
        raise InputError(
            f"A container lists at most {MAX_ENTRIES} pictures and sections, not {count}: write"
            " several files."
        )


def _is_shortest(runs_R4: Integers) -> bool:
    """Whether no run is empty, and none goes on where the one before it ends."""
    goes_on = (runs_R4[1:, 1:] == runs_R4[:-1, 1:]).all(axis=1).any()
    return bool((runs_R4[:, 0] >= 1).all() and not goes_on)


def _table(lengths_K: Integers) -> bytes:
    least, most = int(lengths_K.min()), int(lengths_K.max())
    bits = (most - least).bit_length()
    rest = fixed_length.pack(lengths_K - least, 1 << bits) if bits else b""
    return varints([least]) + bytes([bits]) + rest


def _read_table(fields: Fields, count: int) -> Integers:
    """The inverse of `_table`."""
    least, bits = fields.varint(), fields.take(1)[0]
    if bits > MAX_BITS:
        raise malformed()
    packed = fields.take(-(-count * bits // 8))
    if not bits:
        return np.full(count, least)
    try:
        return fixed_length.unpack(packed, 1 << bits, count) + least
    except InputError:
        raise malformed() from None
