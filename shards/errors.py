"""The one error of the data floor."""


class ShardError(ValueError):
    """Bad data or bad input: one sentence that says what, where and the mend."""

    exit_code = 2
