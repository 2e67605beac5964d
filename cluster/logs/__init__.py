"""What processes write down: logs of every rank, lines of JSON, and the stacks of a stuck one."""
