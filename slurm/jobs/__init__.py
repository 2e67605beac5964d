"""Jobs: the requests to Slurm, the record of what was submitted, and its status."""
