"""The logs of a run: JSON lines of metrics and of every process, and stacks of stuck workers."""
