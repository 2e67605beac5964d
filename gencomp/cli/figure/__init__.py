"""`gencomp figure`: figures of papers from finished runs and evaluations."""
