"""Measures of distortion and of perception, mergeable over any division of the images.

What decides is in float64 or in exact integers. Nothing here knows where images come from.
"""
