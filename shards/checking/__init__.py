"""Checking and describing shard sets."""
