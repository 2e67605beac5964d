"""A coder is a pair of functions, encode and decode; coders compose into larger coders.

    ( value ) ──encode──▶ ( bytes ) ──decode──▶ ( value )

A coder states the integer frequencies by which the next symbols of its value are coded. They may
depend on everything that was coded before, since the decoder has read it by then. Everything that a
decoder must reproduce is an integer, so encoder and decoder agree on every machine as long as the
model's frequencies do. The design follows craystack (Townsend, Bird, Kunze and Barber, 2020); a
range coder is first in, first out, so encode and decode run in the same order.

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
    """The two functions that write and read values of one kind.

    Attributes:
        encode: appends a value to what the encoder holds.
        decode: reads that value; the decoder must have read all that was encoded before it.
    """

    encode: Callable[[Encoder, T], None]
    decode: Callable[[Decoder], T]


def to_bytes(coder: Coder[T], value: T) -> bytes:
    """Encode a value.

        ( value ) ──▶ ( bytes )

    Raises:
        InputError: the coder cannot write this value.
    """
    encoder = Encoder()
    coder.encode(encoder, value)
    return encoder.data()


def from_bytes(coder: Coder[T], data: bytes) -> T:
    """Decode the value that `to_bytes` has encoded.

        ( bytes ) ──▶ ( value )

    Raises:
        InputError: `to_bytes` returns `data` for no value.
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
    """Symbols of an autoregressive or adaptive model, whose frequencies depend on earlier symbols.

        ( x_1 ) ──▶ ( x_2 | x_1 ) ──▶ ( x_3 | x_1, x_2 ) ──▶ …

    Args:
        steps: the number of steps; the value is the list of their symbols, [B_1], [B_2], …
        start: the model's state before the first step.
        frequencies: maps a state to the frequencies of the next symbols, [B, L], where B and L may
            differ between steps; each row sums to 2^precision.
        after: maps a state and the symbols of a step to the state after that step, without changing
            the old state.
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
    """A tuple of values, each written by its own coder, one after the other.

    ( a ) ──▶ ( b ) ──▶ ( c )
    """

    def encode(encoder: Encoder, values: tuple[Any, ...]) -> None:
        for coder, value in zip(coders, values, strict=True):
            coder.encode(encoder, value)

    def decode(decoder: Decoder) -> tuple[Any, ...]:
        return tuple(coder.decode(decoder) for coder in coders)

    return Coder(encode, decode)


def conditioned(first: Coder[A], then: Callable[[A], Coder[B]]) -> Coder[tuple[A, B]]:
    """A pair of values, where the coder of the second depends on the first.

        ( a ) ──▶ ( b | a )

    Args:
        first: the coder of a.
        then: maps a to the coder of b.
    """

    def encode(encoder: Encoder, values: tuple[A, B]) -> None:
        a, b = values
        first.encode(encoder, a)
        then(a).encode(encoder, b)

    def decode(decoder: Decoder) -> tuple[A, B]:
        a = first.decode(decoder)
        return a, then(a).decode(decoder)

    return Coder(encode, decode)
