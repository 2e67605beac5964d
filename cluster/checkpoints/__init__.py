"""How checkpoints are written whole, kept by rules and mirrored elsewhere."""
