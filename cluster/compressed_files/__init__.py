"""Images become compressed files, and the files images again, with the codec of a run.

places      the names of files, and whether one may be written
images      the pixels of image files, and PNG files that say what they were decoded from
work        one file: an image, a compressed file, or a joint file of many pictures
processes   many files: one after another, or in as many processes as their work is worth
"""
