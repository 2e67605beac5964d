"""submitit: evaluation arrays, training and sweeps inside allocations, status, collect."""
