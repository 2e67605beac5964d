"""Numbers of a header: many at once are what each is alone, and what no writer writes is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp.coding.fields import Fields, varints
from gencomp.errors import InputError

numbers = st.lists(st.integers(0, 2**35 - 1) | st.integers(0, 300), max_size=30)


def plain(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(numbers, st.binary(max_size=9))
def test_many_are_what_each_is_alone(each: list[int], rest: bytes) -> None:
    data = varints(each)
    assert data == b"".join(map(plain, each))
    one_by_one, at_once = Fields(data + rest), Fields(data + rest)
    assert [one_by_one.varint() for _ in each] == at_once.varints(len(each)).tolist() == each
    assert one_by_one.left == at_once.left == len(rest)


@given(st.binary(max_size=40), st.integers(1, 9))
def test_any_bytes_are_read_alike(data: bytes, count: int) -> None:
    one_by_one, at_once = Fields(data), Fields(data)
    try:
        expected = [one_by_one.varint() for _ in range(count)]
    except InputError:
        with pytest.raises(InputError, match="do not fit its length"):
            at_once.varints(count)
    else:
        assert at_once.varints(count).tolist() == expected and at_once.at == one_by_one.at


def test_numbers_of_more_than_35_bits_are_refused() -> None:
    with pytest.raises(InputError, match=f"a section of {2**35} bytes"):
        varints([1, 2**35])
