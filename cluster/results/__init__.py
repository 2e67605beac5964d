"""The results of finished runs and evaluations, which figures and reports show and compare."""
