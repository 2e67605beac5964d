"""The evaluations of a finished run, computed block by block by any number of processes."""
