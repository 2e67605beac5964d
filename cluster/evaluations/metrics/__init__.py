"""Measuring a finished run on held-out images, in blocks that any number of processes share.

RUN/evaluations/NAME/
    protocol.json   what is measured, on what, by which rules; another one is refused
    parts/          one safetensors file for each finished block: values and features of its images
    metrics.json    what the parts amount to, with intervals, counts and the protocol

A block is a few hundred images, or samples of the prior. It is made in one go and its part written
whole, so work that is killed loses a block at most. The same protocol gives the same parts, bit for
bit, on one kind of machine.
"""
