"""The one error that `shards` raises for bad data and bad input."""


class ShardError(ValueError):
    """Bad data or bad input; the message is one sentence: what is wrong, where, and the remedy."""

    exit_code = 2
