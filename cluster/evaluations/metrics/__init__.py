"""The measurement of a finished run on held-out images, in blocks that many processes can share.

RUN/evaluations/NAME/
    protocol.json   what is measured, on what, by which rules; another protocol is refused
    parts/          one safetensors file for each finished block: values and features of its images
    metrics.json    the metrics merged from the parts, with intervals, counts and the protocol

A block is a few hundred images, or samples of the prior. It is measured in one go and its part is
written whole, so a process that is killed loses one block at most. The same protocol gives the same
parts, bit for bit, on one kind of machine.
"""
