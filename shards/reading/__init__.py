"""Reading a shard set in an exact order."""
