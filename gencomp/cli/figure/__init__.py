"""`gencomp figure`, whose commands draw figures for papers from finished runs and evaluations."""
