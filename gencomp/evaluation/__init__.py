"""Measures of distortion and of perception, which can be merged over any division of the images.

Numbers that decide are float64 or exact integers. Nothing here knows where images come from.
"""
