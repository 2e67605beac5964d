"""`gencomp shards`: shard sets made, cut, checked and counted."""
