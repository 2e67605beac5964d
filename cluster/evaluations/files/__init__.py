"""The sizes and errors of a codec's files: held-out pictures are encoded and decoded for real.

RUN/evaluations/NAME/
    files.json      the plan: the codec and the pictures
    parts/          one safetensors file for each finished block: bits, bytes, errors and seconds
    rates.json      the rates merged from the parts, with intervals, counts and the protocol

Every picture becomes a file of its own, and once more a member of a joint container, since a small
picture's file is mostly container.
"""
