"""Jobs through submitit: arrays of evaluations, training and sweeps, status and collection."""
