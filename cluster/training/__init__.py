"""One training step after another: what a worker computes, keeps and writes down."""
