"""Checkpoints: written whole, kept by rules, mirrored elsewhere."""
