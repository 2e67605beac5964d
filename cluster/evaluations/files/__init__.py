"""What files of a codec cost and look like: real streams of held-out pictures, written and read.

RUN/evaluations/NAME/
    files.json      the plan: whose codec, which pictures
    parts/          one safetensors file for each finished block: bits, bytes, errors and seconds
    rates.json      what the parts amount to, with intervals, counts and the protocol
"""
