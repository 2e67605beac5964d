"""Training step by step: what a worker computes, keeps and records."""
