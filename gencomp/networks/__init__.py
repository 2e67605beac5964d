"""The networks of the published systems, one file for each, and the layers that they share."""
