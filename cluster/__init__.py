"""Training, by Ray Train or in one process: the worker loop, checkpoints and their resumption."""
