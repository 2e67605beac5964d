"""Finished runs and evaluations read back, at equal protocol: what figures and reports show."""
