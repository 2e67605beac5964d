"""The parts of systems that several methods share, one subject in each file.

    pixels           maps images of 8 bits to the values that networks see, and back
    objectives       phases that each have an Adam, in the order of a step
    evaluation_sums  errors of reconstructions as sums that can be merged
    perceptual       distances of images by a network from a file
    calibration      training batches for the batch statistics of final weights

Nothing here knows a method, and no other floor imports it.
"""
