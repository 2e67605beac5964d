"""Remote stores, and local copies of their shards."""
