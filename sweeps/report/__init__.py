"""What a report is made from: a generator, a sweep over codecs, a curve of the generator."""
