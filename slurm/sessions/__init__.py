"""Training and sweeps inside allocations of Slurm."""
