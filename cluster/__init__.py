"""Ray Train: the worker loop, checkpoints, resume, the Ray runtime."""
