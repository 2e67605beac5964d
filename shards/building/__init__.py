"""Building shard sets, from data sets as they are shipped or from other sets."""
