"""The exit codes of commands, and the first words of their messages.

A job reads both from the command that it runs, so they are defined in one place. `shards` does not
know this package and defines its own exit code of bad input, which is the same.
"""

DONE = 0
FAILED = 1
# The usage or the input was wrong; one sentence says so, and nothing was written.
BAD_INPUT = 2
# A signal asked the command to stop, which it did at a checkpoint if there was something to save.
STOPPED = 130
# The reader of the output has left, as `head` does once it has its lines.
UNREAD = 141
# SIGTERM ended a job after it had saved.
TERMINATED = 143

# The first words of every line on the error stream.
SPEAKER = "gencomp: "
ERROR = f"{SPEAKER}error: "
FAILURE = f"{SPEAKER}failed: "
WARNING = f"{SPEAKER}warning: "
