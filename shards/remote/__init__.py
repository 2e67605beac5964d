"""Remote stores, and local copies of what lies there."""
