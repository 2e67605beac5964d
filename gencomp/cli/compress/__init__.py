"""`gencomp compress` and `gencomp decompress`, which turn images into files and back."""
