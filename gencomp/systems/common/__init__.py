"""What several methods share: parts that a system is made of, one subject a file.

    pixels           images of 8 bits as the values that networks see, and back
    objectives       phases with an Adam each, in the order of a step
    evaluation_sums  errors of reconstructions as sums that can be merged
    calibration      training batches for the batch statistics of final weights

Nothing here knows a method, and no other floor imports it.
"""
