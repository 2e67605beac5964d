"""A finished tiny run, and evaluations of its curve."""

from tests.curves import evaluate, finished, run, tuned  # noqa: F401
