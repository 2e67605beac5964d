"""What is computed of a finished run, block by block, by whatever process has the time."""
