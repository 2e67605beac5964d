"""`gencomp shards`, whose commands make, index, cut, check and count shard sets."""
