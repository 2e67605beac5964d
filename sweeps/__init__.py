"""Ray Tune: search spaces, schedulers, trial identity, result tables."""
