"""How a command says how it ended, to whoever started it: exit codes, and who speaks.

A job reads both from the command that it runs, so they stand in one place. `shards` knows nothing
of this package and states its own code of bad input, which is the same.
"""

DONE = 0
FAILED = 1
# Wrong usage or input: one sentence, and nothing was written.
BAD_INPUT = 2
# Asked to stop by a signal, and did so at a checkpoint if there was something to save.
STOPPED = 130
# A job ended by SIGTERM, after it saved.
TERMINATED = 143

# The first words of every line on the error stream.
SPEAKER = "gencomp: "
ERROR = f"{SPEAKER}error: "
FAILURE = f"{SPEAKER}failed: "
WARNING = f"{SPEAKER}warning: "
