"""`gencomp slurm`, whose commands submit jobs, show where they stand, and collect their results."""
