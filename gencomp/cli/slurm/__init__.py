"""`gencomp slurm`: jobs on Slurm, and where they stand."""
