"""`gencomp compress` and `gencomp decompress`: images to files and back."""
