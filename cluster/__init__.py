"""Training under Ray Train: the worker loop, checkpoints, resumption and the Ray runtime."""
