"""Coders: pairs of encode and decode that stand side by side and compose into larger ones.

    ( value ) ──encode──▶ ( bytes ) ──decode──▶ ( value )

A coder says with which integer frequencies the next symbols of its value are coded; what was coded
before may decide them, since the decoder has it too by then. Everything that a decoder must
reproduce is integers, so encoder and decoder agree on every machine as long as the model's
frequencies do. (After craystack, Townsend, Bird, Kunze and Barber, 2020; a range coder is first in,
first out, so encode and decode run in the same order.)

    independent   ( x_1 … x_B )
    stepwise      ( x_1 ) ──▶ ( x_2 | x_1 ) ──▶ ( x_3 | x_1, x_2 ) ──▶ …
    in_turn       ( a ) ──▶ ( b ) ──▶ ( c )
    conditioned   ( a ) ──▶ ( b | a )
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from gencomp.coding.range_coder import Decoder, Encoder
from gencomp.coding.tables import PRECISION, Integers
from gencomp.errors import InputError

A = TypeVar("A")
B = TypeVar("B")
State = TypeVar("State")
T = TypeVar("T")


class Coder(NamedTuple, Generic[T]):
    """How values of one kind are written and read.

    Attributes:
        encode: appends a value.
        decode: reads the value again; the decoder stands where the encoder stood.
    """

    encode: Callable[[Encoder, T], None]
    decode: Callable[[Decoder], T]


def to_bytes(coder: Coder[T], value: T) -> bytes:
    """A value as bytes.

        ( value ) ──▶ ( bytes )

    Raises:
        InputError: no value of this coder.
    """
    encoder = Encoder()
    coder.encode(encoder, value)
    return encoder.data()


def from_bytes(coder: Coder[T], data: bytes) -> T:
    """The value of bytes; the inverse of `to_bytes`.

        ( bytes ) ──▶ ( value )

    Raises:
        InputError: `data` is not what `to_bytes` returns for any value.
    """
    decoder = Decoder(data)
    value = coder.decode(decoder)
    decoder.finish()
    return value


def independent(frequencies_BL: Integers, precision: int = PRECISION) -> Coder[Integers]:
    """Symbols that are coded in one step, each by its own frequencies.

        ( x_1 … x_B )

    Args:
        frequencies_BL: integers of at least 1; each row sums to 2^precision.
        precision: 1..24.
    """

    def encode(encoder: Encoder, symbols_B: Integers) -> None:
        encoder.put(symbols_B, frequencies_BL, precision)

    def decode(decoder: Decoder) -> Integers:
        return decoder.take(frequencies_BL, precision)

    return Coder(encode, decode)


def stepwise(
    steps: int,
    start: State,
    frequencies: Callable[[State], Integers],
    after: Callable[[State, Integers], State],
    precision: int = PRECISION,
) -> Coder[Sequence[Integers]]:
    """An autoregressive or adaptive model: what is coded changes what comes next.

        ( x_1 ) ──▶ ( x_2 | x_1 ) ──▶ ( x_3 | x_1, x_2 ) ──▶ …

    Args:
        steps: how many; the value is the list of their symbols, [B_1], [B_2], …
        start: what the model knows before the first step.
        frequencies: of the next symbols given what it knows, [B, L] with B and L of that step; each
            row sums to 2^precision.
        after: what it knows after a step, from what it knew and the symbols. It must leave the old
            state as it was.
        precision: 1..24.
    """

    def encode(encoder: Encoder, value: Sequence[Integers]) -> None:
        if len(value) != steps:
            raise InputError(f"A model of {steps} steps codes {steps} arrays, not {len(value)}.")
        state = start
        for symbols_B in value:
            encoder.put(symbols_B, frequencies(state), precision)
            state = after(state, symbols_B)

    def decode(decoder: Decoder) -> Sequence[Integers]:
        value, state = [], start
        for _ in range(steps):
            value.append(decoder.take(frequencies(state), precision))
            state = after(state, value[-1])
        return value

    return Coder(encode, decode)


def in_turn(*coders: Coder[Any]) -> Coder[tuple[Any, ...]]:
    """Values of several coders, one after the other.

    ( a ) ──▶ ( b ) ──▶ ( c )
    """

    def encode(encoder: Encoder, values: tuple[Any, ...]) -> None:
        for coder, value in zip(coders, values, strict=True):
            coder.encode(encoder, value)

    def decode(decoder: Decoder) -> tuple[Any, ...]:
        return tuple(coder.decode(decoder) for coder in coders)

    return Coder(encode, decode)


def conditioned(first: Coder[A], then: Callable[[A], Coder[B]]) -> Coder[tuple[A, B]]:
    """A value, and another whose coder depends on it.

        ( a ) ──▶ ( b | a )

    Args:
        first: codes a.
        then: the coder of b, from a.
    """

    def encode(encoder: Encoder, values: tuple[A, B]) -> None:
        a, b = values
        first.encode(encoder, a)
        then(a).encode(encoder, b)

    def decode(decoder: Decoder) -> tuple[A, B]:
        a = first.decode(decoder)
        return a, then(a).decode(decoder)

    return Coder(encode, decode)
