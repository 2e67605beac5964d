"""What gencomp adds to Ray Train: its own process group, scaling policy and reports of failures."""
