"""Jobs: what is asked of Slurm, what was submitted, and where it stands."""
