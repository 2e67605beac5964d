"""Runs in an experiment tracker: MLflow, Weights & Biases or Trackio.

The metrics log of a run is the one truth. The driver follows it and gives the tracker what the
tracker lacks (`follower`), so that the training loop knows of no tracker, and one that fails or
cannot be reached holds nothing up. RUN/tracking.json (`record`) holds the id of the run in the
tracker and what was sent, for the next attempt on whatever host. `tracker` says what a tracker must
be able to do; each has a file of its own, which is imported only when it is asked for (`choice`).
"""
